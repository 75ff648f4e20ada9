"""Titles of pictures."""

from matplotlib.figure import Figure
from matplotlib.text import Text

from rdc_bench.reporting import drawing


def test_a_long_title_stays_inside_the_picture():
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    text = "How much of the robustness survives " * 6
    drawing.title(axes, text, figure)
    figure.draw_without_rendering()
    (title,) = axes.findobj(lambda artist: isinstance(artist, Text) and artist.get_text().startswith("How"))
    assert title.get_window_extent().x1 <= figure.bbox.x1
    assert axes.get_title(loc="left").split() == text.split()
