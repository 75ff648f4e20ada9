"""From what the user asked for to a plan. Nothing is computed or written here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rdc_bench.attacks import ATTACKS, source_names
from rdc_bench.core.eps import Eps
from rdc_bench.core.errors import UserError
from rdc_bench.data import DATASETS, Dataset, dataset_of_models, load_dataset
from rdc_bench.evaluation.plan import Plan, PlannedAttack, PlannedModel, PlanSet, RunConfig, Skipped
from rdc_bench.evaluation.profiles import (
    DEFAULT_DATASET,
    DEFAULT_MODELS,
    Profile,
    attacks_under,
    default_attacks,
    profile,
    witnesses,
)
from rdc_bench.threats import Threat, make_threat, members
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.catalog import baselines
from rdc_bench.zoo.consistency import check_dataset
from rdc_bench.zoo.library_name import is_library_name, with_arguments
from rdc_bench.zoo.loading import classifies, resolve
from rdc_bench.zoo.parts import weight_files
from rdc_bench.zoo.reference import is_reference
from rdc_bench.zoo.registry import MODELS
from rdc_bench.zoo.schema import is_elsewhere

log = logging.getLogger(__name__)


def make_plan(config: RunConfig) -> Plan:
    """Resolve and check everything; nothing is computed or written yet. Raises ``UserError``."""
    prepared = _prepared(config)
    aim = _aimed(config, prepared)
    return _planned(aim, prepared, _dataset(config, prepared))


def make_plan_set(config: RunConfig) -> PlanSet:
    """A plan for each threat of the set ``config.threat``, the same as if that threat had been named alone.

    Threats that these models' images cannot carry, whose library is absent, or that none of the attacks named works under are
    left out and listed.

    Raises: ``UserError`` for an ``eps``, as each threat has a size of its own, for whatever is wrong whatever the threat, and
        when no threat is left.
    """
    if config.eps is not None:
        raise UserError(f"eps {config.eps} with {config.threat!r}: each threat of the set has its own size; name one threat")
    for attack in config.attacks:
        ATTACKS.get(attack)  # raises for a name that is wrong under any threat
    prepared = _prepared(config)
    aims: list[_Aim] = []
    skipped: list[Skipped] = []
    for name in members(config.threat):
        try:
            narrowed = _narrowed(config, name, prepared)
        except UserError as error:
            skipped.append(Skipped(name, str(error)))
        else:
            aims.append(_aimed(narrowed, prepared))
    if not aims:
        raise UserError(f"no threat of {config.threat!r} can be evaluated here; {skipped[0].threat}: {skipped[0].reason}")
    unused = set(config.attack_options).difference(*(aim.config.attack_options for aim in aims))
    if unused:
        _refuse(aims[0].attacks[0], unused)
    dataset = _dataset(config, prepared)
    return PlanSet(config.threat, [_planned(aim, prepared, dataset) for aim in aims], skipped)


def _narrowed(config: RunConfig, threat_name: str, prepared: _Prepared) -> RunConfig:
    """What one would ask for to evaluate one threat of the set: the attacks that work under it, and the options they take.

    Raises: ``UserError`` when there is no such attack, a library is absent, or the models' images cannot carry the threat.
    """
    kind = make_threat(threat_name, None, prepared.image_shape)[0].kind
    named = [name for name in config.attacks if kind in ATTACKS.get(name).threats]
    if config.attacks and not named:
        raise _unsuited(config.attacks[0], kind)
    takes: set[str] = set()
    for name in named or default_attacks(config.profile, kind):
        takes |= set(ATTACKS.get(name).options({}))  # raises when its library is absent
    options = {key: value for key, value in config.attack_options.items() if key in takes}
    return config.model_copy(update={"threat": threat_name, "attacks": tuple(named), "attack_options": options})


@dataclass(frozen=True)
class _Prepared:
    """What depends neither on the threat nor on the images."""

    profile: Profile
    repeats: int
    models: list[PlannedModel]
    dataset: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.models[0].card.image_shape

    @property
    def num_classes(self) -> int:
        return self.models[0].card.num_classes


class _Aim(NamedTuple):
    """What is done under one threat. ``config`` asks for that threat."""

    config: RunConfig
    threat: Threat
    eps: Eps
    attacks: list[PlannedAttack]


def _aimed(config: RunConfig, prepared: _Prepared) -> _Aim:
    threat, eps = make_threat(config.threat, config.eps, prepared.image_shape)
    attacks = _attacks(config, threat, prepared)
    if config.witness and not config.attacks:
        attacks += _witnesses(config.profile, threat, prepared.dataset)
    return _Aim(config, threat, eps, attacks)


def _planned(aim: _Aim, prepared: _Prepared, dataset: Dataset) -> Plan:
    note = _note(aim.config, prepared.profile)
    return Plan(aim.config, note, aim.threat, aim.eps, dataset, prepared.models, aim.attacks, prepared.repeats)


def _prepared(config: RunConfig) -> _Prepared:
    chosen = profile(config.profile)
    if config.n is not None and config.n < 1:
        raise UserError(f"n = {config.n}: at least one image is needed")
    repeats = chosen.repeats if config.repeats is None else config.repeats
    if repeats < 1:
        raise UserError(f"repeats = {repeats}: at least one is needed")
    if config.keep not in ("worst", "all"):
        raise UserError(f"keep {config.keep!r}: either 'worst' or 'all'")
    models = _models(config)
    if config.fixed_noise:
        models = _with_fixed_noise(models)
    dataset_name = config.dataset or models[0].card.dataset
    for planned in models:
        if planned.card.dataset != dataset_of_models(dataset_name):
            raise UserError(
                f"model {planned.card.name!r} is for dataset {planned.card.dataset!r}, not {dataset_name!r}: one dataset a run"
            )
    info = DATASETS.get(dataset_name)
    if info and info.shape and info.classes:  # known before the dataset is read, or even downloaded
        for planned in models:
            check_dataset(planned.card, dataset_name, info.shape, info.classes)
    first = models[0].card
    for planned in models[1:]:
        if planned.card.image_shape != first.image_shape:
            raise UserError(f"models {first.name!r} and {planned.card.name!r} take images of different shapes: one shape a run")
    return _Prepared(chosen, repeats, models, dataset_name)


def _dataset(config: RunConfig, prepared: _Prepared) -> Dataset:
    """The images; they come last, as they may have to be downloaded."""
    n = config.n or prepared.profile.n
    log.debug("reading %s", prepared.dataset)
    dataset = load_dataset(
        prepared.dataset,
        "test",
        n,
        data_dir=config.data_dir,
        allow_download=config.allow_download,
        channels=prepared.image_shape[0],
    )
    for planned in prepared.models:
        check_dataset(planned.card, dataset.name, dataset.image_shape, dataset.classes)
    return dataset


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
    planned = [plan_model(name) for name in _with_model_options(names, config)]
    seen: set[str] = set()
    for model in planned:
        if model.card.name in seen:
            raise UserError(f"model {model.card.name!r} is named twice")
        seen.add(model.card.name)
    return planned


def _with_model_options(names: Sequence[str], config: RunConfig) -> list[str]:
    """The names; those of libraries' networks with the run's options and dataset, where they say nothing themselves."""
    if config.model_options and not any(map(is_library_name, names)):
        raise UserError(
            f"model argument {next(iter(config.model_options))!r}: none of the models takes any; "
            "they are for timm:NAME and torchvision:NAME"
        )
    options = {**({"dataset": config.dataset} if config.dataset else {}), **config.model_options}
    return [with_arguments(name, options) if is_library_name(name) else name for name in names]


def _with_fixed_noise(models: list[PlannedModel]) -> list[PlannedModel]:
    """After each randomised model the same with its noise fixed. That a model is randomised shows only when it is there."""
    both: list[PlannedModel] = []
    for planned in models:
        both.append(planned)
        log.debug("loading %s, to see whether it is randomised", planned.name)
        if getattr(planned.load(), "stochastic", False):
            both.append(replace(planned, fixed_noise=True))
    if len(both) == len(models):
        raise UserError(f"fixed noise: none of the models is randomised ({', '.join(m.name for m in models)})")
    return both


def plan_model(name: str) -> PlannedModel:
    """Resolve one model's name without loading its weights."""
    found = resolve(name)
    if not isinstance(found, LoadedCard):
        digest = hashlib.sha256(found[0].model_dump_json().encode()).hexdigest()
        return PlannedModel(name, found, found[0], digest, {}, MODELS.entry(name).origin)
    origin = found.card.source if is_elsewhere(name) and not is_reference(name) else found.hub or f"card {found.path.name}"
    reference = found.reference or found.hub or name
    return PlannedModel(reference, classifies(found), found.card, found.sha256, weight_files(found), origin)


