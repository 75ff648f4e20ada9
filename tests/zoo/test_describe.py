import json

import pytest

from rdc_bench.cli.model_table import show_model
from rdc_bench.core.card_files import packaged
from rdc_bench.core.errors import UserError
from rdc_bench.core.files import file_sha256
from rdc_bench.zoo import catalog
from rdc_bench.zoo.describe import describe


def test_every_listed_model_is_described_and_the_two_agree(toys, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [row for row in catalog.models() if row["kind"]]
    assert {"toy", "rdc-fashion-mnist"} <= {row["name"] for row in rows}
    for row in rows:
        facts = json.loads(json.dumps(describe(row["name"])))
        assert {key: facts[key] for key in ("kind", "role", "dataset", "title", "runnable")} == {
            key: row[key] for key in ("kind", "role", "dataset", "title", "runnable")
        }
        show_model(facts)
        shown = capsys.readouterr().out
        assert row["name"] in shown
        assert facts["license"] in shown


def test_a_model_is_described_with_its_parts_and_their_weights():
    facts = describe("rdc-fashion-mnist")
    assert [card["name"] for card in facts["cards"]] == ["rdc-fashion-mnist", "multihead-fashion-mnist", "dc-fashion-mnist"]
    (weights,) = (card["weights"] for card in facts["cards"] if card["weights"])
    path = packaged("models") / "multihead-fashion-mnist.safetensors"
    assert weights == {"file": path.name, "sha256": file_sha256(path), "path": str(path), "bytes": path.stat().st_size}
    by_path = describe(str(packaged("models") / "rdc-fashion-mnist.yaml"))
    assert {**by_path, "state": facts["state"]} == facts


def test_training_is_told_where_there_was_any():
    facts = describe("standard-fashion-mnist")
    assert facts["training"]["command"].startswith("rdc-bench train baseline")
    assert facts["validation"]


def test_an_unknown_model_is_guessed():
    with pytest.raises(UserError, match="Did you mean 'rdc-fashion-mnist'"):
        describe("rdc-fashion-mnits")
