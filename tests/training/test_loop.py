from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.core.errors import UserError
from rdc_bench.data import Dataset
from rdc_bench.networks import SmallResNet
from rdc_bench.training.loop import Schedule, Trained, _batch, _cosine, _shifted, fit

SCHEDULE = Schedule(images=96, batch_size=16, flip=True, shift=1, ema=0.5, seed=3)


class InterruptedRunError(Exception):
    pass


@pytest.fixture
def data() -> Dataset:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), generator=g, dtype=torch.uint8)
    return Dataset("noise", "train", pixels, torch.randint(0, 3, (40,), generator=g), ("a", "b", "c"), "memory")


def network(seed: int = 0, width: int = 8) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(1, 3, widths=(width, width), blocks=(1, 1))


def noisy_loss(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    return F.cross_entropy(model(x + 0.1 * torch.randn(x.shape, generator=g)), y)


def train(
    data: Dataset,
    checkpoint: Path,
    *,
    model: nn.Module | None = None,
    schedule: Schedule = SCHEDULE,
    loss: Callable = noisy_loss,
    stop_at: int | None = None,
    seconds: float = 0.0,
) -> Trained:
    def progress(step: int, steps: int, running: float) -> None:
        if step == stop_at:
            raise InterruptedRunError

    model = model or network()
    return fit(model, loss, data, schedule, checkpoint=checkpoint, checkpoint_seconds=seconds, progress=progress)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for (name, first), second in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.parametrize("stops", [[1], [3], [6], [2, 3, 5], [1, 2, 3, 4, 5, 6]], ids=str)
def test_interrupted_run_ends_as_the_uninterrupted_one(data: Dataset, tmp_path: Path, stops: list[int]) -> None:
    whole = train(data, tmp_path / "whole.pt")
    for i, stop in enumerate(stops):
        # Another initialisation after the first stop that left a checkpoint: everything must come from there.
        model = network(seed=i if (tmp_path / "cut.pt").exists() else 0)
        with pytest.raises(InterruptedRunError):
            train(data, tmp_path / "cut.pt", model=model, stop_at=stop)
    resumed = train(data, tmp_path / "cut.pt", model=network(seed=99 if (tmp_path / "cut.pt").exists() else 0))
    assert_same_weights(whole.model, resumed.model)


def test_bfloat16_trains_products_in_it_and_keeps_weights_in_float32(data: Dataset, tmp_path: Path) -> None:
    seen = []

    def watched(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        logits = model(x)
        seen.append(logits.dtype)
        return F.cross_entropy(logits, y)

    exact = train(data, tmp_path / "exact.pt", loss=watched)
    mixed = train(data, tmp_path / "mixed.pt", loss=watched, schedule=replace(SCHEDULE, precision="bfloat16"))
    assert seen == [torch.float32] * SCHEDULE.steps + [torch.bfloat16] * SCHEDULE.steps
    assert all(weights.dtype == torch.float32 for weights in mixed.model.parameters())
    start, there, near = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in (network(), exact.model, mixed.model))
    # Other than exact training, but nearer to where it ends than that is to the start.
    assert 0 < (near - there).norm() < 0.5 * (there - start).norm()


def test_a_checkpoint_of_another_precision_is_refused(data: Dataset, tmp_path: Path) -> None:
    train(data, tmp_path / "c.pt")
    with pytest.raises(UserError, match="differs in precision"):
        train(data, tmp_path / "c.pt", schedule=replace(SCHEDULE, precision="bfloat16"))


def test_finished_run_is_not_trained_again(data: Dataset, tmp_path: Path) -> None:
    first = train(data, tmp_path / "c.pt", seconds=1e9)
    again = train(data, tmp_path / "c.pt", stop_at=1)
    assert_same_weights(first.model, again.model)
    assert again.seconds >= first.seconds - 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_result_depends_on_the_seed_and_not_on_the_global_generator(data: Dataset, tmp_path: Path) -> None:
    first = train(data, tmp_path / "a.pt")
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    assert_same_weights(first.model, train(data, tmp_path / "b.pt").model)
    assert torch.equal(state, torch.get_rng_state())
    other = train(data, tmp_path / "d.pt", schedule=replace(SCHEDULE, seed=4))
    assert not torch.equal(first.model.state_dict()["classifier.weight"], other.model.state_dict()["classifier.weight"])


def test_averaged_model_is_returned_in_eval_mode(data: Dataset, tmp_path: Path) -> None:
    model = network()
    trained = train(data, tmp_path / "c.pt", model=model)
    assert not trained.model.training
    assert trained.model is not model
    last = train(data, tmp_path / "d.pt", schedule=replace(SCHEDULE, ema=0.0), model=(raw := network()))
    assert torch.allclose(last.model.state_dict()["classifier.weight"], raw.state_dict()["classifier.weight"])


def test_loss_falls(data: Dataset, tmp_path: Path) -> None:
    def bright_or_dark(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        return F.cross_entropy(model(x), (x.mean(dim=(1, 2, 3)) > 0.5).long())

    losses = []
    schedule = Schedule(images=1600, batch_size=16, learning_rate=1e-2)
    fit(network(), bright_or_dark, data, schedule, checkpoint=tmp_path / "c.pt", progress=lambda s, n, v: losses.append(v))
    assert len(losses) == 100
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("change", [{"learning_rate": 1e-4}, {"images": 112}, {"seed": 4}, {"flip": False}], ids=str)
def test_checkpoint_of_another_schedule_is_refused_and_kept(data: Dataset, tmp_path: Path, change: dict) -> None:
    path = tmp_path / "c.pt"
    train(data, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"c\.pt: belongs to another training run \(differs in {next(iter(change))}\)"):
        train(data, path, schedule=replace(SCHEDULE, **change))
    assert path.read_bytes() == before


def test_checkpoint_of_other_data_is_refused(data: Dataset, tmp_path: Path) -> None:
    train(data, tmp_path / "c.pt")
    with pytest.raises(UserError, match="differs in data"):
        train(data.head(39), tmp_path / "c.pt")


def test_checkpoint_of_another_network_is_refused(data: Dataset, tmp_path: Path) -> None:
    train(data, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"c\.pt: belongs to another network") as caught:
        train(data, tmp_path / "c.pt", model=network(width=16))
    assert "\n" not in str(caught.value)


class Command:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('the checkpoint ran code')",))


@pytest.mark.parametrize("damage", ["truncated", "garbled", "empty", "text", "foreign", "code"])
def test_damaged_or_foreign_checkpoint_is_named(data: Dataset, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.pt"
    train(data, path)
    raw = path.read_bytes()
    if damage == "foreign":
        torch.save([1, 2], path)
    elif damage == "code":
        torch.save({"identity": Command()}, path)
    else:
        damaged = {
            "truncated": raw[: len(raw) // 2],
            "garbled": b"\0" * 200 + raw[200:],
            "empty": b"",
            "text": b"not a checkpoint",
        }
        path.write_bytes(damaged[damage])
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"c\.pt: not a readable checkpoint") as caught:
        train(data, path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(data: Dataset, tmp_path: Path, value: float) -> None:
    calls = iter(range(100))

    def breaks(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        return noisy_loss(model, x, y, g) * (value if next(calls) == 3 else 1.0)

    with pytest.raises(FloatingPointError, match="step 3"):
        train(data, tmp_path / "c.pt", loss=breaks)
    assert_same_weights(train(data, tmp_path / "c.pt").model, train(data, tmp_path / "whole.pt").model)


def test_gradient_that_is_not_finite_stops_the_run(data: Dataset, tmp_path: Path) -> None:
    def root_at_zero(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        return (0 * model(x).sum()).sqrt()

    with pytest.raises(FloatingPointError, match="gradient"):
        train(data, tmp_path / "c.pt", loss=root_at_zero)
    assert not (tmp_path / "c.pt").exists()


def test_full_disk_keeps_the_last_checkpoint(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(InterruptedRunError):
        train(data, path, stop_at=3)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train(data, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_epoch_holds_every_image_once(data: Dataset) -> None:
    data = replace(data, pixels=torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 8, 8))
    schedule = replace(SCHEDULE, batch_size=10)
    epochs = [
        [(_batch(data, schedule, step)[0][:, 0, 0, 0] * 255).round().int() for step in steps]
        for steps in (range(4), range(4, 8))
    ]
    for epoch in epochs:
        assert torch.cat(epoch).sort().values.tolist() == list(range(40))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_batch_larger_than_the_data(data: Dataset) -> None:
    x, y = _batch(data, replace(SCHEDULE, batch_size=64), 5)
    assert (len(x), len(y)) == (40, 40)


def test_flip_mirrors_some_images_and_changes_nothing_else(data: Dataset) -> None:
    plain = replace(SCHEDULE, flip=False, shift=0, batch_size=40)
    x, _ = _batch(data, plain, 0)
    flipped, _ = _batch(data, replace(plain, flip=True), 0)
    same = (flipped == x).flatten(1).all(dim=1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 8 <= mirrored.sum() <= 32
    assert ((x >= 0) & (x <= 1)).all()


def test_shift_moves_whole_images_and_repeats_the_edges() -> None:
    x = torch.rand(64, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    shifted = _shifted(x, 2, torch.Generator().manual_seed(1))
    assert shifted.shape == x.shape
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    seen = set()
    for image, moved in zip(padded, shifted, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(image[:, i : i + 6, j : j + 5], moved)]
        assert len(places) == 1
        seen.update(places)
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(images=1000, batch_size=1, warmup=0.1)
    rates = [_cosine(step, schedule) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[100] == pytest.approx(1.0)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[1000] == pytest.approx(0.0)
    assert all(0 <= _cosine(0, Schedule(images=n, batch_size=1)) <= 1 for n in (0, 1, 2))
