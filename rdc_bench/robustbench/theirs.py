"""RobustBench's models as ours: ``robustbench:ID`` and ``robustbench:DATASET/THREAT/ID``.

The weights come from where RobustBench keeps them, by its own download, into ``models/DATASET/THREAT/ID.pt`` under the working
directory; a file that lies there already is taken as it is. RobustBench publishes no checksums: the SHA-256 of what was loaded
is recorded with every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import robustbench.model_zoo
import robustbench.utils
import timm
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from torch import nn

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.core.files import file_sha256
from rdc_bench.robustbench.entries import function_name
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.schema import ROBUSTBENCH, ModelCard, RobustBenchSpec

SYNTAX = "write robustbench:ID (CIFAR-10, Linf) or robustbench:DATASET/THREAT/ID"
THREATS = ("Linf", "L2", "corruptions")


def resolve(name: str) -> LoadedCard:
    """The card made for a model of RobustBench. Nothing is downloaded.

    Args: name: ``robustbench:ID`` (CIFAR-10, Linf) or ``robustbench:DATASET/THREAT/ID``.
    Raises: ``UserError`` for another form, a dataset, threat model or ID that RobustBench does not have.
    """
    spec = parse(name)
    release = f"RobustBench {importlib.metadata.version('robustbench')}"
    card = ModelCard(
        schema_version=1,
        name=f"robustbench-{spec.dataset}-{spec.threat}-{spec.id}".lower(),
        title=f"{spec.id} (RobustBench, {spec.dataset}, {spec.threat})",
        role="baseline",
        dataset=spec.dataset,
        image_shape=_image_shape(spec),
        num_classes=robustbench.utils.DATASET_CLASSES[BenchmarkDataset(spec.dataset)],
        license="its authors'; RobustBench's page of the model links to them",
        source=f"{release}, {spec.dataset}/{spec.threat}/{spec.id}",
        model=spec,
    )
    digest = hashlib.sha256(card.model_dump_json().encode()).hexdigest()
    return LoadedCard(card=card, path=Path(robustbench.model_zoo.__file__ or ""), sha256=digest)


def parse(name: str) -> RobustBenchSpec:
    """The dataset, threat model and ID that a name means, all of which RobustBench has."""
    parts = name.removeprefix(ROBUSTBENCH).split("/")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", part) for part in parts):
        raise UserError(f"model {name!r}: {SYNTAX}")
    dataset, threat, model = ("cifar10", "Linf", parts[0]) if len(parts) == 1 else parts
    dataset = _one_of("RobustBench dataset", dataset, [d.value for d in BenchmarkDataset])
    threat = _one_of("RobustBench threat model", threat, THREATS)
    known = _models(dataset, threat)
    if model not in known:
        elsewhere = [
            f"robustbench:{d.value}/{t}/{model}" for d in BenchmarkDataset for t in THREATS if model in _models(d.value, t)
        ]
        hint = f"It is there as {' and '.join(elsewhere)}." if elsewhere else f"Or {SYNTAX}."
        raise unknown_name(f"RobustBench model for {dataset}/{threat}", model, known, hint)
    return RobustBenchSpec.model_validate({"kind": "robustbench", "dataset": dataset, "threat": threat, "id": model})


def load(spec: RobustBenchSpec) -> nn.Module:
    """The module, with its weights, downloaded if need be. Raises ``UserError`` when they cannot be had or do not fit."""
    paths = fetch(spec)
    with _quiet():
        try:
            module: nn.Module = robustbench.utils.load_model(
                spec.id, model_dir=spec.download.parents[2], dataset=spec.dataset, threat_model=spec.threat
            )
        except Exception as error:  # somebody else's code, on somebody else's file
            where = str(paths[0]) if paths else f"{spec.dataset}/{spec.threat}/{spec.id}"
            raise UserError(f"{where}: RobustBench cannot load it ({_line(error)})") from error
    return module


def weight_files(spec: RobustBenchSpec) -> dict[str, str]:
    """SHA-256 of each weights file by its name, downloaded if need be; none for the models that timm loads."""
    return {path.name: file_sha256(path) for path in fetch(spec)}


def fetch(spec: RobustBenchSpec) -> list[Path]:
    """The paths of a model's weights files, after downloading those that are missing."""
    found = files(spec)
    for path, drive_id in found.items():
        if not path.is_file():
            _download(spec, path, drive_id)
    return list(found)


def files(spec: RobustBenchSpec) -> dict[Path, str]:
    """Where RobustBench keeps the weights here, and their address on Google Drive; empty for a model that timm loads."""
    entry = _models(spec.dataset, spec.threat).get(spec.id)
    if entry is None:
        raise unknown_name("RobustBench model", spec.id, _models(spec.dataset, spec.threat), SYNTAX)
    if timm.is_model(function_name(spec.id, spec.dataset, spec.threat)):
        return {}
    path = spec.download
    if isinstance(entry["gdrive_id"], list):  # an ensemble: a file for each member
        return {path.with_name(f"{path.name}_m{i}.pt"): drive_id for i, drive_id in enumerate(entry["gdrive_id"])}
    return {path: entry["gdrive_id"]}


def _download(spec: RobustBenchSpec, path: Path, drive_id: str | None) -> None:
    """Fetch a file and put it at ``path``, whole or not at all."""
    if drive_id is None:
        raise UserError(f"RobustBench publishes no weights of {spec.id}; put them at {path}")
    place = next(folder for folder in path.parents if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".robustbench-") as scratch:
            partial = Path(scratch) / path.name
            _fetch_into(spec, path, partial, drive_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error


def _fetch_into(spec: RobustBenchSpec, path: Path, partial: Path, drive_id: str) -> None:
    with _quiet():
        try:
            robustbench.utils.download_gdrive_new(drive_id, partial)
        except Exception as error:  # whatever gdown, requests and the proxy raise
            raise UserError(
                f"RobustBench's download of {spec.id} failed ({_line(error)}); without a network, put the file at {path}"
            ) from error
    if not partial.is_file():
        raise UserError(f"RobustBench's download of {spec.id} brought no file; fetch it by hand and put it at {path}")


def _models(dataset: str, threat: str) -> dict[str, dict[str, Any]]:
    """RobustBench's table for a dataset and threat model, empty where it has none."""
    table: dict[str, dict[str, Any]] = robustbench.model_zoo.model_dicts[BenchmarkDataset(dataset)].get(ThreatModel(threat), {})
    return table


def _image_shape(spec: RobustBenchSpec) -> tuple[int, int, int]:
    if spec.dataset != "imagenet":
        return 3, 32, 32
    size = 288 if _models(spec.dataset, spec.threat)[spec.id].get("preprocessing") == "Crop288" else 224
    return 3, size, size


def _one_of(kind: str, value: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``value`` is, whatever its capitals."""
    by_lower = {name.lower(): name for name in known}
    if value.lower() not in by_lower:
        raise unknown_name(kind, value, by_lower.values(), f"There are: {', '.join(by_lower.values())}.")
    return by_lower[value.lower()]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What RobustBench prints goes to stderr, so that stdout holds nothing but our own output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
