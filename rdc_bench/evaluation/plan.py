"""From what the user asked for to a plan in which every name is resolved and every value checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rdc_bench.attacks import ATTACKS, Attack
from rdc_bench.cards import LoadedCard, ModelCard, settings_of
from rdc_bench.consistency import check_dataset
from rdc_bench.data import DATASETS, Dataset, load_dataset
from rdc_bench.eps import Eps
from rdc_bench.errors import UserError
from rdc_bench.evaluation.profiles import DEFAULT_DATASET, DEFAULT_MODELS, Profile, default_attacks, profile
from rdc_bench.loading import MODELS, Resolved, classifies, resolve
from rdc_bench.parts import every_card, is_elsewhere, weight_files
from rdc_bench.threats import Threat, make_threat

#: Raised when the meaning of stored results changes, so that older ones are not taken up again.
IDENTITY_VERSION = 2


class RunConfig(BaseModel):
    """What the user asks for; None means that the profile, the threat's card or the models decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threat: str = "linf"
    eps: str | None = None
    models: tuple[str, ...] = ()
    dataset: str | None = None
    attacks: tuple[str, ...] = ()
    attack_options: dict[str, Any] = {}
    n: int | None = None
    repeats: int | None = None
    seed: int = 0
    profile: str = "quick"
    out: Path = Path("results")
    fresh: bool = False
    device: str = "cpu"
    keep: str = "worst"
    data_dir: Path | None = None
    allow_download: bool = False


@dataclass(frozen=True)
class PlannedModel:
    """A model to evaluate: what its name led to, its card, and the digests that identify it.

    ``reference`` leads to the same model later: what comes from the Hub is named by its commit.
    """

    reference: str
    found: Resolved
    card: ModelCard
    card_sha256: str
    weights: dict[str, str]
    origin: str

    @property
    def cards(self) -> list[ModelCard]:
        """The model's card and those of all its parts, each once."""
        return [part.card for part in every_card(self.found)] if isinstance(self.found, LoadedCard) else [self.card]

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What decides the model's figures besides its weights, by the names of its cards."""
        return settings_of(self.cards)


@dataclass(frozen=True)
class PlannedAttack:
    """An attack with all its options."""

    attack: Attack
    options: dict[str, Any]
    origin: str

    @property
    def label(self) -> str:
        """The name shown in tables."""
        return self.attack.name

    @property
    def identity(self) -> list[Any]:
        """What decides its results; for an attack of another library, that library's version as well."""
        return [
            self.label,
            self.attack.in_force(self.options),
            *([self.origin] if ":" in (self.attack.needs or self.label) else []),
        ]


