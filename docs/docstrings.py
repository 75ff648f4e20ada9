"""How the site reads docstrings: Sphinx roles are code, and one-line sections (``Raises: …``) stand on lines of their own."""

from __future__ import annotations

import re
from typing import Any

import griffe


def as_markdown(docstring: str) -> str:
    """A docstring's text as Markdown."""
    text = re.sub(r":(?:func|class|mod|meth|data|attr):`~?([^`]+)`", r"`\1`", docstring)
    return re.sub(r"\n+(Args|Attributes|Returns|Raises): (?=\S)", r"\n\n**\1:** ", text)


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe's hook for each object that it has read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
