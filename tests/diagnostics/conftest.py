"""A toy problem on which networks and a diffusion classifier are honest, and defences can be planted in them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rdc_bench.attacks.lp.pgd import pgd
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.diagnostics.run import examine
from rdc_bench.diagnostics.subject import make_subject
from rdc_bench.diffusion.optimal import GaussianDenoiser
from rdc_bench.threats import LpThreat

CLASSES, SIDE, SPREAD = 4, 8, 0.3
EPS = 12 / 255


class Problem:
    """Images scattered around one mean for each class, ``examined`` under ℓ∞."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.means = 0.15 * torch.randn(CLASSES, 1, SIDE, SIDE, generator=g)
        self.x, self.y = self._draw(256, g)
        self.test_x, self.test_y = self._draw(32, g)
        self.standard, self.robust = self._train(0.0), self._train(EPS)

    def _draw(self, n, g):
        y = torch.randint(CLASSES, (n,), generator=g)
        z = self.means[y] + SPREAD * torch.randn(n, 1, SIDE, SIDE, generator=g)
        return ((z + 1) / 2).clamp(0, 1), y

    def _train(self, eps):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, CLASSES)
            )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        threat, generators = LpThreat("linf", eps), [torch.Generator().manual_seed(1)]
        for _ in range(60):
            x = pgd.function(network, self.x, self.y, threat, generators=generators, steps=3) if eps else self.x
            optimizer.zero_grad()
            F.cross_entropy(network(x), self.y).backward()
            optimizer.step()
        return network.eval().requires_grad_(False)

    def diffusion_classifier(self, noise):
        return DiffusionClassifier(
            GaussianDenoiser(self.means, SPREAD), CLASSES, levels=2, log_mean=-1.0, noise=noise, temperature=0.02
        )

    def examined(self, model, surrogates=(), n=32):
        """Verdicts by the checks' names, and the checks."""
        others = {str(i): network for i, network in enumerate(surrogates)}
        subject = make_subject(model, self.test_x[:n], self.test_y[:n], LpThreat("linf", EPS), 0, others)
        checks = {check.name: check for check in examine(subject)}
        return {name: check.verdict for name, check in checks.items()}, checks


@pytest.fixture(scope="session")
def problem():
    return Problem()
