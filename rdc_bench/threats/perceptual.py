"""The neural perceptual threat model (Laidlaw, Singla & Feizi 2021, arXiv 2006.12655): images that look alike to a network.

The distance of two images is that of a network's internal activations: those of each layer are scaled to unit norm over the
channels at every place and divided by the square root of the number of places, then all are put into one vector ``φ(x)``, and
``d(x, x') = ‖φ(x) − φ(x')‖₂`` (section 3 there; LPIPS of Zhang et al. 2018, arXiv 1801.03924, without its learned weights). The
networks are those of the bundled standard classifiers, so that nothing has to be downloaded; the paper's are AlexNet, trained
on ImageNet, or the attacked network itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.core.card_files import packaged
from rdc_bench.core.errors import UserError
from rdc_bench.networks import ResNet18, SmallResNet
from rdc_bench.zoo.loading import load_model

#: By the number of channels, the packaged card of the network that looks at the images. Both networks take any size.
NETWORKS = {1: "standard-fashion-mnist", 3: "standard-cifar10"}
#: Below this, the deepest layers see less than one place.
SMALLEST = 8
#: Layers whose activations are compared, of either network.
LAYERS = 5

#: Slack of the membership test in distances, far above what devices differ by in float64.
ROUNDING = 1e-7
#: Halvings of the way between two images in the search for the bound.
HALVINGS = 10

Embedding = Callable[[Tensor], Tensor]


class PerceptualThreat:
    """``{x' ∈ [0, 1]^d : ‖φ(x') − φ(x)‖₂ ≤ ε}``. Membership is exact: the distance is computed anew, in float64.

    Args:
        eps: largest distance. embedding: ``φ``, images in float64 (B, C, H, W) to vectors (B, F), each from its image alone; by
            default that of the bundled network for the images' number of channels.
    """

    kind = "perceptual"

    def __init__(self, eps: float, embedding: Embedding | None = None) -> None:
        self.eps = eps
        self._embedding = embedding

    def max_eps(self, shape: Sequence[int]) -> float:
        """The distance at which no activation is shared. Raises ``UserError`` for images that no bundled network sees."""
        if self._embedding is None and (shape[0] not in NETWORKS or min(shape[1:]) < SMALLEST):
            raise UserError(
                f"threat {self.kind} has networks for images of {' or '.join(map(str, NETWORKS))} channels and at least "
                f"{SMALLEST} × {SMALLEST} pixels, not for {' × '.join(map(str, shape))}"
            )
        return math.sqrt(2 * LAYERS)

    def embed(self, x: Tensor) -> Tensor:
        """``φ(x)`` in float64, (B, F); differentiable."""
        embedding = self._embedding or bundled_embedding(x.shape[1], x.device)
        return embedding(x.double())

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """``‖φ(x') − φ(x)‖₂`` per image, (B,) in float64."""
        with torch.no_grad():
            return (self.embed(adversarial) - self.embed(x)).norm(dim=1)

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is in [0, 1] and within ε of ``x``; bool (B,)."""
        in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)  # false for NaN as well
        return in_range & (self.distance(x, adversarial) <= self.eps + ROUNDING)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """``adversarial``, clipped to [0, 1], if it is inside; else a point where the line from ``x`` to it leaves the set.

        By bisection, as in the paper. What is returned is inside in the precision of ``x``, not only before rounding.
        """
        origin, goal = self.embed(x).detach(), adversarial.clamp(0, 1)
        share = torch.zeros(len(x), 1, 1, 1, dtype=torch.float64, device=x.device)
        for power in range(HALVINGS + 1):
            further = (share + 0.5**power).clamp(max=1)
            with torch.no_grad():
                inside = (self.embed(_between(x, goal, further)) - origin).norm(dim=1) <= self.eps
            share = torch.where(inside[:, None, None, None], further, share)
            if inside.all() and power == 0:
                break
        return _between(x, goal, share)


def bundled_embedding(channels: int, device: torch.device) -> Embedding:
    """``φ`` of the bundled network for images with so many channels."""
    return functools.partial(_embed, _network(channels, device))


@functools.cache
def _network(channels: int, device: torch.device) -> nn.Module:
    # The packaged card, whatever the working directory holds under its name: distances must be the same everywhere.
    with torch.random.fork_rng(devices=[]):  # a network draws its first weights before it loads others
        return load_model(str(packaged("models") / f"{NETWORKS[channels]}.yaml")).double().to(device)


def _embed(network: nn.Module, x: Tensor) -> Tensor:
    return normalized(activations(network, x))


def normalized(layers: Sequence[Tensor]) -> Tensor:
    """``φ`` (B, F) from the activations (B, C_l, H_l, W_l) of each layer."""
    scaled = [h / (h.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() / math.sqrt(h.shape[2] * h.shape[3]) for h in layers]
    return torch.cat([h.flatten(1) for h in scaled], dim=1)


def activations(network: nn.Module, x: Tensor) -> list[Tensor]:
    """What the network sees in images (B, C, H, W) in [0, 1] at each of ``LAYERS`` depths, after its ReLU."""
    if isinstance(network, ResNet18):
        h = F.relu(network.bn1(network.conv1(x)))
        layers = [h]
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            layers.append(stage(layers[-1]))
        return layers
    assert isinstance(network, SmallResNet)
    h = (x - network.mean) / network.std
    layers = []
    for part in network.features:
        h = part(h)
        layers.append(h)
    return [*(F.relu(h) for h in layers[:-1]), F.relu(network.norm(h))]


def _between(x: Tensor, goal: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(x.double(), goal.double(), share).clamp(0, 1).to(x)
