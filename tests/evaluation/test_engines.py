"""Engines: whatever computes the shards and in whatever order, the records are the same."""

import importlib
import signal
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

import rdc_bench
from rdc_bench import UserError
from rdc_bench.cli import main
from rdc_bench.evaluation import run as run_module
from rdc_bench.evaluation.plan import RunConfig, make_plan
from rdc_bench.registry import load_plugin
from rdc_bench.results.store import RunFolder

PLUGIN = textwrap.dedent("""
    import os
    from pathlib import Path

    import torch

    import rdc_bench
    from rdc_bench.randomness import normal, row_keys

    class Linear(torch.nn.Module):
        def __init__(self, noise):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(10, 784, generator=torch.Generator().manual_seed(0)))
            self.noise = noise
            self.stochastic = noise > 0

        def forward(self, x):
            return x.flatten(1) @ self.weight.T + self.noise * normal(row_keys(len(x)), (10,))

    for name, noise in {"still": 0.0, "noisy": 20.0}.items():
        options = {"dataset": "fashion-mnist", "image_shape": (1, 28, 28), "num_classes": 10}
        rdc_bench.model(name, **options)(lambda noise=noise: Linear(noise))

    @rdc_bench.attack("mortal", threats=["linf"], gradient="black-box")
    def mortal(model, x, y, threat, *, generators, deaths: int = 0, marks: str = ""):
        "A random start; takes the process with it the first times that it is called."
        for death in range(deaths):
            mark = Path(marks, str(death))
            if not mark.exists():
                mark.touch()
                os._exit(1)
        return threat.random_start(x, generators)
""")


@pytest.fixture(scope="module")
def plugin_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "plugin.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def plugin(tmp_path, plugin_file, registered, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rdc_bench_plugin_")]:  # of other tests
        monkeypatch.delitem(sys.modules, name)
    load_plugin(plugin_file)
    (tmp_path / "marks").mkdir()


def evaluate(out, **options):
    asked = {"models": ["still", "noisy"], "eps": "8/255", "attacks": ["pgd", "mortal"], "n": 12, "repeats": 3, "out": out}
    return rdc_bench.run(**{**asked, **options})


def assert_same_results(first, second):
    a, b = RunFolder(first.path), RunFolder(second.path)
    same = [c for c in a.records().columns if c not in ("seconds", "distance")]
    pd.testing.assert_frame_equal(a.records()[same], b.records()[same])
    np.testing.assert_allclose(a.records()["distance"], b.records()["distance"], atol=1e-6)
    assert a.images().keys() == b.images().keys()
    for name, images in a.images().items():
        np.testing.assert_allclose(images, b.images()[name], atol=1e-6)


def test_shards_may_be_finished_in_any_order(tmp_path, plugin, monkeypatch):
    order = []

    def last_first(tasks, known):
        waiting = list(tasks)
        while waiting:
            task, given = next((task, given) for task in reversed(waiting) if (given := known.given(task.job)) is not None)
            waiting.remove(task)
            order.append(task.job)
            yield task.job, task.executor.shard(task.job, given)

    expected = evaluate(tmp_path / "local")
    monkeypatch.setattr(run_module, "SHARD", {True: 5, False: 7})
    monkeypatch.setattr(run_module, "find_engine", lambda name: last_first)
    steps = []
    assert_same_results(expected, evaluate(tmp_path / "scrambled", progress=steps.append))
    assert order != sorted(order)
    assert len(order) == 3 * (2 + 3)  # clean and two attacks, on two shards of the one model and three of the other
    assert [step.done for step in steps] == sorted({step.done for step in steps})
    assert steps[-1].done == steps[-1].total == 2 * 3 * 12


