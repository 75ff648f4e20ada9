import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.cards import ModelCard, ThreatCard, card_names, find_model_card, packaged, read_card
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
    ["- a\n- b", "just text", "a: [1", "!!python/object/apply:os.system ['true']", "", "\x00"],
)
def test_what_is_no_card_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"mine\.yaml"):
        read_card(write(tmp_path, text), ModelCard)


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
