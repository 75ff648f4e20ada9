"""What a diagnosis of a model's gradients writes, and how later tables find it.

A diagnosis lies in ``RESULTS/diagnosis/<model>-<identity>/``, as ``diagnosis.json`` beside its plots. It speaks of one model
with its settings and weights, under one threat: of a model that has changed since, it says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from rdc_bench.errors import UserError
from rdc_bench.files import write_atomically
from rdc_bench.results.schema import ModelEntry

Verdict = Literal["pass", "warn", "fail"]
DIAGNOSES, DOCUMENT = "diagnosis", "diagnosis.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Line(_Strict):
    """One curve of a plot. ``low`` and ``high``: its 95 % bounds, where it has any."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


class Plot(_Strict):
    """What a check draws. ``limit``: a horizontal line that the verdict turns on."""

    x_label: str
    y_label: str
    lines: list[Line]
    log_x: bool = False
    log_y: bool = False
    limit: float | None = None


class Check(_Strict):
    """One sign of masked gradients: what was measured, what it means, and where the sign is described."""

    name: str
    title: str
    verdict: Verdict
    figures: dict[str, float]
    says: str
    source: str
    plot: Plot


class Diagnosis(_Strict):
    """``diagnosis.json``. ``n`` images were asked for, of which the model classified ``correct``, and those were examined."""

    format: Literal["rdc-bench diagnosis"] = "rdc-bench diagnosis"
    schema_version: Literal[1] = 1
    model: str
    settings: dict[str, dict[str, Any]]
    weights: dict[str, str]
    origin: str
    stochastic: bool
    dataset: str
    data_sha256: str
    threat: str
    eps: str
    n: int
    correct: int
    seed: int
    surrogates: list[str]
    versions: dict[str, str]
    created: str
    seconds: float
    checks: list[Check]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any check."""
        verdicts = {check.verdict for check in self.checks}
        return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [check.name for check in self.checks if check.verdict == "fail"]

    @property
    def identity(self) -> str:
        """A digest of what the diagnosis is about: the model, its settings and weights, the threat and its size."""
        facts = [self.model, self.settings, sorted(self.weights.items()), self.threat, self.eps]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def is_about(self, entry: ModelEntry) -> bool:
        """Whether ``entry`` of a run is the model that was examined: same name, settings and weights."""
        return (self.model, self.settings, self.weights) == (entry.name, entry.settings, entry.weights)

    def as_json(self) -> dict[str, Any]:
        """The document that ``rdc-bench diagnose --json`` prints."""
        return {"verdict": self.verdict, "failed": self.failed, **self.model_dump(mode="json")}


def folder_of(results: Path, diagnosis: Diagnosis) -> Path:
    """Where a diagnosis lies under a results folder."""
    return results / DIAGNOSES / f"{diagnosis.model.replace('/', '_')}-{diagnosis.identity[:8]}"


def write_diagnosis(folder: Path, diagnosis: Diagnosis, pictures: Mapping[str, bytes]) -> list[Path]:
    """Write ``pictures`` (file name → bytes), then the document that tells of them; returns the paths."""
    document = diagnosis.model_dump_json(indent=1).encode() + b"\n"
    contents = {**pictures, DOCUMENT: document}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


class Masked(NamedTuple):
    """A model whose diagnosis failed: the threat and size it was made under, and the names of the checks that failed."""

    threat: str
    eps: str
    checks: list[str]


def failed_diagnoses(results: Path) -> list[Diagnosis]:
    """The diagnoses under ``results`` that failed. Raises ``UserError`` for one that cannot be read."""
    return [d for path in sorted(results.glob(f"{DIAGNOSES}/*/{DOCUMENT}")) if (d := _read(path)).failed]


def masked(failed: Sequence[Diagnosis], entries: Sequence[ModelEntry]) -> dict[str, list[Masked]]:
    """By name, those models of a run of which a diagnosis failed.

    Args: entries: the models as the run used them; diagnoses of other settings or weights do not count.
    """
    found = {entry.name: [Masked(d.threat, d.eps, d.failed) for d in failed if d.is_about(entry)] for entry in entries}
    return {name: diagnoses for name, diagnoses in found.items() if diagnoses}


def _read(path: Path) -> Diagnosis:
    try:
        return Diagnosis.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: not a diagnosis of rdc-bench ({reason}); delete it, or run `rdc-bench diagnose` again"
        ) from error
