"""Whole evaluations on small models: verdicts, resumption, independence of sharding, refusals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch

import rdc_bench
from rdc_bench import UserError
from rdc_bench.evaluation import shards
from rdc_bench.results.store import RunFolder


def evaluate(tmp_path, **options):
    return rdc_bench.run(
        **{
            "models": ["toy"],
            "threat": "linf",
            "eps": "8/255",
            "attacks": ["pgd"],
            "n": 12,
            "out": tmp_path / "results",
            **options,
        }
    )


def records(result) -> pd.DataFrame:
    return RunFolder(result.path).records()


def test_records_and_summary_agree_with_the_definitions(tmp_path, toys):
    result = evaluate(tmp_path, models=toys, repeats=5)
    table = records(result)
    assert len(table) == 12 * 2 * 1 + 12 * 2 * 5  # clean and pgd: one repeat for the deterministic model, five for the other
    for summary in result.models:
        mine = table[table["model"] == summary.model]
        clean = mine[mine["attack"] == "clean"]
        right = clean["clean_prediction"] == clean["label"]
        assert summary.clean.value == pytest.approx(right.mean())
        attacked = mine[mine["attack"] == "pgd"]
        robust = (attacked["clean_prediction"] == attacked["label"]) & (attacked["adversarial_prediction"] == attacked["label"])
        assert summary.avg.value == pytest.approx(robust.mean())
        assert summary.worst.value == pytest.approx(robust.groupby(attacked["index"]).all().mean())
        assert summary.worst.value <= summary.avg.value <= summary.clean.value + 1e-9
        assert (attacked["distance"] <= 8 / 255 + 1e-6).all()
        assert (attacked["success"] == ((attacked["clean_prediction"] == attacked["label"]) & ~robust)).all()
    frame = result.summary()
    assert list(frame["model"]) == toys
    assert {"clean", "robust_avg", "robust_worst_low", "nfe_per_image"} <= set(frame.columns)


def test_results_do_not_depend_on_shards(tmp_path, toys, monkeypatch):
    first = records(evaluate(tmp_path, models=toys, repeats=3))
    monkeypatch.setattr(shards, "SHARD", {True: 5, False: 3})
    second = records(evaluate(tmp_path / "again", models=toys, repeats=3))
    same = [c for c in first.columns if c not in ("seconds", "distance")]
    pd.testing.assert_frame_equal(first[same], second[same])
    np.testing.assert_allclose(first["distance"], second["distance"], atol=1e-6)


def test_a_finished_run_is_returned_and_fresh_starts_anew(tmp_path, toys):
    first = evaluate(tmp_path)
    stamp = (first.path / "run.json").stat().st_mtime_ns
    again = evaluate(tmp_path)
    assert again.path == first.path
    assert (first.path / "run.json").stat().st_mtime_ns == stamp
    fresh = evaluate(tmp_path, fresh=True)
    assert fresh.path != first.path
    assert evaluate(tmp_path, seed=1).path not in (first.path, fresh.path)


def _raises(model, x, y, threat, *, generator):
    raise RuntimeError("out of\nluck")


def _nan(model, x, y, threat, *, generator):
    return x * torch.nan


def _shape(model, x, y, threat, *, generator):
    return x[:, :, :-1]


def _outside(model, x, y, threat, *, generator):
    return 1 - x


def _number(model, x, y, threat, *, generator):
    return 3


@pytest.mark.parametrize(
    ("function", "status", "reason"),
    [
        (_raises, "failed", "RuntimeError: out of"),
        (_nan, "invalid", "not finite"),
        (_shape, "invalid", "shape"),
        (_outside, "invalid", "threat set"),
        (_number, "invalid", "int"),
    ],
)
def test_attacks_that_go_wrong_never_count_as_robust(tmp_path, registered, toys, function, status, reason):
    registered.attack("bad", function)
    result = evaluate(tmp_path, attacks=["bad"], models=["noisy"], repeats=2)
    (summary,) = result.models
    attackable = (
        records(result)
        .query("attack == 'clean'")
        .groupby("index")
        .apply(lambda g: (g["clean_prediction"] == g["label"]).any(), include_groups=False)
    ).sum()
    assert attackable > 0
    assert summary.worst.value == 0.0
    assert summary.attacks["bad"].status == status
    assert summary.attacks["bad"].failed == attackable
    assert summary.undecided <= attackable
    assert summary.worst.high >= summary.undecided / 12
    assert not result.complete
    assert reason in result.manifest.failures[0].reason
    assert "\n" not in result.manifest.failures[0].reason
    judged = records(result).query("attack == 'bad' and status != 'ok'")
    assert judged["adversarial_prediction"].isna().all()
    assert not judged["success"].any()


def test_an_image_that_another_attack_breaks_is_decided(tmp_path, registered, toys):
    registered.attack("bad", _raises)
    alone = evaluate(tmp_path, attacks=["pgd"]).models[0]
    both = evaluate(tmp_path, attacks=["pgd", "bad"]).models[0]
    assert both.undecided == round(alone.worst.value * 12)
    assert both.worst.value == 0.0


def test_logits_that_are_not_finite_are_wrong(tmp_path, registered):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), torch.nan)

    registered.model("broken", Broken)
    (summary,) = evaluate(tmp_path, models=["broken"]).models
    assert summary.clean.value == 0.0
    assert summary.worst.value == 0.0


def test_network_evaluations_are_counted(tmp_path, toys):
    table = records(evaluate(tmp_path, attack_options={"steps": 7}))
    clean, attacked = table[table["attack"] == "clean"], table[(table["attack"] == "pgd") & (table["seconds"] > 0)]
    assert (clean["nfe"] == 1).all()
    assert (attacked["nfe"] == 2 * 8).all()  # seven steps and the start, forward and backward
    assert (attacked["nfe_backward"] == 8).all()


def test_keeping_all_images(tmp_path, toys):
    result = evaluate(tmp_path, models=toys, attacks=["pgd", "fgsm"], keep="all")
    images = RunFolder(result.path).images()
    assert {"toy/pgd", "toy/fgsm", "noisy/pgd", "noisy/fgsm"} <= set(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": "8/0"}, "divides by zero"),
        ({"eps": "-1"}, "not a positive number"),
        ({"eps": "80"}, "did you mean 80/255"),
        ({"n": 0}, "at least one image"),
        ({"n": 10**6}, "10000|holds|not in"),
        ({"repeats": 0}, "at least one"),
        ({"models": ["tyo"]}, "Did you mean|unknown model"),
        ({"models": ["toy", "toy"]}, "named twice"),
        ({"attacks": ["pgdd"]}, "Did you mean 'pgd'"),
        ({"attacks": ["stadv"]}, "works under stadv"),
        ({"threat": "lnif"}, "Did you mean 'linf'"),
        ({"attack_options": {"step": 3}}, "Did you mean 'steps'"),
        ({"profile": "quik"}, "Did you mean 'quick'"),
        ({"dataset": "cifar10"}, "one dataset a run"),
        ({"keep": "none"}, "worst"),
        ({"device": "cpu", "n": "many"}, "n:"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, toys, options, message):
    with pytest.raises(UserError, match=message) as caught:
        evaluate(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_foreign_folder_is_refused(tmp_path, toys):
    done = evaluate(tmp_path)
    (done.path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not a manifest"):
        evaluate(tmp_path)
    (done.path / "run.json").unlink()
    with pytest.raises(UserError, match="no run of rdc-bench"):
        evaluate(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="not a folder"):
        evaluate(tmp_path, out=file)


def test_a_full_disk_loses_nothing_that_was_done(tmp_path, toys, monkeypatch):
    written = []

    def full(folder, name, shard):
        written.append(name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return original(folder, name, shard)

    original = RunFolder.write_shard
    monkeypatch.setattr(RunFolder, "write_shard", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(tmp_path)
    monkeypatch.undo()
    resumed = records(evaluate(tmp_path))
    whole = records(evaluate(tmp_path / "whole"))
    columns = [c for c in whole.columns if c != "seconds"]
    pd.testing.assert_frame_equal(resumed[columns], whole[columns])


KILLED = """
    import sys, torch, rdc_bench
    sys.path.insert(0, {here!r})
    from conftest import Toy, SHAPE
    rdc_bench.model("noisy", dataset="fashion-mnist", image_shape=SHAPE, num_classes=10)(lambda: Toy(noise=20.0))
    result = rdc_bench.run(models=["noisy"], eps="8/255", attacks=["pgd", "apgd-ce"], n=64, repeats=3, out=sys.argv[1],
                           attack_options={{"steps": 30}}, progress=lambda step: print(step.done, flush=True))
    print("finished", result.path, flush=True)
