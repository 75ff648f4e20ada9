"""What a user asks for, and the plan that it becomes: every name resolved, every value checked; and what identifies a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from rdc_bench.attacks import Attack
from rdc_bench.core.eps import Eps
from rdc_bench.data import Dataset
from rdc_bench.defenses.fixed_noise import fixed_noise
from rdc_bench.results.schema import AttackEntry
from rdc_bench.threats import Threat
from rdc_bench.zoo.cards import LoadedCard, every_card
from rdc_bench.zoo.loading import Resolved, load_resolved
from rdc_bench.zoo.schema import ModelCard, settings_of

#: Raised when the meaning of stored results changes, so that older ones are not taken up again.
IDENTITY_VERSION = 2


class RunConfig(BaseModel):
    """What the user asks for; None means that the profile, the threat's card or the models decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threat: str = "linf"
    eps: str | None = None
    models: tuple[str, ...] = ()
    model_options: dict[str, Any] = {}
    dataset: str | None = None
    attacks: tuple[str, ...] = ()
    attack_options: dict[str, Any] = {}
    n: int | None = None
    repeats: int | None = None
    seed: int = 0
    profile: str = "quick"
    out: Path = Path("results")
    fresh: bool = False
    engine: str = "local"
    device: str = "cpu"
    keep: str = "worst"
    data_dir: Path | None = None
    allow_download: bool = False
    fixed_noise: bool = False
    witness: bool = True


@dataclass(frozen=True)
class PlannedModel:
    """A model to evaluate: what its name led to, its card, and the digests that identify it.

    ``reference`` leads to the same model later: what comes from the Hub is named by its commit. ``fixed_noise``: this is the
    variant whose noise is the same for every image and call.
    """

    reference: str
    found: Resolved
    card: ModelCard
    card_sha256: str
    weights: dict[str, str]
    origin: str
    fixed_noise: bool = False

    @property
    def name(self) -> str:
        """What tables and records call it: the card's name, and whether the noise is fixed."""
        return f"{self.card.name} (fixed noise)" if self.fixed_noise else self.card.name

    def load(self) -> nn.Module:
        """The classifier itself."""
        model = load_resolved(self.found)
        return fixed_noise(model) if self.fixed_noise else model

    @property
    def cards(self) -> list[ModelCard]:
        """The model's card and those of all its parts, each once."""
        return [part.card for part in every_card(self.found)] if isinstance(self.found, LoadedCard) else [self.card]

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What decides the model's figures besides its weights, by the names of its cards."""
        return settings_of(self.cards)

    @property
    def identity(self) -> list[Any]:
        """What decides its figures."""
        return [self.name, self.settings, sorted(self.weights.items())]


@dataclass(frozen=True)
class PlannedAttack:
    """An attack with all its options, and the models that it transfers images from.

    ``witness``: it is shown images that all other attacks left standing; ``if_doubted``: and only where there is reason to.
    ``eot_given``: the user has said how many draws it averages per step; else it is as many as a model's gradients need.
    """

    attack: Attack
    options: dict[str, Any]
    origin: str
    sources: tuple[PlannedModel, ...] = ()
    witness: bool = False
    if_doubted: bool = False
    eot_given: bool = False

    @property
    def label(self) -> str:
        """The name shown in tables."""
        return self.attack.name

    @property
    def identity(self) -> list[Any]:
        """What decides its results: with its options the models it transfers from, and the version of the library it is of."""
        return [
            self.label,
            self.attack.in_force(self.options),
            *([self.origin] if ":" in (self.attack.needs or self.label) else []),
            *(source.identity for source in self.sources),
            *(["witness", self.if_doubted] if self.witness else []),
            # Another number than the default shows in the options; saying the default itself means no more than that.
            *(["eot given"] if self.eot_given and self.options["eot"] == self.attack.defaults["eot"] else []),
        ]

    @property
    def entry(self) -> AttackEntry:
        """What the manifest says of it."""
        a = self.attack
        return AttackEntry(
            name=a.name, label=self.label, origin=self.origin, gradient=a.gradient, options=self.options, witness=self.witness
        )


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
        """A digest of all that changes the numbers; engine, device, shard size and folders are left out."""
        facts = {
            "version": IDENTITY_VERSION,
            "threat": self.config.threat,
            "eps": str(self.eps.value),
            "data": self.dataset.sha256,
            "models": [m.identity for m in self.models],
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
        dataset = self.dataset.name.replace(":", "_")
        parts = (dataset, self.config.threat, eps, self.config.profile, f"n{len(self.dataset)}", self.identity[:8])
        return "-".join(parts)


@dataclass(frozen=True)
class Skipped:
    """A threat of a set that cannot be evaluated here, and why not."""

    threat: str
    reason: str


@dataclass(frozen=True)
class PlanSet:
    """A plan for each threat of a set that can be evaluated here, and the threats that cannot."""

    name: str
    plans: list[Plan]
    skipped: list[Skipped]
