"""Publishing through the real client, and a model's way through the Hub: push, pull, run, verify."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard as HubModelCard

import rdc_bench
from rdc_bench.core.errors import UserError
from rdc_bench.hub.pull import pull
from rdc_bench.hub.push import push, repository_files
from rdc_bench.zoo.parts import find_card
from rdc_bench.zoo.reference import parse_reference


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A working directory with the cards and weights of a tiny RDC and its baseline."""
    (tmp_path / "models").mkdir()
    for name, content in folder.items():
        (tmp_path / "models" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return tmp_path


def send(hub, name, reference="hf://o/r", **options):
    return push(name, parse_reference(reference), endpoint=hub.url, **options)


def test_a_model_goes_up_with_all_its_parts_and_comes_back(hub, here, folder):
    pushed = send(hub, "rdc", message="First", private=True)
    assert pushed.files == ["README.md", "config.json", "dc.yaml", "denoiser.safetensors", "denoiser.yaml", "rdc.yaml"]
    assert hub.private["o/r"] is True
    commit = pushed.reference.revision
    held = hub.commits["o/r"][commit]
    for name in ("rdc.yaml", "dc.yaml", "denoiser.yaml", "denoiser.safetensors"):
        assert held[name] == folder[name]
    assert json.loads(held["config.json"]) == {"library_name": "rdc-bench", "schema_version": 1, "card": "rdc.yaml"}
    pulled = pull(parse_reference("hf://o/r"), endpoint=hub.url, cache_dir=here / "cache")
    assert pulled.reference == pushed.reference
    assert send(hub, "small").reference.revision != commit  # a repository that is there is added to


def test_a_part_from_the_hub_goes_up_with_the_card_that_names_it(hub, here, rdc, make_card, make_config, monkeypatch):
    hub.commit("o/part", {name: rdc[name] for name in ("denoiser.yaml", "denoiser.safetensors")})
    commit = hub.commit("o/part", {"config.json": make_config("denoiser")})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "cache"))
    pull(parse_reference("hf://o/part"), endpoint=hub.url)
    spec = {"kind": "diffusion-classifier", "denoiser": f"hf://o/part@{commit}", "levels": 2}
    (here / "models" / "mine.yaml").write_text(yaml.safe_dump(make_card("mine", spec)))
    assert rdc_bench.load_model("mine").card.model.denoiser == f"hf://o/part@{commit}"
    assert rdc_bench.load_denoiser(f"hf://o/part@{commit}").label_dim == 10
    files = repository_files(find_card("mine"))
    assert set(files) == {"mine.yaml", "denoiser.yaml", "denoiser.safetensors", "config.json"}
    assert yaml.safe_load(files["mine.yaml"]) == make_card("mine", {**spec, "denoiser": "denoiser"})
    assert files["denoiser.yaml"] == rdc["denoiser.yaml"]


