"""Pulling through the real client from a Hub on the loopback interface."""

import errno
import hashlib
import os
import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml

from rdc_bench.availability import availability
from rdc_bench.cards import every_card
from rdc_bench.errors import UserError
from rdc_bench.hub.pull import pull
from rdc_bench.hub.reference import parse_reference
from rdc_bench.loading import load_resolved
from rdc_bench.parts import weight_files

NEVER = {"pytorch_model.bin", "other.safetensors", "sub/small.yaml", "run.py"}


@pytest.fixture
def get(hub, tmp_path):
    def get(reference, **options):
        return pull(parse_reference(reference), **{"endpoint": hub.url, "cache_dir": tmp_path / "cache", **options})

    return get


@pytest.fixture
def refused(get):
    """Pull, and return the one line that refuses it."""

    def refused(reference, **options):
        with pytest.raises(UserError) as caught:
            get(reference, **options)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return refused


def blob(pulled, name):
    return (pulled.folder / name).resolve()


def test_a_model_is_fetched_with_what_it_needs_and_nothing_else(hub, get, small):
    commit = hub.commit("o/r", small)
    pulled = get("hf://o/r")
    assert str(pulled.reference) == f"hf://o/r@{commit}"
    assert {path.name for path in pulled.files} == {"config.json", "README.md", "small.yaml", "small.safetensors"}
    for path in pulled.files:
        assert path.read_bytes() == small[path.name]
    fetched = {path.split("/", 5)[-1] for path in hub.asked("GET") if "/resolve/" in path}
    assert fetched == {path.name for path in pulled.files}
    assert not fetched & NEVER
    model = load_resolved(pulled.card)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert model.card.source == f"hf://o/r@{commit}: a test"
    assert weight_files(pulled.card) == {
        f"hf://o/r@{commit}/small.safetensors": hashlib.sha256(small["small.safetensors"]).hexdigest()
    }


def test_what_is_cached_is_not_fetched_again(hub, get, small):
    commit = hub.commit("o/r", small)
    get("hf://o/r")
    hub.requests.clear()
    get("hf://o/r")
    assert all(path.startswith("/api/models/o/r") for path in hub.asked())  # only what the branch means now
    hub.requests.clear()
    assert get(f"hf://o/r@{commit}").reference.revision == commit
    assert hub.requests == []


def test_a_branch_moves_and_a_commit_stays(hub, get, small):
    first = hub.commit("o/r", small)
    document = yaml.safe_load(small["small.yaml"])
    second = hub.commit("o/r", {"small.yaml": yaml.safe_dump({**document, "title": "Another"}).encode()})
    assert get("hf://o/r@main").card.card.title == "Another"
    assert get("hf://o/r").reference.revision == second
    old = get(f"hf://o/r@{first}")
    assert old.card.card.title == "The small"
    assert old.reference.revision == first
    assert hub.asked("GET", "small.safetensors") == [f"/o/r/resolve/{second}/small.safetensors"]  # the same bytes, fetched once
    hub.commit("o/r", {"README.md": b"# B"}, branch="main")
    assert get("hf://o/r").reference.revision not in (first, second)
    hub.refs["o/r"]["v1"] = first
    assert get("hf://o/r@v1").reference.revision == first


def test_parts_lie_in_the_same_commit(hub, get, rdc, tmp_path, monkeypatch):
    commit = hub.commit("o/r", rdc)
    pulled = get("hf://o/r")
    assert [card.card.name for card in every_card(pulled.card)] == ["rdc", "denoiser", "dc"]
    assert {card.hub for card in every_card(pulled.card)} == {f"hf://o/r@{commit}"}
    assert {card.path.parent for card in every_card(pulled.card)} == {pulled.folder}
    assert load_resolved(pulled.card)(torch.rand(1, 1, 28, 28)).shape == (1, 10)


