"""What there is to choose from, as rows for `rdc-bench list`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rdc_bench.attacks import ATTACKS
from rdc_bench.availability import STATES, Availability, availability
from rdc_bench.cards import DenoiserSpec, card_names, find_threat_card
from rdc_bench.consistency import check_parts
from rdc_bench.data import DATASETS
from rdc_bench.errors import UserError
from rdc_bench.loading import MODELS, list_models
from rdc_bench.parts import find_card
from rdc_bench.threats import SETS, THREATS, is_seen, list_threats, members


def models() -> list[dict[str, Any]]:
    """All models, whether each can be run here now, and what is missing; from the most to the least available.

    A faulty card is shown, not hidden.
    """
    rows = []
    for name in list_models():
        row: dict[str, Any] = {
            "name": name,
            "kind": None,
            "role": None,
            "dataset": None,
            "runnable": False,
            "state": None,
            "why": "",
            "title": "",
        }
        rows.append(row)
        try:
            if name in MODELS.names():
                card, found = MODELS.get(name)[0], Availability("registered")
            else:
                loaded = check_parts(find_card(name, download=False))
                card, found = loaded.card, availability(loaded)
        except UserError as error:
            row["why"] = str(error)
            continue
        row |= {"kind": card.model.kind, "role": card.role, "dataset": card.dataset, "title": card.title}
        row |= {"state": found.state, "why": found.why or found.state, "runnable": found.runnable}
        if isinstance(card.model, DenoiserSpec) and found.runnable:
            row |= {"runnable": False, "why": f"{found.state}; a denoiser, on which classifiers are built"}
    return sorted(rows, key=lambda row: STATES.index(row["state"]) if row["state"] else len(STATES))


def baselines(dataset: str) -> list[str]:
    """Names of the baselines for a dataset that can be run here now."""
    return [r["name"] for r in models() if r["runnable"] and r["role"] == "baseline" and r["dataset"] == dataset]


def attacks() -> list[dict[str, Any]]:
    """All attacks, the threats they work under and their options."""
    found = [(ATTACKS.get(name), ATTACKS.entry(name).origin) for name in ATTACKS.names()]
    return [
        {
            "name": a.name,
            "threats": list(a.threats),
            "access": a.gradient,
            "options": a.defaults,
            "origin": origin,
            "summary": a.summary,
        }
        for a, origin in found
    ]


def threats() -> list[dict[str, Any]]:
    """All threat models with their default sizes, then the sets of them."""
    rows: list[dict[str, Any]] = []
    for name in list_threats():
        row = {"name": name, "title": "", "default_eps": "", "seen": is_seen(name), "members": None, "unit": "", "paper": ""}
        if name in card_names("threat_models"):
            card = find_threat_card(name)
            row |= {"title": card.title, "default_eps": card.default_eps, "unit": card.unit, "paper": card.paper}
        else:
            row["title"] = f"registered by {THREATS.entry(name).origin}"
        rows.append(row)
    for name, threat_set in SETS.items():
        of_set = {"title": f"set: {threat_set.title}", "default_eps": "each its own", "seen": None, "members": members(name)}
        rows.append({"name": name, **of_set, "unit": "", "paper": ""})
    return rows


def datasets() -> list[dict[str, Any]]:
    """All datasets, with the image shape and number of classes of those where they are fixed."""
    return [
        {
            "name": info.name,
            "shape": list(info.shape) if info.shape else None,
            "classes": len(info.classes) if info.classes else None,
            "summary": info.summary,
        }
        for info in DATASETS.values()
    ]


def recipes() -> list[dict[str, Any]]:
    """All packaged recipes, for `rdc-bench reproduce`."""
    from rdc_bench.reproduction.recipe import find_recipe, list_recipes  # comes with all that carries recipes out

    found = [find_recipe(name) for name in list_recipes()]
    return [{"name": r.name, "title": r.title, "dataset": r.dataset, "threat": r.threat, "eps": r.eps, "n": r.n} for r in found]


CATALOGS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": models,
    "attacks": attacks,
    "threats": threats,
    "datasets": datasets,
    "recipes": recipes,
}
