"""The card of a threat model, and how a name leads to it."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from rdc_bench.core.card_files import Name, Strict, find_card_file, read_card
from rdc_bench.core.eps import parse_eps
from rdc_bench.core.errors import UserError


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


def find_threat_card(name: str) -> ThreatCard:
    """The threat card that ``name`` leads to."""
    return read_card(find_card_file(name, "threat_models", "threat"), ThreatCard)