def test_nothing_is_ever_taken_from_elsewhere(hub, refused, rdc, folder, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    for name in ("dc.yaml", "denoiser.yaml", "denoiser.safetensors"):
        (tmp_path / "models" / name).write_bytes(folder[name])
    monkeypatch.chdir(tmp_path)
    hub.commit("o/r", {name: content for name, content in rdc.items() if name != "dc.yaml"})
    assert "lacks dc.yaml, which rdc.yaml names" in refused("hf://o/r")
    named = rdc["rdc.yaml"].replace(b"classifier: dc", b"classifier: hf://o/other")
    hub.commit("o/r", {"rdc.yaml": named})
    assert "names hf://o/other; the parts of a model on the Hub lie in its own repository" in refused("hf://o/r")
    document = yaml.safe_load(rdc["rdc.yaml"])
    package = {"package": "pyautoattack", "file": "examples/model_test.pt", "sha256": "0" * 64}
    for spec in (
        {"kind": "registered", "factory": "standard-fashion-mnist"},
        {"kind": "classifier", "architecture": "ResNet18", "config": {}, "weights": package},
    ):
        hub.commit("o/r", {"rdc.yaml": yaml.safe_dump({**document, "model": spec}).encode()})
        assert "names no safetensors file beside it" in refused("hf://o/r")


def test_cards_that_name_one_another_without_end_are_refused(hub, refused, rdc, make_config):
    hub.commit("o/r", {**rdc, "dc.yaml": rdc["dc.yaml"].replace(b"denoiser: denoiser", b"denoiser: rdc")})
    assert "a part of itself" in refused("hf://o/r")
    document = yaml.safe_load(rdc["rdc.yaml"])
    for i in range(12):
        document = {**document, "name": f"c{i}", "model": {**document["model"], "classifier": f"c{i + 1}"}}
        hub.commit("o/r", {f"c{i}.yaml": yaml.safe_dump(document).encode()})
    hub.commit("o/r", {"config.json": make_config("c0")})
    assert "more than 8 cards" in refused("hf://o/r")


def test_the_cards_alone(hub, get, rdc):
    hub.commit("o/r", rdc)
    pulled = get("hf://o/r", weights=False)
    assert hub.asked("GET", ".safetensors") == []
    assert availability(pulled.card).state == "downloadable"


def test_what_the_hub_does_not_have(hub, refused, small):
    assert "has no such repository, or it is private" in refused("hf://o/nothing")
    commit = hub.commit("o/r", small)
    for revision in ("nothing", commit[:8], "f" * 40):
        assert "no such revision" in refused(f"hf://o/r@{revision}")
    hub.commit("o/r", {"small.safetensors": None})
    assert "lacks small.safetensors, which a card names" in refused("hf://o/r")
    hub.commit("o/r", {"small.yaml": None})
    assert "lacks small.yaml, which config.json names" in refused("hf://o/r")
    hub.commit("o/r", {"config.json": None})
    assert "lacks config.json" in refused("hf://o/r")


def test_a_private_repository_opens_to_its_token(hub, get, refused, small, monkeypatch):
    hub.commit("o/r", small)
    hub.closed.add("o/r")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "has no such repository, or it is private: then set HF_TOKEN" in refused("hf://o/r")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert get("hf://o/r").card.card.name == "small"


def test_a_file_that_is_listed_and_not_served(hub, refused, small):
    hub.commit("o/r", small)
    hub.hidden.add("small.safetensors")
    assert "does not have a file that it lists" in refused("hf://o/r")


def test_refusals_of_the_hub_are_explained(hub, refused, small):
    hub.commit("o/r", small)
    for status, code, message in (
        (401, "", "HF_TOKEN"),
        (403, "", "HF_TOKEN"),
        (403, "GatedRepo", "its owners must grant access"),
        (500, "", "answered with an error"),
        (418, "", "answered with an error"),
        (200, "", "does not answer as a Hugging Face Hub does"),
    ):
        hub.status, hub.code = status, code
        assert message in refused("hf://o/r")


def test_weights_that_are_not_those_of_the_card(hub, refused, small, folder):
    hub.commit("o/r", {**small, "small.safetensors": folder["denoiser.safetensors"]})
    line = refused("hf://o/r")
    assert "small.safetensors is not the file that its card names" in line
    assert "the repository is at fault" in line


@pytest.mark.parametrize("name", ["small.safetensors", "small.yaml"])
def test_bytes_changed_on_the_way_are_noticed_and_named(hub, get, refused, small, name):
    hub.commit("o/r", small)
    hub.garbled.add(name)
    line = refused("hf://o/r")
    damaged = Path(line.partition(":")[0])
    assert f"the cached copy of {name} is damaged; delete that file" in line
    hub.garbled.clear()
    assert refused("hf://o/r") == line  # the client does not notice
    assert damaged.parent.name == "blobs"
    damaged.unlink()
    assert get("hf://o/r").card.card.name == "small"  # the remedy works


@pytest.mark.parametrize("name", ["small.safetensors", "small.yaml"])
def test_a_cached_file_damaged_later_is_named(hub, get, refused, small, name):
    commit = hub.commit("o/r", small)
    path = blob(get("hf://o/r"), name)
    path.write_bytes(path.read_bytes()[:-5])
    for options in ({}, {"local_only": True}):
        for reference in ("hf://o/r", f"hf://o/r@{commit}"):
            assert refused(reference, **options).startswith(f"{path}: the cached copy of {name} is damaged")


def test_a_connection_cut_half_way_is_taken_up_again(hub, get, small):
    hub.commit("o/r", small)
    half = len(small["small.safetensors"]) // 2
    hub.cut["small.safetensors"] = half
    began = time.monotonic()
    pulled = get("hf://o/r")
    assert (pulled.folder / "small.safetensors").read_bytes() == small["small.safetensors"]
    assert len(hub.asked("GET", "small.safetensors")) == 2
    assert time.monotonic() - began < 15


def test_no_network_is_one_quick_line(get, refused, hub, small):
    hub.commit("o/r", small)
    with socket.create_server(("127.0.0.1", 0)) as held:
        nowhere = f"http://127.0.0.1:{held.getsockname()[1]}"
    began = time.monotonic()
    for reference in ("hf://o/r", "hf://o/r@main", f"hf://o/r@{'a' * 40}"):
        line = refused(reference, endpoint=nowhere)
        assert f"cannot be had from {nowhere}" in line
        assert "HF_HUB_OFFLINE=1" in line
    assert time.monotonic() - began < 5
    commit = get("hf://o/r").reference.revision
    assert get(f"hf://o/r@{commit}", endpoint=nowhere).reference.revision == commit  # a cached commit needs no network
    assert "cannot be had" in refused("hf://o/r", endpoint=nowhere)  # what a branch means now does


def test_offline_a_whole_snapshot_is_enough_and_a_part_is_not(hub, get, refused, rdc):
    commit = hub.commit("o/r", rdc)
    assert "not in the cache" in refused("hf://o/r", local_only=True)
    get("hf://o/r", weights=False)
    assert "not, or not wholly, in the cache" in refused("hf://o/r", local_only=True)
    get("hf://o/r")
    hub.requests.clear()
    for reference in ("hf://o/r", "hf://o/r@main", f"hf://o/r@{commit}"):
        assert get(reference, local_only=True).reference.revision == commit
    assert hub.requests == []
    assert "not in the cache" in refused("hf://o/r@other", local_only=True)


def test_offline_without_the_listing_every_file_is_asked_for(hub, get, refused, rdc, tmp_path):
    """The client takes any folder of a commit for the whole when it has not kept the commit's listing."""
    commit = hub.commit("o/r", rdc)
    get("hf://o/r")
    other = shutil.copytree(tmp_path / "cache", tmp_path / "other", symlinks=True, ignore=shutil.ignore_patterns("trees"))
    reference = f"hf://o/r@{commit}"
    assert get(reference, local_only=True, cache_dir=other).reference.revision == commit
    (other / "models--o--r" / "snapshots" / commit / "denoiser.safetensors").unlink()
    assert huggingface_hub.snapshot_download("o/r", revision=commit, cache_dir=other, local_files_only=True)
    assert "denoiser.safetensors is not in the cache" in refused(reference, local_only=True, cache_dir=other)


@pytest.mark.parametrize("path", ["../evil.yaml", "/etc/evil.yaml", "a/../../evil.yaml", "a\\..\\evil.yaml"])
def test_a_repository_with_a_file_outside_of_itself_is_refused(hub, refused, small, path, tmp_path):
    hub.commit("o/r", {**small, path: b"evil"})
    assert "outside of itself" in refused("hf://o/r")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "named",
    ["../small.yaml", "/etc/small.yaml", "sub/small.yaml", "small.py", "..", "", "small.yaml\\n", ".hidden.yaml", "S.yaml"],
)
def test_the_main_card_lies_at_the_top(hub, refused, small, named, make_config):
    hub.commit("o/r", {**small, "config.json": make_config("x").replace(b"x.yaml", named.encode())})
    assert "config.json is not that of an rdc-bench model (card:" in refused("hf://o/r")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"model_type": "bert"}', b"\xff", b'{"library_name": "rdc-bench", "schema_version": 2}', b"[" * 9999],
)
def test_other_repositories_are_told_apart(hub, refused, small, content):
    hub.commit("o/r", {**small, "config.json": content})
    assert "config.json is not that of an rdc-bench model" in refused("hf://o/r")


