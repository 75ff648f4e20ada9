"""A diagnosis from the command line, what it leaves behind, and the mark that later tables carry for it."""

import json
import sys

import pytest
import torch
from PIL import Image

from rdc_bench.cli import main
from rdc_bench.data import load_dataset
from rdc_bench.results.diagnosis import Diagnosis, Masked, failed_diagnoses, masked
from rdc_bench.results.store import RunFolder, find_runs

N = 12


class Nearest(torch.nn.Module):
    """Classes by the nearest of twelve known images, softly; optionally with the pixels rounded first."""

    def __init__(self, levels=0):
        super().__init__()
        known = load_dataset("fashion-mnist", "test", N)
        self.levels, self.stochastic = levels, False
        self.register_buffer("images", known.images.flatten(1))
        self.register_buffer("labels", torch.nn.functional.one_hot(known.labels, 10).float())

    def forward(self, x):
        if self.levels:
            x = (x * self.levels).round() / self.levels
        distance = (x.flatten(1)[:, None] - self.images).square().sum(dim=2)
        return ((-distance / 5).softmax(dim=1) @ self.labels + 1e-9).log()


@pytest.fixture
def models(registered):
    registered.model("plain", lambda: Nearest())
    registered.model("rounded", lambda: Nearest(levels=3))


def invoke(capsys, *args):
    before, sys.argv = sys.argv, ["rdc-bench", *map(str, args)]
    with pytest.raises(SystemExit) as stopped:
        main()
    sys.argv = before
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def test_a_masked_model_fails_and_is_marked_in_every_table(capsys, models, tmp_path):
    results, out = tmp_path / "results", tmp_path / "elsewhere"
    options = ("--eps", "0.1", "--n", N, "--surrogate", "plain", "--results", results, "--out", out)
    code, printed, err = invoke(capsys, "diagnose", "rounded", *options, "--json")
    assert code == 1, err
    document = json.loads(printed)
    assert document["verdict"] == "fail"
    assert "zero-gradients" in document["failed"]
    assert all({"name", "verdict", "figures", "says", "source"} <= set(check) for check in document["checks"])

    (folder,) = (results / "diagnosis").iterdir()
    assert folder.name.startswith("rounded-")
    stored = Diagnosis.model_validate_json((folder / "diagnosis.json").read_bytes())
    assert stored.failed == document["failed"]
    assert {path.name for path in out.iterdir()} == {path.name for path in folder.iterdir()}
    pictures = sorted(out.glob("*.png"))
    assert [path.stem for path in pictures] == sorted(check["name"] for check in document["checks"])
    for path in pictures:
        with Image.open(path) as picture:
            picture.verify()

    run = ("run", "--model", "rounded", "--model", "plain", "--attack", "fgsm", "--n", N, "--out", results)
    code, printed, _ = invoke(capsys, *run)
    assert code == 1  # an attack that saw no gradient has failed
    assert [line for line in printed.splitlines() if line.startswith("rounded ⚠ masked?")]
    assert "zero-gradients" in printed
    assert not any("plain" in line and "masked" in line for line in printed.splitlines())
    for command in (run, ("report", results)):
        _, printed, _ = invoke(capsys, *command, "--json")
        rows = json.loads(printed)
        by_name = {row["model"]: row for row in rows.get("models") or rows["rows"]}
        assert by_name["rounded"]["masked"] == [{"threat": "linf", "eps": "0.1", "checks": document["failed"]}]
        assert by_name["plain"]["masked"] == []
    assert "⚠ masked? rounded" in (results / "report" / "report.md").read_text()

    # The same model with other weights or settings is another model, of which the diagnosis says nothing.
    (entry,) = [e for e in RunFolder(find_runs(results)[0].path).manifest().models if e.name == "rounded"]
    assert masked(failed_diagnoses(results), [entry]) == {"rounded": [Masked("linf", "0.1", document["failed"])]}
    assert masked(failed_diagnoses(results), [entry.model_copy(update={"weights": {"other.safetensors": "0" * 64}})]) == {}


def test_an_honest_model_passes_on_the_terminal(capsys, models, monkeypatch, tmp_path):
    monkeypatch.setattr("rdc_bench.cli.progress.PATIENCE", 0.01)
    results = tmp_path / "results"
    options = ("--threat", "l2", "--eps", "1", "--n", N, "--surrogate", "rounded", "--results", results)
    code, printed, err = invoke(capsys, "diagnose", "plain", *options)
    assert code == 0, printed
    assert "plain: pass" in printed
    assert "checking that the loss rises and converges: 4/9" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("plane",), "Did you mean 'plain'?"),
        (("plain", "--threat", "stadv"), "linf and l2"),
        (("plain", "--n", "3"), "at least 6 images"),
        (("plain", "--eps", "8"), "8/255"),
        (("plain", "--surrogate", "plane"), "Did you mean"),
        (("plain", "--device", "gpu"), "--device gpu"),
    ],
)
def test_bad_input_is_one_line(capsys, models, tmp_path, args, said):
    code, out, err = invoke(capsys, "diagnose", *args, "--results", tmp_path / "results")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_damaged_diagnosis_is_named(tmp_path):
    (tmp_path / "diagnosis" / "model-1").mkdir(parents=True)
    (tmp_path / "diagnosis" / "model-1" / "diagnosis.json").write_text("{")
    with pytest.raises(Exception, match=r"diagnosis\.json: not a diagnosis"):
        failed_diagnoses(tmp_path)


def test_too_few_right_images_is_an_error(capsys, registered, tmp_path):
    registered.model("always-nine", lambda: torch.nn.Sequential(torch.nn.Flatten(), Constant()))
    code, _, err = invoke(capsys, "diagnose", "always-nine", "--n", N, "--results", tmp_path / "results")
    assert code == 2
    assert "at least 6" in err
    assert "raise --n" in err


class Constant(torch.nn.Module):
    def forward(self, x):
        return torch.eye(10)[9].repeat(len(x), 1) + 0 * x.sum(dim=1, keepdim=True)
