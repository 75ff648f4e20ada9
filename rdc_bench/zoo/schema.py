"""What stands in a model's card: how it is built, where its weights are, how it was trained, what is reported of it.

The names in a card point into this package's registries only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, FiniteFloat, Tag, model_validator

from rdc_bench.core.card_files import NAME, Name, Sha256, Strict
from rdc_bench.core.eps import parse_eps
from rdc_bench.core.errors import UserError
from rdc_bench.zoo.library_name import ARCHITECTURE, is_library_name
from rdc_bench.zoo.reference import is_reference, parse_reference

#: How names in RobustBench's zoo begin.
ROBUSTBENCH = "robustbench:"


def is_elsewhere(name: str) -> bool:
    """Whether a name says that its card comes from elsewhere than a file here."""
    return is_reference(name) or name.startswith(ROBUSTBENCH) or is_library_name(name)


def _part_name(text: str) -> str:
    if is_reference(text):
        try:
            parse_reference(text)
        except UserError as error:
            raise ValueError(str(error)) from error
    elif not NAME.fullmatch(text):
        raise ValueError("neither a card's name nor hf://owner/repo[@revision]")
    return text


#: How a card names another one: by its name, or as a repository on the Hub.
PartName = Annotated[str, Field(max_length=500), AfterValidator(_part_name)]


class Weights(Strict):
    """Weights beside the card: a safetensors file and its SHA-256."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")]
    sha256: Sha256


class PackageWeights(Strict):
    """Weights that an installed package carries: a state dict as torch saves it, and its SHA-256.

    It is read with ``weights_only=True``, so that nothing in it is executed.
    """

    package: Literal["pyautoattack"]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.pt$")]
    sha256: Sha256


class CheckpointWeights(Strict):
    """Weights beside the card in another format: a state dict as torch saves it, and its SHA-256. Nothing in it is executed."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]+$", max_length=255)]
    sha256: Sha256


class ForeignWeights(Strict):
    """Weights that are published elsewhere and not here: what they are, and how they get here.

    Attributes:
        origin: their address, or who has them. format: of the file there. license: of the weights.
        how: the command that makes a card with weights of this name out of them, or what else to do.
    """

    origin: str
    format: Literal["edm-pkl", "state-dict"]
    license: str
    how: str


def _which_weights(value: Any) -> str:
    """Errors are then about the weights that were meant, not about every kind there is."""
    named = set(value if isinstance(value, Mapping) else type(value).model_fields if isinstance(value, BaseModel) else ())
    return "elsewhere" if "origin" in named else "package" if "package" in named else "here"


AnyWeights = Annotated[
    Annotated[Weights, Tag("here")] | Annotated[PackageWeights, Tag("package")] | Annotated[ForeignWeights, Tag("elsewhere")],
    Discriminator(_which_weights),
]


class ClassifierSpec(Strict):
    """An ordinary classifier: a network of :mod:`rdc_bench.networks` from images in [0, 1] to logits."""

    kind: Literal["classifier"]
    architecture: str
    config: dict[str, Any]
    weights: AnyWeights


class DenoiserSpec(Strict):
    """A denoiser: a preconditioning of :mod:`rdc_bench.diffusion` with its configuration. Not a classifier by itself."""

    kind: Literal["denoiser"]
    architecture: Literal["EDMPrecond", "VPPrecond", "VEPrecond"]
    config: dict[str, Any]
    weights: AnyWeights


class DiffusionClassifierSpec(Strict):
    """Arguments of :class:`rdc_bench.defenses.DiffusionClassifier` on the denoiser of another card."""

    kind: Literal["diffusion-classifier"]
    denoiser: PartName
    class_labels: tuple[int, ...] | None = None
    levels: Annotated[int, Field(ge=1)] = 16
    grid: Literal["log-normal", "gauss", "log-uniform", "uniform", "reference"] = "log-normal"
    log_mean: float = 0.0
    log_std: Annotated[float, Field(gt=0)] = 1.0
    weighting: Literal["edm", "elbo", "simple", "reference"] = "edm"
    noise: Literal["shared", "fresh", "fixed"] = "shared"
    antithetic: bool = False
    temperature: Annotated[float, Field(gt=0)] = 1.0
    rows_per_pass: Annotated[int, Field(ge=1)] = 128
    seed: int = 0


class MaximizationSpec(Strict):
    """Arguments of :class:`rdc_bench.defenses.LikelihoodMaximization` on the denoiser of another card."""

    denoiser: PartName
    eta: str = "8/255"
    steps: Annotated[int, Field(ge=1)] = 5
    step_size: Annotated[float, Field(gt=0)] = 0.1
    optimizer: Literal["adam", "normalized"] = "adam"
    sigma: tuple[float, float] = (0.4, 0.6)
    draws: Annotated[int, Field(ge=1)] = 1
    gradient: Literal["exact", "bpda"] = "exact"
    noise: Literal["shared", "fixed"] = "shared"
    rows_per_pass: Annotated[int, Field(ge=1)] = 128
    seed: int = 0


class RDCSpec(Strict):
    """Likelihood maximisation in front of the classifier of another card."""

    kind: Literal["rdc"]
    likelihood_maximization: MaximizationSpec
    classifier: PartName


class RobustBenchSpec(Strict):
    """A model of RobustBench's zoo, by its identifiers there. Needs the extra ``robustbench``."""

    kind: Literal["robustbench"]
    dataset: Literal["cifar10", "cifar100", "imagenet"]
    threat: Literal["Linf", "L2", "corruptions"]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

    @property
    def download(self) -> Path:
        """Where RobustBench's download of it lies."""
        return Path("models") / self.dataset / self.threat / f"{self.id}.pt"