@pytest.mark.parametrize("file", ["../small.safetensors", "/x.safetensors", "sub/x.safetensors", "pytorch_model.bin", "run.py"])
def test_weights_are_safetensors_beside_their_card(hub, refused, small, file):
    document = yaml.safe_load(small["small.yaml"])
    document["model"]["weights"]["file"] = file
    hub.commit("o/r", {**small, "small.yaml": yaml.safe_dump(document).encode()})
    assert "small.yaml" in refused("hf://o/r")
    assert not any(hub.asked("GET", ending) for ending in (".safetensors", ".bin", ".py"))


@pytest.mark.parametrize(
    "content", [b"[" * 500, b"a: !!python/object/apply:os.system ['true']", b"date: 2020-13-45", b"a: " + b"9" * 5000, b"\x00"]
)
def test_what_is_no_card_is_one_line(hub, refused, small, content):
    hub.commit("o/r", {**small, "small.yaml": content})
    assert "small.yaml" in refused("hf://o/r")


def test_a_card_too_large_to_be_one_is_not_fetched(hub, refused, small):
    hub.commit("o/r", {**small, "small.yaml": small["small.yaml"] + b"#" * (1 << 20)})
    assert "no card has more than" in refused("hf://o/r")
    assert hub.asked("GET", "small.yaml") == []


def test_a_cache_that_cannot_be_written_is_named(hub, get, refused, small, tmp_path):
    hub.commit("o/r", small)
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in (line := refused("hf://o/r", cache_dir=tmp_path / "file" / "cache"))
    assert "Errno" not in line


def test_a_full_disk_under_the_cache_is_named_and_the_pull_goes_on(hub, get, refused, small, monkeypatch):
    hub.commit("o/r", small)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(shutil, "move", full)
        assert "no space is left on the device; make room" in refused("hf://o/r")
    assert len(get("hf://o/r").files) == 4
