"""What all pictures share. Importing it imports matplotlib, which takes long."""

from __future__ import annotations

import io
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Characters of a title that fit into an inch of the picture.
PER_INCH = 11


def title(axes: Axes, text: str, figure: Figure) -> None:
    """Write ``text`` above ``axes``, broken into lines that the width of ``figure`` holds."""
    lines = textwrap.fill(text, int(PER_INCH * figure.get_figwidth()))
    axes.set_title(plain(lines), loc="left", fontsize="medium")


def png(figure: Figure) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """``text`` as matplotlib should show it: names come from cards, and a dollar sign must not start a formula."""
    return text.replace("$", r"\$")
