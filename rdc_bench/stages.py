"""How work that takes long says what it is doing. Whoever calls it decides whether and where that is shown."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Takes news of a piece of work: what is being done, and how far it is."""

    def __call__(self, what: str, done: int = 0, total: int | None = None, note: str = "") -> None:
        """``done`` of ``total`` units; ``total`` is None where nobody can say."""


def unheard(what: str, done: int = 0, total: int | None = None, note: str = "") -> None:
    """Report to nobody."""