def test_shards_that_an_engine_loses_are_failed_attacks(tmp_path, plugin, monkeypatch):
    def losing(tasks, known):
        for job, executor in tasks:
            given = known.given(job)
            yield job, executor.lost(job, given, "gone") if job.attack == 2 else executor.shard(job, given)

    monkeypatch.setattr(run_module, "find_engine", lambda name: losing)
    found = evaluate(tmp_path / "out", n=40, eps="1/2550")
    assert not found.complete
    assert {(failure.attack, failure.reason) for failure in found.manifest.failures} == {("mortal", "gone")}
    alone = evaluate(tmp_path / "pgd", n=40, eps="1/2550", attacks=["pgd"])
    survived = [round(40 * summary.worst.value) for summary in alone.models]
    assert survived[0] > 0
    assert [summary.undecided for summary in found.models] == survived  # what the other attack breaks is decided
    for summary in found.models:
        assert summary.attacks["mortal"].failed == 40
        assert summary.worst.value == 0.0


def test_the_engine_is_no_part_of_what_identifies_a_run(plugin):
    plans = [make_plan(RunConfig(models=("still",), attacks=("pgd",), n=4, engine=engine)) for engine in ("local", "ray")]
    assert plans[0].run_id == plans[1].run_id


def test_a_mistyped_engine_is_refused_before_anything_is_written(tmp_path, plugin):
    with pytest.raises(UserError, match=r"unknown engine 'lcoal'\. Did you mean 'local'\? Engines: local, ray\."):
        evaluate(tmp_path / "out", engine="lcoal")
    assert not (tmp_path / "out").exists()


def test_an_engine_whose_library_is_absent_names_the_extra(tmp_path, plugin, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "rdc_bench.evaluation.engines.ray", raising=False)
    with pytest.raises(UserError, match=r"engine 'ray': pip install 'rdc-bench\[ray\]' is needed first") as caught:
        evaluate(tmp_path / "out", engine="ray")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_the_engine(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rdc-bench", "run", "--engine", "rya"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "Did you mean 'ray'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_ray_gives_the_records_of_the_local_engine_though_a_worker_dies(tmp_path, plugin, cluster, monkeypatch):
    expected = evaluate(tmp_path / "local")
    monkeypatch.setattr(run_module, "SHARD", {True: 5, False: 7})
    mortal = {"deaths": 1, "marks": str(tmp_path / "marks")}
    found = evaluate(tmp_path / "ray", engine="ray", attack_options=mortal)
    assert [mark.name for mark in (tmp_path / "marks").iterdir()] == ["0"]
    assert found.complete
    assert_same_results(expected, found)


def test_what_ray_loses_for_good_is_a_failed_attack_and_never_robust(tmp_path, plugin, cluster):
    mortal = {"deaths": 99, "marks": str(tmp_path / "marks")}
    found = evaluate(tmp_path / "ray", engine="ray", models=["still"], attacks=["mortal"], attack_options=mortal)
    retries = importlib.import_module("rdc_bench.evaluation.engines.ray").RETRIES
    assert len(list((tmp_path / "marks").iterdir())) == 1 + retries
    assert not found.complete
    (summary,) = found.models
    assert summary.attacks["mortal"].status == "failed"
    assert summary.worst.value == 0.0
    assert not summary.robust_images.any()
    attacked = RunFolder(found.path).records().query("attack == 'mortal'")
    assert attacked["adversarial_prediction"].isna().all()
    assert attacked["reason"].str.match(r"lost with its worker 3 times: .+").all()


def test_what_ray_did_before_an_interruption_is_kept_for_any_engine(tmp_path, plugin, cluster, monkeypatch):
    monkeypatch.setattr(run_module, "SHARD", {True: 5, False: 7})

    def interrupted(step):
        if step.attack != "clean":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "out", engine="ray", progress=interrupted)
    (folder,) = (tmp_path / "out").iterdir()
    assert len(list(folder.glob("shards/*.parquet"))) >= 2
    assert RunFolder(folder).manifest().status == "interrupted"
    resumed = evaluate(tmp_path / "out")
    assert resumed.path == folder
    assert_same_results(evaluate(tmp_path / "whole"), resumed)


def test_ray_leaves_the_handler_of_a_request_to_end(monkeypatch):
    engine = pytest.importorskip("rdc_bench.evaluation.engines.ray", reason="the extra ray is not installed")
    ours, theirs = (lambda *_: None), (lambda *_: None)
    monkeypatch.setattr(engine, "_join", lambda address: signal.signal(signal.SIGTERM, theirs))
    before = signal.signal(signal.SIGTERM, ours)
    try:
        engine._connect(None)
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
