"""Common corruptions (Hendrycks & Dietterich 2019, arXiv 1903.12261): noise, blur, weather and digital artefacts.

The fifteen corruptions of ImageNet-C, at its five severities, come from the package ``imagecorruptions-imaug``. They are those
for large images: on images of 32 × 32 they are harsher than CIFAR-10-C's, which has settings of its own.

What is random in a corruption comes from a seed that depends on the image, the corruption, its severity and the number of the
draw alone. An image so has finitely many corrupted versions, which can be made again.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import seed_of

KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = 5
#: How many versions of each corruption there are.
DRAWS = 4

#: Least side of an image that the library takes; smaller ones are mirrored at their ends until they are as large.
LEAST_SIDE = 32
#: Slack of the membership test: what a grey level of 255 loses in float32.
ROUNDING = 1e-6


def corrupt(x: Tensor, kind: str, severity: int, draw: int) -> Tensor:
    """The version number ``draw`` of images (B, C, H, W) under a corruption, of 256 grey levels; each depends on itself alone.

    Images of one or three channels are corrupted as a whole, others channel by channel.
    """
    pixels = (x.detach().cpu().double() * 255).round().to(torch.uint8).numpy()
    corrupted = np.stack([_corrupted(image, kind, severity, draw) for image in pixels])
    return torch.from_numpy(corrupted).to(x) / 255


def require_library() -> Any:
    """The module that corrupts. Raises ``UserError`` where it is not installed."""
    try:
        return importlib.import_module("imagecorruptions")
    except ImportError as error:
        raise UserError(f"threat corruptions: pip install 'rdc-bench[corruptions]' is needed first ({error})") from error


class CorruptionsThreat:
    """``{corrupt(x, k, s, j) : k a corruption, s ≤ ε, j < DRAWS}`` and ``x`` itself.

    Membership and distance are exact: all versions are made again and compared. This takes the same release of the library;
    with another one, images may be outside that were inside, and are then undecided, not robust.
    """

    kind = "corruptions"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    @property
    def severity(self) -> int:
        """The greatest severity, a whole number."""
        return int(self.eps)

    def max_eps(self, shape: Sequence[int]) -> float:
        """The greatest severity there is. Raises ``UserError`` for no whole number, or where the library is absent."""
        if self.eps != self.severity:
            raise UserError(f"corruptions have severities 1 to {SEVERITIES}, not {self.eps:g}")
        require_library()
        return float(SEVERITIES)

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is a corrupted version of severity ε or less; bool (B,)."""
        return self._least_severity(x, adversarial, self.severity).isfinite()

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The least severity at which some corruption gives each image, (B,) in float64; 0 for ``x`` itself, else infinite."""
        return self._least_severity(x, adversarial, SEVERITIES)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The nearest version, or ``x``, in the Euclidean norm."""
        nearest, least = x.clone(), (adversarial - x).flatten(1).norm(dim=1)
        for severity in range(1, self.severity + 1):
            for version in _versions(x, severity):
                distance = (adversarial - version).flatten(1).norm(dim=1)
                nearest = torch.where((distance < least)[:, None, None, None], version, nearest)
                least = torch.minimum(distance, least)
        return nearest

    def _least_severity(self, x: Tensor, adversarial: Tensor, greatest: int) -> Tensor:
        found = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        found[_same(x, adversarial)] = 0
        for severity in range(1, greatest + 1):
            for i in found.isinf().nonzero().flatten().tolist():
                versions = _versions(x[i : i + 1], severity)
                if any(_same(version, adversarial[i : i + 1]).item() for version in versions):
                    found[i] = severity
        return found


def _versions(x: Tensor, severity: int) -> Iterator[Tensor]:
    """All versions of images at one severity."""
    return (corrupt(x, kind, severity, draw) for kind in KINDS for draw in range(DRAWS))


def _same(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other).abs() <= ROUNDING).flatten(1).all(dim=1)  # false for NaN as well


def _corrupted(image: np.ndarray, kind: str, severity: int, draw: int) -> np.ndarray:
    """Of one image, uint8 (C, H, W)."""
    content = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    seed = seed_of("corruption", content, kind, severity, draw) % 2**32
    _, h, w = image.shape
    ends = [(0, 0), *((0, max(0, LEAST_SIDE - size)) for size in (h, w))]
    padded = np.pad(image, ends, mode="symmetric")
    parts = [padded] if len(padded) == 3 else list(padded[:, None])
    # The library shows grey images to its corruptions as colour images of three equal channels.
    colours = [np.ascontiguousarray(np.broadcast_to(part, (3, *part.shape[1:])).transpose(1, 2, 0)) for part in parts]
    results = [
        _call(colour, kind, severity, seed).transpose(2, 0, 1)[: len(part)] for colour, part in zip(colours, parts, strict=True)
    ]
    return np.concatenate(results)[:, :h, :w]


def _call(image: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """The library's corruption of one image, uint8 (H, W, 3). It draws from numpy's global generator, which is put back."""
    library = require_library()
    takes_seed = "seed" in inspect.signature(library.corruption_dict[kind]).parameters
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        corrupted = library.corrupt(image, severity, kind, **({"seed": seed} if takes_seed else {}))
    finally:
        np.random.set_state(state)
    return np.asarray(corrupted, np.uint8)
