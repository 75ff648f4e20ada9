"""What there is to choose from, for `rdc-bench list`: all of a kind as rows, or one of them in full. Nothing imports torch.

Facts on this package's own attacks and datasets come from :mod:`rdc_bench.index`; plugins are imported and asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rdc_bench import index
from rdc_bench.attacks import ATTACKS
from rdc_bench.availability import STATES, Availability, availability
from rdc_bench.cards import (
    DenoiserSpec,
    DiffusionClassifierSpec,
    LoadedCard,
    RDCSpec,
    ReportedSpec,
    card_names,
    find_threat_card,
)
from rdc_bench.consistency import check_parts
from rdc_bench.describe import describe
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.model_registry import MODELS, list_models
from rdc_bench.parts import find_card
from rdc_bench.reproduction.recipe import find_recipe, list_recipes
from rdc_bench.threats import SETS, THREATS, is_seen, list_threats, members

Row = dict[str, Any]


def models() -> list[Row]:
    """All models, whether each can be run here now, and what is missing; from the most to the least available.

    A faulty card is shown, not hidden.
    """
    rows = []
    for name in list_models():
        row: Row = {
            "name": name,
            "kind": None,
            "role": None,
            "dataset": None,
            "runnable": False,
            "state": None,
            "why": "",
            "title": "",
            "group": "faulty",
        }
        rows.append(row)
        try:
            if name in MODELS.names():
                card, found, group = MODELS.get(name)[0], Availability("registered"), "other"
            else:
                loaded = check_parts(find_card(name, download=False))
                card, found, group = loaded.card, availability(loaded), _group_of_model(loaded)
        except UserError as error:
            row["why"] = str(error)
            continue
        row |= {"kind": card.model.kind, "role": card.role, "dataset": card.dataset, "title": card.title, "group": group}
        row |= {"state": found.state, "why": found.why or found.state, "runnable": found.runnable}
        if isinstance(card.model, DenoiserSpec) and found.runnable:
            row |= {"runnable": False, "why": f"{found.state}; a denoiser, on which classifiers are built"}
    return sorted(rows, key=lambda row: STATES.index(row["state"]) if row["state"] else len(STATES))


def _group_of_model(loaded: LoadedCard) -> str:
    card, spec = loaded.card, loaded.card.model
    if isinstance(spec, ReportedSpec):
        return "reported"
    if isinstance(spec, DenoiserSpec):
        return "denoisers"
    if isinstance(spec, RDCSpec) and isinstance(loaded.parts[spec.classifier].card.model, DiffusionClassifierSpec):
        return "rdc"
    if isinstance(spec, RDCSpec | DiffusionClassifierSpec):
        return "parts"
    return "baselines" if card.role == "baseline" else "other"


def baselines(dataset: str) -> list[str]:
    """Names of the baselines for a dataset that can be run here now."""
    return [r["name"] for r in models() if r["runnable"] and r["role"] == "baseline" and r["dataset"] == dataset]


def attacks() -> list[Row]:
    """All attacks, the threats they work under and their options."""
    seen = _seen_kinds()
    return [_attack_row(_attack_facts(name), seen) for name in ATTACKS.names()]


def attack(name: str) -> Row:
    """One attack: its row, its documentation, its paper, and what is known of each option.

    ``needs``: the attack of another library that does its work. ``minimum_norm``: whether it seeks the nearest adversarial one.
    """
    facts = _attack_facts(name)
    shown = {"paper": _paper(facts), **{key: facts[key] for key in ("description", "needs", "minimum_norm", "settings")}}
    return {**_attack_row(facts, _seen_kinds()), **shown}


def _attack_facts(name: str) -> index.Facts:
    entry = ATTACKS.entry(name)
    indexed = {facts["name"]: facts for facts in index.read()["attacks"]} if entry.origin == "rdc_bench" else {}
    return {"origin": entry.origin, **(indexed.get(name) or index.attack_facts(ATTACKS.get(name)))}


def _seen_kinds() -> set[str]:
    return {_kind(threat) for threat in list_threats() if is_seen(threat)}


def _attack_row(facts: index.Facts, seen: set[str]) -> Row:
    options = {setting["name"]: setting["default"] for setting in facts["settings"]}
    group = "seen" if seen & set(facts["threats"]) else "unseen"
    row = {key: facts[key] for key in ("name", "threats", "access")}
    return {**row, "options": options, "origin": facts["origin"], "summary": facts["summary"], "group": group}


#: A reference in brackets, as summaries have it: with a year.
_CITATION = re.compile(r"\s*\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)")


def without_citations(summary: str) -> str:
    """A summary as a list has room for it."""
    return _CITATION.sub("", summary)


def _paper(facts: index.Facts) -> str:
    """The references of an attack's documentation, or else of the unseen threats that it was made for."""
    cited = _CITATION.findall(facts["description"])
    cards = [find_threat_card(name) for name in list_threats() if name in card_names("threat_models")]
    of_threats = [card.paper for card in cards if card.kind in facts["threats"] and not card.seen]
    return "; ".join(dict.fromkeys(cited or of_threats))


