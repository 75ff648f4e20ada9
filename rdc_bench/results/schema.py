"""What a run writes: the manifest ``run.json`` and the columns of ``records.parquet``."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from rdc_bench.cards import settings
from rdc_bench.hub.reference import is_reference
from rdc_bench.results.admission import Admission

#: One row per image, attack and repeat (and model). The pseudo-attack ``clean`` holds the predictions on clean images.
RECORDS = pa.schema(
    [
        ("model", pa.string()),
        ("attack", pa.string()),
        ("index", pa.int32()),  # position of the image in the dataset's split
        ("repeat", pa.int16()),  # which fresh draw of the model's randomness judged the final image
        ("label", pa.int16()),
        ("clean_prediction", pa.int16()),  # under the same repeat; −1 when the logits were not finite
        ("adversarial_prediction", pa.int16()),  # null on clean rows and where the attack failed
        ("distance", pa.float64()),  # in the threat's unit; null where there is no adversarial image
        ("success", pa.bool_()),  # correct on the clean image, wrong on the adversarial one
        ("status", pa.string()),  # ok | failed (the attack raised) | invalid (its image cannot be judged)
        ("reason", pa.string()),  # why the status is not ok, in one line; else null
        ("gradient", pa.string()),  # exact | bpda | surrogate | none
        ("nfe", pa.float64()),  # network evaluations spent attacking (clean: classifying) the image, forward + backward
        ("nfe_backward", pa.float64()),
        ("seconds", pa.float64()),
        # What was seen while the image was attacked with gradients; null elsewhere, and in runs from before these columns.
        ("gradients", pa.string()),  # ok | partly | never: whether they were finite and not zero
        ("slope_error", pa.float64()),  # how far the gradient misjudges the margin along the path, in [0, 1]; of a sample
        ("rose", pa.bool_()),  # whether the margin was ever higher than at the first look
    ]
)

RunStatus = Literal["started", "interrupted", "complete", "complete with failures"]
CLEAN = "clean"


class Manifest(BaseModel):
    """``run.json``: everything that is needed to understand a run, and to repeat it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    #: Says that a file is ours; checked before anything is read or written beside it.
    format: Literal["rdc-bench run"] = "rdc-bench run"
    schema_version: Literal[1] = 1
    identity: str
    status: RunStatus
    command: str
    profile: str
    note: str
    threat: str
    threat_kind: str
    eps: str
    eps_value: float
    dataset: str
    split: str
    data_source: str
    data_sha256: str
    n: int
    seed: int
    repeats: int
    models: list[ModelEntry]
    attacks: list[AttackEntry]
    versions: dict[str, str]
    hardware: dict[str, Any]
    created: str
    wall_seconds: float = 0.0
    nfe_forward: float = 0.0
    nfe_backward: float = 0.0
    failures: list[Failure] = []
    files: dict[str, str] = {}


class ModelEntry(BaseModel):
    """One evaluated model: its card and those of its parts as data, the SHA-256 of card and weights, how it treats randomness.

    ``reference``: what leads to it again, with the commit of what comes from the Hub; None, in older runs, for ``name``.
    ``fixed_noise``: its noise was the same for every image and call, and ``name`` says so. ``admission``: what was seen of it
    before it was attacked, and mended; None in older runs. ``notes``: what a reader of its figures must know.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    reference: str | None = None
    card: dict[str, Any]
    card_sha256: str
    parts: dict[str, dict[str, Any]] = {}
    weights: dict[str, str]
    origin: str
    stochastic: bool
    gradient: str
    repeats: int
    fixed_noise: bool = False
    admission: Admission | None = None
    notes: list[str] = []

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What decided the model's figures besides its weights, by the names of its cards."""
        return {name: settings(card["model"]) for name, card in {self.card["name"]: self.card, **self.parts}.items()}

    @property
    def sources(self) -> list[str]:
        """Where the model and its weights were named to come from, where that is not a card by its bare name."""
        far = {key.rpartition("/")[0] for key in self.weights if is_reference(key)}
        named = {self.reference} if self.reference and self.reference != self.card["name"] else set()
        return sorted(named | far)


class AttackEntry(BaseModel):
    """One attack with every option, defaults included.

    ``witness``: it was shown images that all other attacks had left standing, to find out whether gradients misled those.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    label: str
    origin: str
    gradient: str
    options: dict[str, Any]
    witness: bool = False


class Failure(BaseModel):
    """What went wrong with an attack on an image, in one line."""

    model_config = ConfigDict(extra="forbid")

    model: str
    attack: str
    index: int
    status: Literal["failed", "invalid"]
    reason: str


Manifest.model_rebuild()
