"""What all pictures share. Importing it imports matplotlib, which takes long."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """``text`` as matplotlib should show it: names come from cards, and a dollar sign must not start a formula."""
    return text.replace("$", r"\$")
