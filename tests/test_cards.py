import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.cards import ModelCard, Reported, ThreatCard, card_names, find_model_card, packaged, read_card
from rdc_bench.diffusion import PRECONDITIONINGS
from rdc_bench.errors import UserError
from rdc_bench.parts import find_card

CARD = {
    "schema_version": 1,
    "name": "mine",
    "title": "Mine",
    "role": "defense",
    "dataset": "fashion-mnist",
    "image_shape": [1, 28, 28],
    "num_classes": 10,
    "license": "MIT",
    "source": "a test",
    "model": {"kind": "diffusion-classifier", "denoiser": "some-denoiser", "levels": 8},
}


def write(tmp_path, card, name="mine"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(card if isinstance(card, str) else yaml.safe_dump(card, sort_keys=False, default_flow_style=None))
    return path


def test_a_good_card_is_read(tmp_path):
    card = read_card(write(tmp_path, CARD), ModelCard)
    assert card.model.levels == 8
    assert card.image_shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "x"}, r"mine.yaml:11.*'nmae'.*Did you mean 'name'"),
        ({"num_classes": "ten"}, r"mine.yaml:7: field 'num_classes'"),
        ({"num_classes": 1}, r"greater than or equal to 2"),
        ({"role": "winner"}, r"field 'role'"),
        ({"schema_version": 2}, r"field 'schema_version'"),
        ({"name": "../escape"}, r"field 'name'"),
        ({"name": "another"}, r"must have the same name"),
        ({"model": {**CARD["model"], "leveles": 3}}, r"Did you mean 'levels'"),
        ({"model": {**CARD["model"], "noise": "none"}}, r"noise"),
        ({"model": {"kind": "pickle"}}, r"kind|model"),
        ({"title": None}, r"field 'title'"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        read_card(write(tmp_path, {**CARD, **change}), ModelCard)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "weights.pt", ".hidden.safetensors"]
)
def test_weights_cannot_lie_outside_the_cards_folder(tmp_path, file):
    model = {"kind": "classifier", "architecture": "SmallResNet", "config": {}, "weights": {"file": file, "sha256": "0" * 64}}
    with pytest.raises(UserError, match=r"weights\.file|file"):
        read_card(write(tmp_path, {**CARD, "model": model}), ModelCard)


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b",
        "just text",
        "a: [1",
        "a: &x [1]\nb: *x",
        "a: &x [*x]",
        "a: 2020-13-45",
        "[" * 500,
        "!!python/object/apply:os.system ['true']",
        "",
        "\x00",
    ],
)
def test_what_is_no_card_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.yaml"):
        read_card(write(tmp_path, text), ModelCard)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: a: b", ":1"),
        ("name: mine\ntitle: [1", r":\d"),
        ("name: mine\n\n\ttitle: x", ":3"),
        ("name: mine\ntitle: *x", ":2"),
        ("x: " + "[" * 100_000, r"(:\d)?"),
        ("- " * 100_000, r"(:\d)?"),
        ("x: " + "9" * 10_000, ""),
        ("x: 2020-13-45", ""),
        ("x: \x01", ""),
    ],
)
def test_what_is_no_yaml_is_refused_in_one_line_with_and_without_libyaml(tmp_path, monkeypatch, loader, text, where):
    monkeypatch.setattr("rdc_bench.cards._Loader", loader)
    with pytest.raises(UserError, match=rf"mine\.yaml{where}: not valid YAML") as caught:
        read_card(write(tmp_path, text), ModelCard)
    assert "\n" not in str(caught.value)


def test_a_card_is_parsed_once_and_again_when_its_text_changes(tmp_path):
    path = write(tmp_path, CARD)
    first = read_card(path, ModelCard)
    assert read_card(path, ModelCard) is first
    write(tmp_path, {**CARD, "title": "Ours"})  # as long as before, and within the same tick of the clock
    assert read_card(path, ModelCard).title == "Ours"
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_card(path, ModelCard)


@given(
    st.dictionaries(st.sampled_from([*CARD, "extra"]), st.one_of(st.none(), st.integers(), st.text(max_size=5), st.booleans()))
)
def test_any_change_is_accepted_or_refused_in_one_line(tmp_path_factory, change):
    path = write(tmp_path_factory.mktemp("card"), {**CARD, **change})
    message = ""
    try:
        read_card(path, ModelCard)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert message == "" or "mine.yaml" in message


def test_names_lead_to_the_working_directory_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    write(tmp_path / "models", CARD)
    assert find_model_card("mine").path == tmp_path / "models" / "mine.yaml"
    assert find_model_card("models/mine.yaml").card.name == "mine"
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        find_model_card("mien")
    with pytest.raises(UserError, match="no such file"):
        find_model_card("models/mien.yaml")


def test_a_card_is_found_where_the_list_of_all_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nested", "both", "rdc-cifar10"):
        (tmp_path / "models" / name).mkdir(parents=True)
        write(tmp_path / "models" / name, {**CARD, "name": name}, name)
    for name in ("flat", "both", "dc-cifar10"):
        write(tmp_path / "models", {**CARD, "name": name}, name)
    names = card_names("models")
    assert len(names) > 10
    assert {name: find_model_card(name).path for name in names} == names
    assert {name for name, path in names.items() if path.is_relative_to(tmp_path)} >= {"nested", "flat", "rdc-cifar10"}