def test_nothing_is_sent_when_something_is_wrong(hub, here, folder):
    def refused(name, reference="hf://o/r", **options):
        with pytest.raises(UserError) as caught:
            send(hub, name, reference, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "leave out '@main'" in refused("small", "hf://o/r@main")
    assert "Did you mean 'small'" in refused("smal")
    assert "no such folder" in refused("small", results=here / "nowhere")
    (here / "models" / "small.safetensors").write_bytes(folder["small.safetensors"][:-1])
    assert "SHA-256 differs" in refused("small")
    (here / "models" / "small.safetensors").unlink()
    assert "weights are missing" in refused("small")
    assert "names no safetensors file beside it" in refused("standard-cifar10")
    assert hub.requests == []


def test_who_may_not_write_is_told(hub, here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(UserError, match=r"does not allow it \(403\): set HF_TOKEN"):
        send(hub, "small")


@pytest.mark.parametrize(
    ("text", "shown", "name"), [("MIT", "mit", None), ("Apache-2.0", "apache-2.0", None), ("mine", "other", "mine")]
)
def test_the_readme_says_the_licence_as_the_hub_reads_it(hub, here, text, shown, name):
    path = here / "models" / "small.yaml"
    path.write_text(path.read_text().replace("license: MIT", f"license: {text}"))
    commit = send(hub, "small").reference.revision
    front = HubModelCard(hub.commits["o/r"][commit]["README.md"].decode()).data
    assert (front.license, front.license_name) == (shown, name)
    assert front.library_name == "rdc-bench"
    assert front.pipeline_tag == "image-classification"
    assert front.eval_results is None


def test_figures_of_a_run_stand_in_the_readme(hub, here):
    result = rdc_bench.run(models=["rdc", "small"], attacks=["fgsm"], n=4, repeats=2, out=here / "results")
    commit = send(hub, "rdc", results=result.path).reference.revision
    text = hub.commits["o/r"][commit]["README.md"].decode()
    front = HubModelCard(text).data
    assert front.model_name == "rdc"
    clean, avg, worst = front.eval_results
    row = next(model for model in result.as_json()["models"] if model["model"] == "rdc")
    assert clean.metric_value == pytest.approx(row["clean"]["value"], abs=1e-4)
    assert avg.metric_value == pytest.approx(row["robust"]["avg"]["value"], abs=1e-4)
    assert worst.metric_value == pytest.approx(row["robust"]["worst"]["value"], abs=1e-4)
    assert worst.metric_args == {
        "low": pytest.approx(row["robust"]["worst"]["low"], abs=1e-4),
        "high": pytest.approx(row["robust"]["worst"]["high"], abs=1e-4),
        "images": 4,
    }
    assert "linf 8/255" in worst.metric_name
    assert {result.dataset_type for result in front.eval_results} == {"fashion-mnist"}
    assert f"| clean | {100 * row['clean']['value']:.1f} [" in text
    with pytest.raises(UserError, match="no complete run there holds 'dc'"):
        send(hub, "dc", results=here / "results")
    path = here / "models" / "rdc.yaml"
    path.write_text(path.read_text().replace("steps: 1", "steps: 2"))
    with pytest.raises(UserError, match="has another card or other weights"):
        send(hub, "rdc", results=here / "results")


COMMANDS = """
import contextlib, io, json, sys
from rdc_bench.cli import main, progress

progress.PATIENCE = 1e6  # on a busy machine, more would be said than is asked for here
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["rdc-bench", *line]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def type_in(lines, **environment):
    """Several commands in one process, whose client reads its settings from the environment as a user's does."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(lines),
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_push_pull_run_verify_on_the_command_line(hub, here, make_card):
    spec = {"kind": "diffusion-classifier", "denoiser": "hf://o/part", "levels": 2}
    (here / "models" / "mine.yaml").write_text(yaml.safe_dump(make_card("mine", spec)))
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(here / "home"), "HF_TOKEN": "secret"}
    run = [
        "run",
        "--model",
        "hf://o/r",
        "--model",
        "mine",
        "--attack",
        "fgsm",
        "--n",
        "2",
        "--repeats",
        "2",
        "--out",
        "results",
        "--json",
    ]
    lines = [
        ["models", "push", "rdc", "hf://o/r", "--json"],
        ["models", "push", "denoiser", "hf://o/part"],
        ["models", "info", "hf://o/r", "--json"],
        ["models", "pull", "hf://o/r", "--json"],
        ["models", "pull", "hf://o/r"],
        ["models", "info", "hf://o/r"],
        run,
        ["models", "pull", "hf://o/nothing"],
        ["models", "pull", "hf://o/r r"],
        ["models", "push", "smal", "hf://o/r"],
    ]
    answers = type_in(lines, **environment)
    codes, outs, errs = zip(*answers, strict=True)
    assert codes == (0, 0, 0, 0, 0, 0, 0, 2, 2, 2), errs
    pushed, before, pulled = (json.loads(outs[i]) for i in (0, 2, 3))
    commit = pushed["commit"]
    reference = f"hf://o/r@{commit}"
    part = outs[1].split()[0]
    assert before["state"] == "downloadable"
    assert before["origin"] == reference
    assert pulled["reference"] == reference
    assert pulled["commit"] == commit
    assert {row["name"] for row in pulled["files"]} == set(pushed["files"])
    assert outs[4].startswith(reference)
    assert "denoiser.safetensors" in outs[5]
    assert f"model rdc: from {reference}" in errs[6]
    assert f"model mine: from {part}" in errs[6]
    for err in errs[7:]:
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("error: ")
    folder = json.loads(outs[6])["run"]
    rdc, mine = json.loads((here / folder / "run.json").read_text())["models"]
    assert rdc["reference"] == rdc["origin"] == reference
    assert rdc["card"]["source"].startswith(reference)
    assert list(rdc["weights"]) == [f"{reference}/denoiser.safetensors"]
    assert mine["reference"] == "mine"
    assert list(mine["weights"]) == [f"{part}/denoiser.safetensors"]  # named by its branch, recorded by its commit

    hub.commit("o/r", {"README.md": b"# moved on"})  # the branch moves; the run was of a commit
    hub.requests.clear()
    offline = type_in(
        [["verify", folder, "--json"], run, ["models", "pull", "hf://o/other"]], HF_HUB_OFFLINE="1", **environment
    )
    assert [code for code, _, _ in offline] == [0, 0, 2], offline
    assert json.loads(offline[0][1])["ok"]
    assert json.loads(offline[1][1])["run"] == folder
    assert "hf://o/other: not in the cache" in offline[2][2]
    assert hub.requests == []
