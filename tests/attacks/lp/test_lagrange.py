from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks.lp.lagrange import Noise, diffusion_gradient
from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion import OptimalDenoiser
from rdc_bench.diffusion.loss import edm_weight
from rdc_bench.threats import LpThreat


@pytest.fixture
def model() -> RDC:
    g = torch.Generator().manual_seed(0)
    denoiser = OptimalDenoiser(torch.rand(9, 1, 6, 6, generator=g), torch.arange(9) % 3)
    maximization = LikelihoodMaximization(denoiser, steps=2, step_size=0.02, optimizer="normalized")
    return RDC(maximization, DiffusionClassifier(denoiser, 3, levels=3))


@pytest.fixture
def batch(model: RDC) -> tuple[Tensor, Tensor]:
    x = (model.classifier.denoiser.z[:4] + 1) / 2
    x = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    return x, torch.arange(4) % 3


def test_the_gradient_is_that_of_the_weighted_squared_error() -> None:
    """With one image in it, the optimal denoiser answers that image, so the loss is ``λ(σ)‖z₀ − z‖²/d``."""
    z0 = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    x = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    sigma = torch.tensor([[0.4, 0.5, 0.6], [0.5, 0.6, 0.4]], dtype=torch.float64)
    noise = Noise(sigma, torch.randn(2, 3, 1, 2, 2, dtype=torch.float64))
    found = diffusion_gradient(OptimalDenoiser((z0 + 1) / 2, torch.tensor([0])), x, None, noise)
    weight = edm_weight(sigma, 0.5).mean(dim=0)[:, None, None, None]
    torch.testing.assert_close(found, weight * 2 * (2 * x - 1 - z0) * 2 / 4)


@pytest.mark.parametrize("kind", ["linf", "l2"])
@pytest.mark.parametrize("condition", ["none", "true"])
def test_result_is_allowed_and_depends_on_the_image_alone(
    kind: Any, condition: str, model: RDC, batch: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = batch
    threat = LpThreat(kind, {"linf": 0.05, "l2": 0.3}[kind])
    options = {"steps": 4, "draws": 2, "condition": condition, "gradient": "surrogate"}
    together = attacked("lagrange", model, x, y, threat, **options)
    assert threat.contains(x, together).all()
    order = [2, 0, 3, 1]
    shuffled = attacked("lagrange", model, x[order], y[order], threat, ids=order, **options)
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
    alone = attacked("lagrange", model, x[1:2], y[1:2], threat, ids=[1], **options)
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=0)


def test_without_weight_it_is_pgd(model: RDC, batch: tuple[Tensor, Tensor], attacked: Any) -> None:
    x, y = batch
    threat = LpThreat("l2", 0.3)
    plain = attacked("pgd", model, x, y, threat, steps=5, loss="ce")
    torch.testing.assert_close(attacked("lagrange", model, x, y, threat, steps=5, weight=0.0), plain, rtol=0, atol=0)


@pytest.mark.parametrize("condition", ["none", "true"])
def test_weight_buys_likelihood(condition: str, model: RDC, batch: tuple[Tensor, Tensor], attacked: Any) -> None:
    """The image that is returned has a lower diffusion loss than PGD's under the class that was asked for."""
    x, y = batch
    denoiser, threat = model.classifier.denoiser, LpThreat("linf", 0.1)

    def diffusion_loss(points: Tensor) -> Tensor:
        g = torch.Generator().manual_seed(5)
        z = (2 * points - 1).repeat(200, 1, 1, 1)
        labels = None if condition == "none" else y.repeat(200)
        noisy = z + 0.5 * torch.randn(z.shape, generator=g)
        error = denoiser(noisy, torch.full((len(z),), 0.5), labels) - z
        return error.square().flatten(1).mean(dim=1).unflatten(0, (200, -1)).mean(dim=0)

    plain, likely = (
        attacked("lagrange", model, x, y, threat, steps=10, weight=weight, condition=condition) for weight in (0.0, 100.0)
    )
    assert (diffusion_loss(likely) < diffusion_loss(plain)).all()


def test_it_breaks_an_undefended_classifier_behind_likelihood_maximisation(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    denoiser = OptimalDenoiser(held_out[0], held_out[1])
    maximization = LikelihoodMaximization(denoiser, steps=1, step_size=0.01, optimizer="normalized")
    defended = RDC(maximization, trained)
    x, y = held_out
    adversarial = attacked("lagrange", defended, x, y, LpThreat("linf", 0.25), weight=0.1)
    with draws_for([("judge", i) for i in range(len(x))]):
        assert (defended(x).argmax(dim=1) == y).all()
        assert (defended(adversarial).argmax(dim=1) == y).float().mean() <= 0.25


def test_models_without_what_it_needs_are_refused(
    model: RDC, trained: nn.Module, held_out: tuple[Tensor, Tensor], batch: tuple[Tensor, Tensor], attacked: Any, toys: Any
) -> None:
    threat = LpThreat("linf", 0.1)
    with pytest.raises(UserError, match="needs a model with a denoiser"):
        attacked("lagrange", trained, *held_out, threat)
    only_maximization = RDC(model.likelihood_maximization, nn.Flatten())
    with pytest.raises(UserError, match="needs a diffusion classifier"):
        attacked("lagrange", only_maximization, *batch, threat, condition="true")


def test_in_a_run_a_model_without_denoiser_is_undecided_with_the_reason(toys: list[str], tmp_path: Any) -> None:
    done = rdc_bench.run(models=["toy"], attacks=["lagrange"], n=12, out=tmp_path)
    assert not done.complete
    assert done.models[0].worst.high > 0
    assert "needs a model with a denoiser" in done.manifest.failures[0].reason
