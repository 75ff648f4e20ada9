"""One model in full: its card, its parts, its weights, and whether it runs here."""

from __future__ import annotations

from typing import Any

from rdc_bench.availability import Availability, availability
from rdc_bench.cards import DenoiserSpec, LoadedCard, every_card
from rdc_bench.model_registry import MODELS
from rdc_bench.parts import find_card, own_weights, weights_path


def describe(name: str) -> dict[str, Any]:
    """Everything that is known about a model, as plain data; nothing is loaded, and from the Hub only cards are fetched.

    Args: name: see :func:`rdc_bench.load_model`; denoisers are described too.
    Raises: ``UserError`` for a name that leads nowhere, and a card that is faulty.
    """
    if name in MODELS.names():
        card, _ = MODELS.get(name)
        parts, found, origin = [], Availability("registered"), MODELS.entry(name).origin
    else:
        loaded = find_card(name, weights=False)
        card, found, origin = loaded.card, availability(loaded), loaded.hub or str(loaded.path)
        parts = [_part(part) for part in every_card(loaded)]
    denoises = isinstance(card.model, DenoiserSpec)
    return {
        **card.model_dump(mode="json", include=_SHOWN),
        "kind": card.model.kind,
        "origin": origin,
        "runnable": found.runnable and not denoises,
        "state": found.state,
        "why": found.why or ("a denoiser; classifiers are built on it" if denoises else ""),
        "settings": card.model.model_dump(mode="json", exclude={"kind", "weights"}),
        "cards": parts,
        "training": card.training.model_dump(mode="json") if card.training else None,
        "validation": card.validation,
        "reported": [figure.model_dump(mode="json", exclude_none=True) for figure in card.reported],
    }


#: Fields of a card that are shown as they are.
_SHOWN = {"name", "title", "summary", "role", "dataset", "image_shape", "num_classes", "license", "source", "paper"}


def _part(loaded: LoadedCard) -> dict[str, Any]:
    """One card: where it came from, and its own weights."""
    row: dict[str, Any] = {
        "name": loaded.card.name,
        "kind": loaded.card.model.kind,
        "license": loaded.card.license,
        "origin": loaded.hub or str(loaded.path),
        "sha256": loaded.sha256,
        "weights": None,
    }
    if weights := own_weights(loaded):
        path = weights_path(loaded, weights)
        here = path.is_file()
        row["weights"] = {
            "file": weights.file,
            "sha256": weights.sha256,
            "path": str(path) if here else None,
            "bytes": path.stat().st_size if here else None,
        }
    return row
