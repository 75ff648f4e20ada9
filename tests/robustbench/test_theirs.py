"""RobustBench's models as ours. Nothing is downloaded: the zoo gets one small model more."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.zoo.schema import ModelCard

ID = "Doe2026Small_Net-1"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3072, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Payload:
    def __reduce__(self):
        return (Path("executed").touch, ())


@pytest.fixture
def zoo(plugin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """An empty working directory, and the small model's entry in RobustBench's table."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    monkeypatch.chdir(tmp_path)
    entry = {"model": Net, "gdrive_id": "drive-id"}
    monkeypatch.setitem(model_dicts[BenchmarkDataset.cifar_10][ThreatModel.L2], ID, entry)
    return entry


@pytest.fixture
def stored(zoo: dict) -> Net:
    """The small model with its weights where RobustBench would put them."""
    torch.manual_seed(0)
    network = Net()
    path = Path("models/cifar10/L2") / f"{ID}.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return network


@pytest.fixture
def download(zoo: dict, monkeypatch: pytest.MonkeyPatch):
    """Put a function in the place of RobustBench's download."""
    import robustbench.utils

    return lambda function: monkeypatch.setattr(robustbench.utils, "download_gdrive_new", function)


@pytest.mark.parametrize("name", [f"robustbench:cifar10/L2/{ID}", f"robustbench:CIFAR10/l2/{ID}"])
def test_a_stored_model_is_loaded_with_a_card(stored: Net, name: str) -> None:
    model = rdc_bench.load_model(name)
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(model(x), stored(x))
    card = ModelCard.model_validate(model.card.model_dump())
    assert (card.dataset, card.image_shape, card.num_classes, card.role) == ("cifar10", (3, 32, 32), 10, "baseline")
    assert card.source.startswith("RobustBench 1.1")
    assert card.source.endswith(f"cifar10/L2/{ID}")


def test_it_is_run_recorded_verified_and_reported(stored: Net, pictures: Path, tmp_path: Path) -> None:
    name = f"robustbench:cifar10/L2/{ID}"
    result = rdc_bench.run(models=[name], threat="l2", eps=0.5, attacks=["fgsm"], n=4, data_dir=pictures, out="results")
    entry = result.manifest.models[0]
    weights = Path("models/cifar10/L2") / f"{ID}.pt"
    assert list(entry.weights.values()) == [hashlib.sha256(weights.read_bytes()).hexdigest()]
    assert entry.origin == entry.card["source"]
    assert rdc_bench.verify(result.path, data_dir=pictures).ok
    paths = rdc_bench.report("results", out="report", formats=["robustbench"])
    assert Path(f"report/model_info/cifar10/L2/{ID}.json") in paths
    torch.save(Net().state_dict(), weights)
    assert not rdc_bench.verify(result.path, data_dir=pictures).ok


def test_files_are_valid_for_robustbench(stored: Net, pictures: Path) -> None:
    import dataclasses

    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    from robustbench.utils import ModelInfo, get_leaderboard_bibtex, get_leaderboard_latex, list_available_models, update_json

    rdc_bench.run(
        models=[f"robustbench:cifar10/L2/{ID}"], threat="l2", eps=0.5, attacks=["fgsm"], n=4, data_dir=pictures, out="results"
    )
    rdc_bench.report("results", out=".", formats=["robustbench"])
    path = Path(f"model_info/cifar10/L2/{ID}.json")
    info = json.loads(path.read_text())
    fields = {field.name for field in dataclasses.fields(ModelInfo)}
    assert set(info) - fields == {"external", "unreliable"}  # in RobustBench's own files, not in its class
    ModelInfo(**{name: value for name, value in info.items() if name in fields})
    assert all(isinstance(info[name], str) for name in ("clean_acc", "external", "eps"))

    # What RobustBench itself makes of such files.
    list_available_models("cifar10", "L2")
    assert "Doe2026Small" in get_leaderboard_latex("cifar10", "L2")
    assert get_leaderboard_bibtex("cifar10", "L2")[1] == ""  # a model without a paper is left out
    update_json(BenchmarkDataset.cifar_10, ThreatModel.L2, ID, 0.5, 0.25, 0.5)
    updated = json.loads(path.read_text())
    assert (updated["autoattack_acc"], updated["external"]) == ("25.0", info["external"])