@dataclass(frozen=True)
class Plan:
    """Everything an evaluation needs."""

    config: RunConfig
    note: str
    threat: Threat
    eps: Eps
    dataset: Dataset
    models: list[PlannedModel]
    attacks: list[PlannedAttack]
    repeats: int

    @property
    def identity(self) -> str:
        """A digest of all that changes the numbers; device, shard size and folders are left out."""
        facts = {
            "version": IDENTITY_VERSION,
            "threat": self.config.threat,
            "eps": str(self.eps.value),
            "data": self.dataset.sha256,
            "models": [[m.card.name, m.settings, sorted(m.weights.items())] for m in self.models],
            "attacks": [a.identity for a in self.attacks],
            "repeats": self.repeats,
            "seed": self.config.seed,
            "pyautoattack": metadata.version("pyautoattack"),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Readable name of the run's folder, unique to its identity."""
        eps = self.eps.text.replace("/", "_").replace(" ", "")
        parts = (self.dataset.name, self.config.threat, eps, self.config.profile, f"n{len(self.dataset)}", self.identity[:8])
        return "-".join(parts)


def make_plan(config: RunConfig) -> Plan:
    """Resolve and check everything; nothing is computed or written yet. Raises ``UserError``."""
    chosen = profile(config.profile)
    if config.n is not None and config.n < 1:
        raise UserError(f"n = {config.n}: at least one image is needed")
    repeats = chosen.repeats if config.repeats is None else config.repeats
    if repeats < 1:
        raise UserError(f"repeats = {repeats}: at least one is needed")
    if config.keep not in ("worst", "all"):
        raise UserError(f"keep {config.keep!r}: either 'worst' or 'all'")
    models = _models(config)
    dataset_name = config.dataset or models[0].card.dataset
    for planned in models:
        if planned.card.dataset != dataset_name:
            raise UserError(
                f"model {planned.card.name!r} is for dataset {planned.card.dataset!r}, not {dataset_name!r}: one dataset a run"
            )
    info = DATASETS.get(dataset_name)
    if info and info.shape and info.classes:  # known before the dataset is read, or even downloaded
        for planned in models:
            check_dataset(planned.card, dataset_name, info.shape, len(info.classes))
    threat, eps = make_threat(config.threat, config.eps, models[0].card.image_shape)
    attacks = _attacks(config, threat)
    dataset = load_dataset(
        dataset_name, "test", config.n or chosen.n, data_dir=config.data_dir, allow_download=config.allow_download
    )
    for planned in models:
        check_dataset(planned.card, dataset.name, dataset.image_shape, len(dataset.classes))
    return Plan(config, _note(config, chosen), threat, eps, dataset, models, attacks, repeats)


def _note(config: RunConfig, chosen: Profile) -> str:
    """What the profile is good for, and what the user changed in it, which may make that untrue."""
    changes = {"n": config.n, "repeats": config.repeats, "attacks": config.attacks, "attack options": config.attack_options}
    changed = [name for name, value in changes.items() if value]
    return f"{chosen.note}; changed from the profile: {', '.join(changed)}" if changed else chosen.note


def _models(config: RunConfig) -> list[PlannedModel]:
    names: Sequence[str] = config.models
    if not names:
        dataset = config.dataset or DEFAULT_DATASET
        if dataset not in DEFAULT_MODELS:
            raise UserError(f"no default models for dataset {dataset!r}; name them with --model")
        names = DEFAULT_MODELS[dataset]
    planned = [plan_model(name) for name in names]
    seen: set[str] = set()
    for model in planned:
        if model.card.name in seen:
            raise UserError(f"model {model.card.name!r} is named twice")
        seen.add(model.card.name)
    return planned


def plan_model(name: str) -> PlannedModel:
    """Resolve one model's name without loading its weights."""
    found = resolve(name)
    if not isinstance(found, LoadedCard):
        digest = hashlib.sha256(found[0].model_dump_json().encode()).hexdigest()
        return PlannedModel(name, found, found[0], digest, {}, MODELS.entry(name).origin)
    origin = found.hub or (found.card.source if is_elsewhere(name) else f"card {found.path.name}")
    return PlannedModel(found.hub or name, classifies(found), found.card, found.sha256, weight_files(found), origin)


def _attacks(config: RunConfig, threat: Threat) -> list[PlannedAttack]:
    defaults: dict[str, dict[str, Any]] = {name: {} for name in config.attacks} or default_attacks(config.profile, threat.kind)
    unused = set(config.attack_options)
    planned = []
    for name, options in defaults.items():
        attack = ATTACKS.get(name)
        if threat.kind not in attack.threats:
            able = [other for other in ATTACKS.names() if threat.kind in ATTACKS.get(other).threats]
            raise UserError(
                f"attack {name!r} works under {', '.join(attack.threats)}, not {threat.kind}; try {', '.join(able)}"
            )
        given = {k: v for k, v in config.attack_options.items() if k in attack.defaults}
        unused -= set(given)
        planned.append(PlannedAttack(attack, attack.options({**options, **given}), ATTACKS.entry(attack.needs or name).origin))
    if unused:
        planned[0].attack.options(dict.fromkeys(sorted(unused)))  # raises, naming the nearest option
    return planned
