"""What holds for every attack of this package under every threat that it declares."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench import UserError
from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import draws_for, generator
from rdc_bench.threats import THREATS, Threat

# These need a denoiser in the model, other models beside it, or thousands of looks at it; their own tests say the same of them.
DEMANDING = ("lagrange", "transfer", "nes")
CASES = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name in ATTACKS.names()
    if ATTACKS.entry(name).origin == "rdc_bench" and ATTACKS.get(name).batched and name not in DEMANDING
    for kind in ATTACKS.get(name).threats
]
# Sizes at which some images fall and others stand, and sizes at which an undefended network is lost.
MIDDLING = {
    "linf": 0.06,
    "l2": 0.7,
    "l1": 3.0,
    "elastic": 0.2,
    "fog": 0.5,
    "jpeg-linf": 0.3,
    "jpeg-l2": 3.0,
    "patch": 0.2,
    "snow": 0.3,
    "gabor": 0.1,
    "low-frequency": 0.12,
    "corruptions": 3,
    "perceptual": 0.6,
    "recolor": 0.08,
    "rotation-translation": 0.5,
    "stadv": 0.06,
}
LARGE = {
    "linf": 0.25,
    "l2": 3.0,
    "l1": 20.0,
    "elastic": 0.7,
    "fog": 10.0,
    "jpeg-linf": 4.0,
    "jpeg-l2": 20.0,
    "patch": 0.8,
    "snow": 1.0,
    "gabor": 0.8,
    "low-frequency": 0.6,
    "corruptions": 5,
    "perceptual": 2.5,
    "recolor": 1.0,
    "rotation-translation": 3.0,
    "stadv": 0.5,
}

pytestmark = pytest.mark.usefixtures("small_budgets")


def make_threat(kind: str, eps: float) -> Threat:
    if kind == "corruptions":
        pytest.importorskip("imagecorruptions")
    return THREATS.get(kind)(eps)


@pytest.fixture(params=["deterministic", "stochastic"])
def model(request: pytest.FixtureRequest, trained: nn.Module, noisy: nn.Module) -> nn.Module:
    return trained if request.param == "deterministic" else noisy


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_result_is_allowed_and_depends_on_the_image_alone(
    name: str, kind: str, model: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = held_out[0][:4].clone(), held_out[1][:4].clone()
    y[1] = (y[1] + 1) % 10  # an image that is wrong to begin with
    threat = make_threat(kind, MIDDLING[kind])
    before, labels, state = x.clone(), y.clone(), torch.get_rng_state()
    trace = sys.gettrace()

    together = attacked(name, model, x, y, threat)

    assert together.shape == x.shape
    assert together.dtype == x.dtype
    assert together.isfinite().all()
    assert not together.requires_grad
    assert threat.contains(x, together).all()
    assert torch.equal(x, before)
    assert torch.equal(y, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.gettrace() is trace
    assert all(p.requires_grad and p.grad is None for p in model.parameters())

    order = [2, 0, 3, 1]
    shuffled = attacked(name, model, x[order], y[order], threat, ids=order)
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
    alone = torch.cat([attacked(name, model, x[i : i + 1], y[i : i + 1], threat, ids=[i]) for i in range(4)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_breaks_an_undefended_model(
    name: str, kind: str, model: nn.Module, noisy: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = held_out
    adversarial = attacked(name, model, x, y, make_threat(kind, LARGE[kind]))
    with draws_for([("judge", i) for i in range(len(x))]):
        assert (model(x).argmax(dim=1) == y).all()
        surviving = (model(adversarial.repeat(10, 1, 1, 1)).argmax(dim=1) == y.repeat(10)).float().mean()
    # These stop at the boundary, or at one lucky draw, so that a randomised model is often right again.
    assert surviving <= (0.9 if model is noisy and name.startswith(("ddn", "fab", "fmn", "square")) else 0.25)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_images_that_are_wrong_already_stay_wrong(
    name: str, kind: str, trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = held_out[0][:2], (held_out[1][:2] + 1) % 10
    adversarial = attacked(name, trained, x, y, make_threat(kind, MIDDLING[kind]))
    assert (trained(adversarial).argmax(dim=1) != y).all()


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("shape", [(1, 20, 13), (2, 11, 14), (3, 20, 13)], ids=str)
def test_images_need_be_neither_grey_nor_square(name: str, kind: str, shape: tuple[int, int, int], attacked: Any) -> None:
    g = generator(name, shape[0])
    x = (1.6 * torch.rand(2, *shape, generator=g) - 0.3).clamp(0, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10, bias=False)).requires_grad_(False)
    model[1].weight.copy_(torch.randn(model[1].weight.shape, generator=g))
    threat = make_threat(kind, MIDDLING[kind])
    try:
        threat.max_eps(x.shape[1:])
    except UserError as error:
        pytest.skip(str(error))
    y = model(x).argmax(dim=1)
    adversarial = attacked(name, model, x, y, threat)
    assert adversarial.shape == x.shape
    assert threat.contains(x, adversarial).all()
    assert (threat.distance(x, adversarial) <= threat.eps * 1.01).all()