def test_a_missing_model_is_downloaded_whole(zoo: dict, download) -> None:
    asked = []

    def fetch(drive_id: str, path: Path) -> None:
        asked.append(drive_id)
        torch.save(Net().state_dict(), path)

    download(fetch)
    for _ in range(2):
        assert rdc_bench.load_model(f"robustbench:cifar10/L2/{ID}")(torch.rand(1, 3, 32, 32)).shape == (1, 10)
    assert asked == ["drive-id"]
    assert [path.name for path in Path().rglob("*") if path.is_file()] == [f"{ID}.pt"]


def test_an_ensemble_has_a_file_for_each_member(zoo: dict, download) -> None:
    from rdc_bench.robustbench import theirs

    zoo["gdrive_id"] = ["a", "b"]
    download(lambda drive_id, path: Path(path).write_text(drive_id))
    spec = theirs.parse(f"robustbench:cifar10/L2/{ID}")
    hashes = theirs.weight_files(spec)
    assert hashes == {f"{ID}.pt_m{i}.pt": hashlib.sha256(x.encode()).hexdigest() for i, x in enumerate("ab")}


def test_no_network_is_said_and_leaves_nothing(zoo: dict, download, tmp_path: Path) -> None:
    def fail(drive_id: str, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise ConnectionError("Name or service not known\nand much more")

    download(fail)
    expected = (
        rf"failed \(ConnectionError: Name or service not known\); without a network, put the file at models/cifar10/L2/{ID}\.pt"
    )
    with pytest.raises(UserError, match=expected):
        rdc_bench.load_model(f"robustbench:cifar10/L2/{ID}")
    with pytest.raises(UserError, match=expected):
        rdc_bench.run(models=[f"robustbench:cifar10/L2/{ID}"], threat="l2", eps=0.5, n=1, out="results")
    download(lambda drive_id, path: None)
    with pytest.raises(UserError, match="brought no file"):
        rdc_bench.load_model(f"robustbench:cifar10/L2/{ID}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_code_in_it_is_refused(stored: Net) -> None:
    path = Path("models/cifar10/L2") / f"{ID}.pt"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(UserError, match=rf"{ID}\.pt: RobustBench cannot load it"):
        rdc_bench.load_model(f"robustbench:cifar10/L2/{ID}")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("robustbench:Wang2023Bettr_WRN-70-16", "cifar10/Linf.*Did you mean 'Wang2023Better_WRN-70-16'"),
        (f"robustbench:{ID}", rf"It is there as robustbench:cifar10/L2/{ID}\."),
        ("robustbench:cifar100/L2/Rice2020Overfitting", "robustbench:cifar100/Linf/Rice2020Overfitting"),
        ("robustbench:cifar11/L2/x", "unknown RobustBench dataset 'cifar11'. Did you mean 'cifar10'"),
        ("robustbench:cifar10/L3/x", "unknown RobustBench threat model 'L3'"),
        ("robustbench:../../x", "write robustbench:ID"),
        ("robustbench:cifar10/L2/..", "write robustbench:ID"),
        ("robustbench:cifar10/L2", "write robustbench:ID"),
        ("robustbench:", "write robustbench:ID"),
        ("robustbench: x", "write robustbench:ID"),
    ],
)
def test_names_that_lead_nowhere(zoo: dict, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rdc_bench.load_model(name)


def test_a_place_that_cannot_be_written_is_named(zoo: dict, download) -> None:
    download(lambda drive_id, path: torch.save(Net().state_dict(), path))
    Path("models").write_text("not a folder")
    with pytest.raises(UserError, match=rf"models/cifar10/L2/{ID}\.pt: cannot be written"):
        rdc_bench.load_model(f"robustbench:cifar10/L2/{ID}")
