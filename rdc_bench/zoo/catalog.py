"""Which models there are, and which of them can be run here now. Nothing imports torch."""

from __future__ import annotations

from typing import Any

from rdc_bench.core.errors import UserError
from rdc_bench.zoo.availability import STATES, Availability, availability
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.consistency import check_parts
from rdc_bench.zoo.parts import find_card
from rdc_bench.zoo.registry import MODELS, list_models
from rdc_bench.zoo.schema import DenoiserSpec, DiffusionClassifierSpec, RDCSpec, ReportedSpec

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
