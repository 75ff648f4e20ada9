"""What a run writes: the manifest ``run.json`` and the rows of ``records.parquet``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from rdc_bench.results.admission import Admission
from rdc_bench.zoo.reference import is_reference
from rdc_bench.zoo.schema import settings


class Record(NamedTuple):
    """One row of ``records.parquet``, for an image, an attack and a repeat (and a model).

    The pseudo-attack ``clean`` holds the predictions on clean images. What was seen while the image was attacked with gradients
    (the last three) is None elsewhere, and in runs from before there were these columns.

    Attributes:
        index: position of the image in the dataset's split. repeat: which fresh draw of the model's randomness judged it.
        clean_prediction: under the same repeat; −1 when the logits were not finite.
        adversarial_prediction: None on clean rows and where the attack failed.
        distance: in the threat's unit; None where there is no adversarial image.
        success: correct on the clean image, wrong on the adversarial one.
        status: ``ok``, ``failed`` (the attack raised) or ``invalid`` (its image cannot be judged).
        reason: why the status is not ok, in one line. gradient: ``exact``, ``bpda``, ``surrogate`` or ``none``.
        nfe: network evaluations spent attacking (clean: classifying) the image, forward and backward; nfe_backward: of these.
        gradients: ``ok``, ``partly`` or ``never``: whether they were finite and not zero.
        slope_error: how far the gradient misjudges the margin along the path, in [0, 1]; of a sample.
        rose: whether the margin was ever higher than at the first look.
    """

    model: Annotated[str, pa.string()]
    attack: Annotated[str, pa.string()]
    index: Annotated[int, pa.int32()]  # type: ignore[assignment]  # a column's name, which hides the tuple's method
    repeat: Annotated[int, pa.int16()]
    label: Annotated[int, pa.int16()]
    clean_prediction: Annotated[int, pa.int16()]
    adversarial_prediction: Annotated[int | None, pa.int16()] = None
    distance: Annotated[float | None, pa.float64()] = None
    success: Annotated[bool, pa.bool_()] = False
    status: Annotated[str, pa.string()] = "ok"
    reason: Annotated[str | None, pa.string()] = None
    gradient: Annotated[str, pa.string()] = "none"
    nfe: Annotated[float, pa.float64()] = 0.0
    nfe_backward: Annotated[float, pa.float64()] = 0.0
    seconds: Annotated[float, pa.float64()] = 0.0
    gradients: Annotated[str | None, pa.string()] = None
    slope_error: Annotated[float | None, pa.float64()] = None
    rose: Annotated[bool | None, pa.bool_()] = None


#: The columns of ``records.parquet``: the fields of :class:`Record`, in their order.
RECORDS = pa.schema([(name, kind.__metadata__[0]) for name, kind in get_type_hints(Record, include_extras=True).items()])

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