"""


def test_killed_at_any_moment_it_resumes_to_the_same_records(tmp_path):
    script = textwrap.dedent(KILLED.format(here=os.path.dirname(os.path.dirname(__file__))))

    def start(out):
        return subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    assert "finished" in whole.communicate(timeout=120)[0]
    kills = 0
    for delay in (0.0, 0.02, 0.3):  # after the first shard of the process: at once, within the next one, later
        process = start(tmp_path / "killed")
        line = process.stdout.readline()
        if "finished" in line:
            break
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    last = start(tmp_path / "killed")
    assert "finished" in last.communicate(timeout=120)[0]
    assert kills >= 2
    (first,), (second,) = (list((tmp_path / name).iterdir()) for name in ("whole", "killed"))
    a, b = RunFolder(first).records(), RunFolder(second).records()
    columns = [c for c in a.columns if c != "seconds"]
    pd.testing.assert_frame_equal(a[columns], b[columns])
    for key, value in RunFolder(first).images().items():
        torch.testing.assert_close(value, RunFolder(second).images()[key], rtol=0, atol=0)
    assert not (second / "shards").exists()


def test_the_manifest_says_what_is_needed_to_repeat_the_run(tmp_path, toys):
    manifest = json.loads((evaluate(tmp_path, models=toys).path / "run.json").read_text())
    assert manifest["eps"] == "8/255"
    assert manifest["eps_value"] == pytest.approx(8 / 255)
    assert manifest["attacks"][0]["options"]["steps"] == 20
    assert len(manifest["data_sha256"]) == 64
    assert {m["name"]: m["stochastic"] for m in manifest["models"]} == {"toy": False, "noisy": True}
    assert manifest["nfe_forward"] > 0
    assert manifest["status"] == "complete"


def test_identity_is_pinned_and_ignores_what_does_not_change_numbers(tmp_path, toys, monkeypatch):
    from rdc_bench.evaluation.plan import RunConfig
    from rdc_bench.evaluation.planning import make_plan

    config = {"threat": "linf", "eps": "8/255", "models": ("toy",), "attacks": ("pgd",), "n": 4}
    plan = make_plan(RunConfig(**config))
    assert plan.identity == make_plan(RunConfig(**config, out=tmp_path, keep="all")).identity
    assert plan.identity == make_plan(RunConfig(**{**config, "eps": "16/510"})).identity
    for change in ({"seed": 1}, {"n": 5}, {"eps": "4/255"}, {"threat": "l2"}, {"attack_options": {"eot": 2}}, {"repeats": 2}):
        assert make_plan(RunConfig(**{**config, **change})).identity != plan.identity


def test_identity_depends_on_the_settings_of_the_parts(tmp_path, monkeypatch):
    from rdc_bench.core.card_files import packaged
    from rdc_bench.evaluation.plan import RunConfig
    from rdc_bench.evaluation.planning import make_plan

    config = RunConfig(threat="linf", models=("rdc-fashion-mnist",), n=4)
    before = make_plan(config)
    part = packaged("models") / "dc-fashion-mnist.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / part.name).write_text(part.read_text().replace("levels: ", "levels: 1"))
    after = make_plan(config)
    assert after.models[0].card == before.models[0].card
    assert after.models[0].weights == {**before.models[0].weights}
    assert after.identity != before.identity
