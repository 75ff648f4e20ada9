"""The YAML cards of models and threats: their schemas, and how a name leads to a card.

A bare name means a card: ``models/NAME.yaml`` (or ``models/NAME/NAME.yaml``) under the working directory first, then the
packaged ones. A path ends in ``.yaml``. Every other source is explicit (``hf://``, see :mod:`rdc_bench.parts`), and there is no
fall from one to another. Cards are data: nothing in them is executed, and the names in them point into this package's
registries only.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.hub.reference import is_reference, parse_reference

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def check_card_name(name: str) -> None:
    """Raise ``UserError`` for what cannot be a card's name, before work is done whose result it would name."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a card's name, which has a-z, 0-9, '.', '_' and '-' only; choose a --name")


#: How names in RobustBench's zoo begin.
ROBUSTBENCH = "robustbench:"


def is_elsewhere(name: str) -> bool:
    """Whether a name says that its card comes from elsewhere than a file here."""
    return is_reference(name) or name.startswith(ROBUSTBENCH)


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


class Strict(BaseModel):
    """Unknown fields are errors, and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


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
    ClassifierSpec | DenoiserSpec | DiffusionClassifierSpec | RDCSpec | RobustBenchSpec | ReportedSpec | RegisteredSpec,
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
    validation: dict[str, float] = {}
    reported: list[Reported] = []


class ThreatCard(Strict):
    """A threat model by name: its kind, its usual size, and where it is defined.

    Attributes: seen: whether models are commonly trained against it. All others make up the set ``unseen``.
    """

    schema_version: Literal[1]
    name: Name
    title: str
    kind: str
    default_eps: str
    unit: str
    paper: str
    seen: bool = False

    @field_validator("default_eps")
    @classmethod
    def _parses(cls, text: str) -> str:
        try:
            parse_eps(text)
        except UserError as error:
            raise ValueError(str(error)) from error
        return text


class LoadedCard(BaseModel):
    """A card, the file that it was read from, and the SHA-256 of that file.

    ``parts``: the cards that it names, by the names that it gives them. ``hub``: the repository and commit
    (``hf://owner/repo@commit``) that it came from, None for a local card.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    card: ModelCard
    path: Path
    sha256: str
    parts: Mapping[str, LoadedCard] = {}
    hub: str | None = None


#: libyaml reads a card ten times as fast as pure Python does, but PyYAML can be built without it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: How deep cards may name one another.
DEEPEST = 8

C = TypeVar("C", bound=Strict)


def packaged(folder: str) -> Path:
    """Where ``models`` or ``threat_models`` lie: inside an installed wheel, or at the top of a checkout."""
    installed = Path(__file__).parent / "_cards" / folder
    return installed if installed.is_dir() else Path(__file__).parents[1] / folder


def card_names(folder: str) -> dict[str, Path]:
    """Names and files of all cards that a bare name can lead to; the working directory's hide the packaged ones.

    A card may lie in a folder of its own (``models/NAME/NAME.yaml``), as converted weights do.
    """
    found: dict[str, Path] = {}
    for place in _places(folder):
        found |= {path.stem: path for path in sorted(place.glob("*/*.yaml")) if path.parent.name == path.stem}
        found |= {path.stem: path for path in sorted(place.glob("*.yaml"))}
    return found


def _places(folder: str) -> tuple[Path, Path]:
    """Where cards lie; the later place hides the earlier."""
    return packaged(folder), Path.cwd() / folder


def find_model_card(name: str) -> LoadedCard:
    """The model card that ``name`` (a bare name or a path to a ``.yaml`` file) leads to, without its parts."""
    return read_model_card(_find(name, "models", "model"))


def read_model_card(path: Path) -> LoadedCard:
    """The model card in a file, without its parts."""
    return LoadedCard(card=read_card(path, ModelCard), path=path, sha256=file_sha256(path))


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


def every_card(loaded: LoadedCard) -> Iterator[LoadedCard]:
    """The card and all its parts, each once, in the order in which they are named."""
    seen: set[Path] = set()

    def walk(card: LoadedCard) -> Iterator[LoadedCard]:
        if card.path not in seen:
            seen.add(card.path)
            yield card
            for part in card.parts.values():
                yield from walk(part)

    return walk(loaded)


def with_parts(loaded: LoadedCard, find: Callable[[str, tuple[Path, ...]], LoadedCard], above: tuple[Path, ...]) -> LoadedCard:
    """The card together with the cards that it names.

    Args: find: makes a name into a complete card, given the files of the cards that lead to it. above: those that led here.
    Raises: ``UserError`` for a card that is a part of itself, or that lies too deep.
    """
    if loaded.path in above:
        raise UserError(f"{loaded.path}: the card is a part of itself")
    if len(above) >= DEEPEST:
        raise UserError(f"{loaded.path}: more than {DEEPEST} cards that name one another")
    below = (*above, loaded.path)
    return loaded.model_copy(update={"parts": {name: find(name, below) for name in part_names(loaded.card.model)}})


def find_threat_card(name: str) -> ThreatCard:
    """The threat card that ``name`` leads to."""
    return read_card(_find(name, "threat_models", "threat"), ThreatCard)


def read_card(path: Path, schema: type[C]) -> C:
    """Read and validate one card. Errors name the file, the line and the field.

    A card is parsed once; the same file with the same text gives the same object again, so nobody may change what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return _parsed(path, text, schema)


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, text: str, schema: type[C]) -> C:
    try:
        data = yaml.load(text, Loader=_Loader)
        repeated = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML ({problem})") from error
    except (ValueError, RecursionError) as error:  # an impossible date, a number of ten thousand digits, nesting without end
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if repeated:  # a few lines of them can stand for more than fits into memory
        raise UserError(f"{path}: a card uses no YAML aliases (*name); write out what is repeated")
    if not isinstance(data, dict):
        raise UserError(f"{path}: a card is a mapping of fields, not {type(data).__name__}")
    try:
        card = schema.model_validate(data)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    name = getattr(card, "name", path.stem)
    if name != path.stem:
        raise UserError(f"{path}: the card is called {name!r}; card and file must have the same name")
    return card


def _explained(path: Path, text: str, error: ValidationError) -> UserError:
    """The first validation error as one line with file, line number, field, and close matches for a mistyped field."""
    first = error.errors()[0]
    # pydantic inserts the tag of a union member into the location; only keys of the file are meant here.
    field = [str(part) for part in first["loc"]]
    shown = ".".join(field)
    line = _line_of(text, field)
    if first["type"] == "extra_forbidden":
        return UserError(f"{path}:{line}: {unknown_name('field', field[-1], _fields(), 'Correct it or remove it.')}")
    return UserError(f"{path}:{line}: field {shown!r}: {first['msg']}")


def _fields() -> set[str]:
    """Every field that any card or part of a card has."""
    return {name for schema in Strict.__subclasses__() for name in schema.model_fields}


def _line_of(text: str, field: list[str]) -> int:
    """The line of the deepest part of ``field`` that appears as a key, in order."""
    line = 1
    lines = text.split("\n")
    for part in field:
        for i in range(line - 1, len(lines)):
            if re.match(rf"\s*(- )?['\"]?{re.escape(part)}['\"]?\s*:", lines[i]):
                line = i + 1
                break
    return line


def _find(name: str, folder: str, kind: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{kind} card {name}: no such file")
        return path
    if NAME.fullmatch(name):  # looked for by itself, which is quicker than among all
        for place in reversed(_places(folder)):
            for file in (f"{name}.yaml", f"{name}/{name}.yaml"):
                if (place / file).is_file():
                    return place / file
    names = card_names(folder)
    if name not in names:
        raise unknown_name(kind, name, names, f"`rdc-bench list {kind}s` shows them all; a path to a card ends in .yaml.")
    return names[name]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
