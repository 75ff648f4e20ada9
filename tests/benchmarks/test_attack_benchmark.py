"""The attack benchmark's measures against hand-made cases, and one tiny benchmark from end to end."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rdc_bench.attacks.lp.apgd import apgd_ce
from rdc_bench.core.randomness import generator
from rdc_bench.threats import LpThreat

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """The benchmark's modules, which import one another as scripts do."""
    sys.path.insert(0, str(FOLDER))
    loaded = {}
    try:
        for name in ("attack_measures", "attack_tables", "attack_benchmark"):
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded
    finally:
        sys.path.remove(str(FOLDER))
        for name in loaded:
            del sys.modules[name]


def test_areas_under_steps(scripts):
    area = scripts["attack_measures"].area
    assert area([], [], 0.9, 0, 2) == pytest.approx(1.8)
    assert area([1.0], [0.4], 0.9, 0, 2) == pytest.approx(0.9 + 0.4)
    assert area([0.5, 1.0], [0.4, 0.6], 0.9, 0, 2) == pytest.approx(0.45 + 1.5 * 0.4)  # more effort never does worse
    assert area([3.0], [0.0], 0.9, 0, 2) == pytest.approx(1.8)


def test_the_security_curve_is_integrated_exactly(scripts):
    distances = np.array([0.0, 0.2, 0.5, np.inf])
    grid = np.linspace(0, 1, 100_001)
    numeric = np.mean([(distances > eps).mean() for eps in grid])
    assert scripts["attack_measures"].security_area(distances, 1.0) == pytest.approx(numeric, abs=1e-4)


def test_optimality_is_one_for_the_best_and_zero_for_none(scripts):
    optimality = scripts["attack_measures"].optimality
    assert optimality(0.3, 0.3, 0.9) == 1
    assert optimality(0.9, 0.3, 0.9) == 0
    assert optimality(0.6, 0.3, 0.9) == pytest.approx(0.5)
    assert optimality(0.9, 0.9, 0.9) == 1  # nothing can be broken


def test_costs_are_counted_until_each_image_is_fooled(scripts, registered):
    """Against a count of our own, by a model that tells which images it gets wrong."""
    model = registered.toy().eval().requires_grad_(False)
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(dim=1)
    threat = LpThreat("linf", 0.02)
    wrong = []
    handle = model.register_forward_hook(lambda _m, _a, out: wrong.append((out.argmax(dim=1) != y, out.requires_grad)))
    with scripts["attack_measures"].costing(model, x, y, threat) as cost:
        apgd_ce.function(model, x, y, threat, generators=[generator(i) for i in range(8)], steps=10)
    handle.remove()
    expected = torch.zeros(8)
    fooled = torch.zeros(8, dtype=torch.bool)
    for now, differentiated in wrong:
        expected += torch.where(fooled, 0, 1 + int(differentiated))
        fooled |= now
    assert fooled.any()
    assert torch.equal(cost.spent, expected)
    assert cost.per_image == pytest.approx(float(expected.mean()))
    assert cost.meter.forward == 8 * len(wrong)


def test_an_attack_that_drops_images_costs_what_it_evaluates(scripts, registered):
    model = registered.toy().eval().requires_grad_(False)
    x, y = torch.rand(6, 1, 28, 28), torch.zeros(6, dtype=torch.long)
    with scripts["attack_measures"].costing(model, x, y, LpThreat("linf", 0.1)) as cost, torch.no_grad():
        model(x)
        model(x[:4])
    assert cost.per_image == pytest.approx(10 / 6)


def test_misclassified_points_beyond_the_threat_set_do_not_count(scripts, registered):
    model = registered.toy().eval().requires_grad_(False)
    x = torch.rand(4, 1, 28, 28)
    y = model(x).argmax(dim=1)
    with scripts["attack_measures"].costing(model, x, y, LpThreat("linf", 1e-4)) as cost, torch.no_grad():
        model(1 - x)
        model(x)
    assert not cost.fooled.any()
    assert (cost.spent == 2).all()


def test_a_whole_small_benchmark_and_its_resumption(scripts, tmp_path, registered, monkeypatch):
    bench = scripts["attack_benchmark"]
    monkeypatch.setattr(bench, "DETERMINISTIC", ("toy",))
    monkeypatch.setitem(bench.STOCHASTIC, "rdc-cifar10", ("fashion-mnist", 8 / 255))
    monkeypatch.setattr(bench, "MINIMUM_NORM", {"fab": {"steps": 2}, "fab-t": {"steps": 2}})
    registered.model("toy", lambda: registered.toy())
    registered.model("rdc-cifar10", lambda: registered.toy(noise=1.0))

    def breaks(model, x, y, threat, *, generator):
        raise NotImplementedError("not for this model")

    registered.attack("breaks", breaks)
    sizes = "--n 12 --n-stochastic 12 --budget 3 --gradients 8 --rdc rdc-cifar10"
    command = ["--out", str(tmp_path), *sizes.split()]
    done = CliRunner().invoke(bench.main, command, catch_exceptions=False)
    assert done.exit_code == 0
    page = (tmp_path / "attack-benchmark.md").read_text()
    for expected in ("apgd-dlr", "pyautoattack apgd-dlr", "autoattack-rand, eot 4", "fab-t", "Ours is", "not for this model"):
        assert expected in page
    assert (tmp_path / "attack-benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "attack-benchmark.csv").read_text().splitlines()) > 10

    def measured_again(*_args):
        raise AssertionError

    monkeypatch.setattr(bench, "measure", measured_again)
    assert CliRunner().invoke(bench.main, command, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "attack-benchmark.md").read_text() == page


def test_the_verdict_says_when_ours_is_worse(scripts):
    tables = scripts["attack_tables"]

    def cell(robust):
        return {"robust": robust, "nfe": 10.0, "options": {"steps": 1}, "model": "m", "part": "fixed"}

    def duel(ours, theirs):
        return ({}, tables.Duel.between(cell(ours), cell(theirs)))

    lost = duel([1.0] * 10, [0.0] * 10)
    assert lost[1].test.p_value == pytest.approx(2 * 0.5**10)
    assert "significantly worse in 1" in tables.verdict([lost])
    assert "nowhere significantly worse" in tables.verdict([duel([0.0] * 10, [1.0] * 10), duel([1.0, 0.0], [0.0, 0.0])])
    assert "by at most 1" in tables.verdict([duel([1.0, 0.0], [0.0, 0.0])])


def test_the_averages_are_compared_by_signed_ranks(scripts):
    signed_rank = scripts["attack_tables"].signed_rank
    assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.0] * 6) == pytest.approx(2 * 0.5**6)  # one of 2⁶ signs, either way
    assert signed_rank([0.5, 1.0], [0.5, 1.0]) == 1