def threats() -> list[Row]:
    """All threat models with their default sizes, then the sets of them."""
    rows: list[Row] = []
    for name in list_threats():
        row = {"name": name, "title": "", "default_eps": "", "seen": is_seen(name), "members": None, "unit": "", "paper": ""}
        row["group"] = "seen" if row["seen"] else "unseen"
        if name in card_names("threat_models"):
            card = find_threat_card(name)
            row |= {"title": card.title, "default_eps": card.default_eps, "unit": card.unit, "paper": card.paper}
        else:
            row["title"] = f"registered by {THREATS.entry(name).origin}"
        rows.append(row)
    for name, threat_set in SETS.items():
        of_set = {"title": f"set: {threat_set.title}", "default_eps": "each its own", "seen": None, "members": members(name)}
        rows.append({"name": name, **of_set, "unit": "", "paper": "", "group": "sets"})
    return rows


def threat(name: str) -> Row:
    """One threat model or set: its row, and the attacks that work under it."""
    row = _named("threat", name, threats())
    return {**row, "attacks": [attack["name"] for attack in choose("attacks", attacks(), threat=name)]}


def _kind(threat: str) -> str:
    """What attacks call a threat model; without a card it is its own kind."""
    return find_threat_card(threat).kind if threat in card_names("threat_models") else threat


def datasets() -> list[Row]:
    """All datasets, with the image shape and number of classes of those where they are fixed."""
    return [{**facts, "group": ""} for facts in index.read()["datasets"]]


def recipes() -> list[Row]:
    """All packaged recipes, for `rdc-bench reproduce`."""
    found = [find_recipe(name).model_dump(mode="json") for name in list_recipes()]
    return [{**{key: r[key] for key in ("name", "title", "dataset", "threat", "eps", "n")}, "group": ""} for r in found]


def recipe(name: str) -> Row:
    """One recipe: its question, its size, and the models and attacks of its runs."""
    found = find_recipe(name)
    shown = found.model_dump(
        mode="json", include={"name", "title", "question", "dataset", "threat", "eps", "profile", "n", "repeats"}
    )
    models = dict.fromkeys(model for step in found.steps for model in step.models)
    attacks = dict.fromkeys(attack for step in found.steps for attack in step.attacks)
    return {**shown, "models": list(models), "attacks": list(attacks)}


def _named(kind: str, name: str, rows: list[Row]) -> Row:
    """The row of that name. Raises ``UserError`` with close matches when there is none."""
    found = {row["name"]: row for row in rows}
    if name not in found:
        raise unknown_name(kind, name, found, f"`rdc-bench list {kind}s` shows them all.")
    return found[name]


class Catalog(NamedTuple):
    """One kind of things.

    Attributes:
        rows: all of them. one: everything about one by its name. groups: what the groups of the rows are, in their order.
        filters: the fields by which rows can be chosen.
    """

    rows: Callable[[], list[Row]]
    one: Callable[[str], Row]
    filters: tuple[str, ...] = ()
    groups: Mapping[str, str] = {"": ""}


CATALOGS = {
    "models": Catalog(
        models,
        describe,
        ("dataset", "runnable"),
        {
            "rdc": "Robust Diffusion Classifiers (RDC)",
            "parts": "parts of an RDC by themselves, the other one left out or replaced",
            "baselines": "baselines",
            "other": "other models",
            "denoisers": "denoisers, on which classifiers are built",
            "reported": "known by reported figures only",
            "faulty": "cards with faults",
        },
    ),
    "attacks": Catalog(
        attacks,
        attack,
        ("threat",),
        {"seen": "under ℓp threats, which models are commonly trained against", "unseen": "under unseen threats"},
    ),
    "threats": Catalog(
        threats,
        threat,
        (),
        {
            "seen": "ℓp threats, which models are commonly trained against",
            "unseen": "unseen threats, which models are not commonly trained against",
            "sets": "sets of threats",
        },
    ),
    "datasets": Catalog(datasets, lambda name: _named("dataset", name, datasets())),
    "recipes": Catalog(recipes, recipe, ("dataset", "threat")),
}


def choose(
    what: str, rows: list[Row], *, dataset: str | None = None, threat: str | None = None, runnable: bool = False
) -> list[Row]:
    """Those of the rows of a catalog that are for a dataset, work under a threat (or some threat of a set), or run here now.

    Raises: ``UserError`` for a filter that this catalog has not, and for a dataset or threat that there is not.
    """
    for name in [name for name, given in (("dataset", dataset), ("threat", threat), ("runnable", runnable)) if given]:
        if name not in CATALOGS[what].filters:
            where = " and ".join(kind for kind, catalog in CATALOGS.items() if name in catalog.filters)
            raise UserError(f"--{name} does not filter {what}; it filters {where}")
    if dataset:
        known = {row["name"] for row in datasets()} | {row["dataset"] for row in rows if row["dataset"]}
        if dataset not in known:
            raise unknown_name("dataset", dataset, known, "`rdc-bench list datasets` shows them all.")
        rows = [row for row in rows if row["dataset"] == dataset]
    if threat:
        _named("threat", threat, threats())
        kinds = {_kind(name) for name in (members(threat) if threat in SETS else [threat])}
        rows = [row for row in rows if kinds & set(row["threats"] if what == "attacks" else [_kind(row["threat"])])]
    return [row for row in rows if row["runnable"]] if runnable else rows