def _attacks(config: RunConfig, threat: Threat, prepared: _Prepared) -> list[PlannedAttack]:
    defaults: dict[str, dict[str, Any]] = {name: {} for name in config.attacks} or default_attacks(config.profile, threat.kind)
    unused = set(config.attack_options)
    planned = []
    for name, options in defaults.items():
        attack = ATTACKS.get(name)
        if threat.kind not in attack.threats:
            raise _unsuited(name, threat.kind)
        given = {k: v for k, v in config.attack_options.items() if k in attack.defaults}
        unused -= set(given)
        settled = attack.options({**options, **given})
        attack.check_together(settled, threat, prepared.num_classes)
        origin = ATTACKS.entry(attack.needs or name).origin
        planned.append(_with_sources(PlannedAttack(attack, settled, origin, eot_given="eot" in given), prepared.dataset))
    if unused:
        _refuse(planned[0], unused)
    return planned


def _witnesses(profile_name: str, threat: Threat, dataset: str) -> list[PlannedAttack]:
    """The witnesses of a profile. Where no baseline is here to make images on, those that search wait for no reason to."""
    able = [(witness, ATTACKS.get(witness.attack)) for witness in witnesses(profile_name, threat.kind)]
    here = [(w, attack) for w, attack in able if not attack.sources or baselines(dataset_of_models(dataset))]
    planned = []
    for witness, attack in here:
        origin = ATTACKS.entry(attack.needs or attack.name).origin
        made = _with_sources(PlannedAttack(attack, attack.options(witness.options), origin), dataset)
        planned.append(replace(made, witness=True, if_doubted=witness.if_doubted and len(here) == len(able)))
    return planned


def _with_sources(planned: PlannedAttack, dataset: str) -> PlannedAttack:
    """The same attack with the models it transfers from settled, if it is of that kind."""
    option = planned.attack.sources
    if not option:
        return planned
    named = planned.options[option]
    names = baselines(dataset_of_models(dataset)) if named == "auto" else source_names(named)
    if not names:
        raise UserError(f"attack {planned.label!r}: no baseline of {dataset} is here; name models with {option}=NAME,NAME")
    options = {**planned.options, option: ", ".join(names)}
    return replace(planned, options=options, sources=tuple(map(plan_model, names)))


def _unsuited(attack: str, kind: str) -> UserError:
    able = ", ".join(attacks_under(kind))
    return UserError(f"attack {attack!r} works under {', '.join(ATTACKS.get(attack).threats)}, not {kind}; try {able}")


def _refuse(planned: PlannedAttack, options: set[str]) -> None:
    """Raise for options that no attack takes, naming the nearest that there is."""
    planned.attack.options(dict.fromkeys(sorted(options)))