@pytest.mark.parametrize("name", sorted(card_names("threat_models")))
def test_every_packaged_threat_card_is_valid(name):
    assert read_card(packaged("threat_models") / f"{name}.yaml", ThreatCard).name == name


@pytest.mark.parametrize("name", sorted(path.stem for path in packaged("models").glob("*.yaml")))
def test_every_packaged_model_card_is_valid(name):
    card = read_card(packaged("models") / f"{name}.yaml", ModelCard)
    assert card.license
    assert card.source


@pytest.mark.parametrize("denoiser", ["hf://owner/repo", "hf://owner/repo@v1.0", "hf://owner/my.repo@refs/pr/1"])
def test_a_part_may_lie_on_the_hub(tmp_path, denoiser):
    card = read_card(write(tmp_path, {**CARD, "model": {**CARD["model"], "denoiser": denoiser}}), ModelCard)
    assert card.model.denoiser == denoiser


@pytest.mark.parametrize("denoiser", ["hf://owner", "hf://owner/../x", "../x", "a/b", "owner/repo", "hf://owner/re po", ""])
def test_a_part_that_is_neither_name_nor_repository_is_refused(tmp_path, denoiser):
    with pytest.raises(UserError, match=r"mine.yaml:\d+: field 'model.diffusion-classifier.denoiser'"):
        read_card(write(tmp_path, {**CARD, "model": {**CARD["model"], "denoiser": denoiser}}), ModelCard)


def test_cards_that_name_one_another_in_a_circle_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    write(tmp_path / "models", {**CARD, "model": {**CARD["model"], "denoiser": "other"}})
    write(tmp_path / "models", {**CARD, "name": "other", "model": {**CARD["model"], "denoiser": "mine"}}, "other")
    with pytest.raises(UserError, match=r"models/mine\.yaml: the card is a part of itself"):
        find_card("mine")


FIGURE = {"metric": "robust", "threat": "linf", "eps": "8/255", "percent": "75.59", "n": 512, "source": "a paper"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"percent": "75.67"}, r"75\.67 % is no whole number of 512 images; say so in a note"),
        ({"percent": 75.59}, "percent.*string"),
        ({"percent": "101"}, "percent"),
        ({"percent": "0.7559e2"}, "percent"),
        ({"eps": None}, "needs a threat and its eps"),
        ({"metric": "clean"}, "clean accuracy has neither"),
        ({"eps": "8/0"}, "divides by zero"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"source": None}, "source"),
        ({"nn": 3}, "unknown field 'nn'"),
    ],
)
def test_a_reported_figure_that_cannot_be_is_refused(tmp_path, change, message):
    figure = {key: value for key, value in {**FIGURE, **change}.items() if value is not None}
    with pytest.raises(UserError, match=rf"mine\.yaml:\d+: .*{message}") as caught:
        read_card(write(tmp_path, {**CARD, "reported": [figure]}), ModelCard)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"percent": "75.67", "note": "no count of 512 images"},
        {"percent": "75.67", "n": None},
        {"percent": "55.27", "draws": 10},  # a mean over draws may be any count of images times draws
        {"metric": "clean", "threat": None, "eps": None, "percent": "100"},
        {"percent": "75.6"},
        {"percent": "76"},
    ],
)
def test_a_reported_figure_that_can_be_is_read(tmp_path, change):
    figure = {key: value for key, value in {**FIGURE, **change}.items() if value is not None}
    (read,) = read_card(write(tmp_path, {**CARD, "reported": [figure]}), ModelCard).reported
    assert read.value == pytest.approx(float(figure["percent"]) / 100)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 3))
def test_every_count_of_images_is_countable_as_it_is_printed(count, decimals):
    k, n = count
    figure = Reported(metric="clean", percent=f"{100 * k / n:.{decimals}f}", n=n, source="a paper")
    assert figure.countable


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"file": "a.safetensors"}, r"weights\..*sha256.*required"),
        ({"origin": "https://example.org/a.pkl", "format": "edm-pkl", "license": "MIT"}, r"weights\..*how.*required"),
        ({"origin": "x", "format": "zip", "license": "MIT", "how": "ask"}, r"format.*'edm-pkl' or 'state-dict'"),
        ({"package": "evil", "file": "a.pt", "sha256": "0" * 64}, "package"),
        ("a.safetensors", "weights"),
        (None, "weights"),
    ],
)
def test_errors_are_about_the_kind_of_weights_that_was_meant(tmp_path, weights, message):
    model = {"kind": "denoiser", "architecture": "EDMPrecond", "config": {}, "weights": weights}
    with pytest.raises(UserError, match=rf"mine\.yaml:\d+: .*{message}") as caught:
        read_card(write(tmp_path, {**CARD, "model": model}), ModelCard)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("edm-cifar10-cond-vp", 55.7e6), ("edm-cifar10-uncond-vp", 55.7e6), ("edm-imagenet64-cond-adm", 295.9e6)],
)
def test_the_networks_of_published_weights_have_their_published_size(name, parameters):
    spec = find_model_card(name).card.model
    with torch.device("meta"):
        network = PRECONDITIONINGS[spec.architecture](**spec.config)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=2e-3)
