"""Figures that others published, to stand beside a run's own: from the cards, each with its source.

They are of other images, other attacks and other machines, so nothing here is compared or tested against what was measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from rdc_bench.cards import ModelCard, Reported, card_names, read_card
from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError
from rdc_bench.results.schema import Manifest
from rdc_bench.results.statistics import wilson
from rdc_bench.results.summary import SENSES


class Elsewhere(NamedTuple):
    """One robust accuracy of a model under a run's threat, and the clean accuracy from the same source if there is one."""

    model: str
    title: str
    figure: Reported
    clean: Reported | None

    def as_row(self) -> dict[str, Any]:
        """The figure in the form of a measured row of ``rdc-bench report --json``, with null for what it does not say."""
        rate = _rate(self.figure)
        attack = self.figure.attack or "unstated"
        kind = "worst" if self.figure.metric == "worst" else "avg"
        unknown = dict.fromkeys(SENSES)
        return {
            "n": self.figure.n,
            "source": "reported",
            "cited": self.figure.source,
            "note": self.figure.note,
            "model": self.model,
            "title": self.title,
            "status": "reported",
            "clean": _rate(self.clean) if self.clean else None,
            "robust": {**unknown, "undecided": None, kind: rate},
            "attacks": {attack: {**unknown, "status": "reported", kind: rate}},
            "nfe_per_image": None,
            "seconds_per_image": None,
            "upper_bound": None,
            "doubts": [],
        }


def _rate(figure: Reported) -> dict[str, float | None]:
    """With Wilson's bounds where it is known of how many images it is."""
    if figure.n is None:
        return {"value": figure.value, "low": None, "high": None}
    return dict(wilson(figure.value, figure.n).as_json())


def readable_cards() -> list[ModelCard]:
    """Every model card here that has no fault; `rdc-bench list models` shows the others."""
    cards = []
    for path in card_names("models").values():
        with contextlib.suppress(UserError):
            cards.append(read_card(path, ModelCard))
    return cards


def reported_elsewhere(manifest: Manifest, cards: Iterable[ModelCard]) -> list[Elsewhere]:
    """What those of the cards that are for a run's dataset report under its threat at its size, the most robust first."""
    found = []
    eps = parse_eps(manifest.eps).value
    for card in cards:
        if card.dataset != manifest.dataset:
            continue
        clean = {(figure.source, figure.n): figure for figure in card.reported if figure.metric == "clean"}
        found += [
            Elsewhere(card.name, card.title, figure, clean.get((figure.source, figure.n)))
            for figure in card.reported
            if figure.threat == manifest.threat and figure.eps and parse_eps(figure.eps).value == eps
        ]
    return sorted(found, key=lambda row: (-row.figure.value, row.model))