class LibrarySpec(Strict):
    """A network of timm or torchvision behind its preprocessing, with weights of the user's. Needs the extra ``timm``.

    The images (C, H, W) and the number of classes are the card's.

    Attributes:
        architecture: its name in that library. mean, std: for each channel, of images in [0, 1]; the network sees
            ``(x − mean) / std``.
        resize: height and width that images are brought to first, by ``interpolation``; None leaves them as they are.
    """

    kind: Literal["timm", "torchvision"]
    architecture: Annotated[str, Field(pattern=rf"^{ARCHITECTURE.pattern}$", max_length=200)]
    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    resize: Annotated[int, Field(ge=1, le=4096)] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    weights: Annotated[Weights | CheckpointWeights, Field(union_mode="left_to_right")]

    @model_validator(mode="after")
    def _complete(self) -> LibrarySpec:
        if (self.resize is None) != (self.interpolation is None):
            raise ValueError("resize and interpolation belong together: both are given, or neither")
        return self


class ReportedSpec(Strict):
    """A competitor that is known by reported figures alone: nothing in this package builds it.

    Attributes: architecture: the network, for the tables. weights: where they are, or that there are none. missing: what it
        would take to run it here.
    """

    kind: Literal["reported"]
    architecture: str
    weights: str
    missing: str


class RegisteredSpec(Strict):
    """A model made by a registered function (``@rdc_bench.model``)."""

    kind: Literal["registered"]
    factory: str


ModelSpec = Annotated[
    ClassifierSpec
    | DenoiserSpec
    | DiffusionClassifierSpec
    | RDCSpec
    | RobustBenchSpec
    | LibrarySpec
    | ReportedSpec
    | RegisteredSpec,
    Field(discriminator="kind"),
]


class Training(Strict):
    """How the weights came about."""

    command: str
    seed: int
    images: int
    seconds: float
    data: str
    data_sha256: Sha256
    date: str
    versions: dict[str, str]


class Reported(Strict):
    """An accuracy published elsewhere.

    Attributes:
        metric: ``clean``; ``robust``, on average over the draws of a randomised model; ``worst``, right in every draw.
        percent: the figure as it is printed, in %.
        threat, eps: a threat model and its size; attack: as the source calls it. None for clean accuracy.
        n: test images; draws: judged for each of them. None where the source does not say.
        note: what a reader must know; needed where the figure is no count of images.
    """

    metric: Literal["clean", "robust", "worst"]
    percent: Annotated[str, Field(pattern=r"^(\d|[1-9]\d|100)(\.\d+)?$")]
    threat: Name | None = None
    eps: str | None = None
    attack: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    draws: Annotated[int, Field(ge=1)] = 1
    source: str
    note: str | None = None

    @property
    def value(self) -> float:
        """The accuracy as a fraction."""
        return float(Fraction(self.percent) / 100)

    @property
    def countable(self) -> bool:
        """Whether some whole number of the ``n`` images (and draws) makes this figure, rounded as it is printed.

        The test of Brown & Heathers 2017, "The GRIM test", doi 10.1177/1948550616673876.
        """
        if self.n is None:
            return True
        decimals = len(self.percent.partition(".")[2])
        total = self.n * (1 if self.metric == "worst" else self.draws)
        count = round(self.value * total)
        half_unit = Fraction(1, 2 * 10**decimals)
        printed = Fraction(self.percent)
        return any(abs(Fraction(100 * k, total) - printed) <= half_unit for k in (count - 1, count, count + 1))

    @model_validator(mode="after")
    def _complete(self) -> Reported:
        if (self.metric == "clean") != (self.threat is None) or (self.threat is None) != (self.eps is None):
            raise ValueError("robust accuracy needs a threat and its eps, clean accuracy has neither")
        if self.eps is not None:
            try:
                parse_eps(self.eps)
            except UserError as error:
                raise ValueError(str(error)) from error
        if not self.countable and not self.note:
            raise ValueError(f"{self.percent} % is no whole number of {self.n} images; say so in a note")
        return self


class ModelCard(Strict):
    """What a model is, where it comes from, and how to build it."""

    schema_version: Literal[1]
    name: Name
    title: str
    summary: str = ""
    role: Literal["defense", "baseline", "part"]
    dataset: str
    image_shape: tuple[int, int, int]
    num_classes: Annotated[int, Field(ge=2)]
    license: str
    source: str
    paper: str | None = None
    model: ModelSpec
    training: Training | None = None
    validation: dict[str, float] = Field(default_factory=dict)
    reported: list[Reported] = Field(default_factory=list)


def settings(spec: ModelSpec | Mapping[str, Any]) -> dict[str, Any]:
    """What decides a model's figures, as plain data: its specification, or the record of one in an earlier run.

    Options that are not given are left out, so that an option which is added later changes no earlier record.
    """
    recorded = spec if isinstance(spec, Mapping) else spec.model_dump(mode="json")
    return {key: value for key, value in recorded.items() if value is not None}


def settings_of(cards: Iterable[ModelCard]) -> dict[str, dict[str, Any]]:
    """The settings of a model's card and its parts', by the cards' names: with the weights, all that decides its figures."""
    return {card.name: settings(card.model) for card in cards}


def part_names(spec: ModelSpec) -> tuple[str, ...]:
    """The other cards that a model is made of, as its card names them."""
    if isinstance(spec, DiffusionClassifierSpec):
        return (spec.denoiser,)
    if isinstance(spec, RDCSpec):
        return (spec.likelihood_maximization.denoiser, spec.classifier)
    return ()
