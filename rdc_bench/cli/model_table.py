"""One model on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_model(facts: dict[str, Any]) -> None:
    """Print what :func:`rdc_bench.zoo.describe.describe` says of a model as tables on stdout."""
    console = Console()
    about = Table(title=escape(f"{facts['name']}: {facts['title']}"), title_justify="left", show_header=False)
    about.add_column(style="bold")
    about.add_column(overflow="fold")
    for name, value in _rows(facts):
        if value:
            about.add_row(escape(name), escape(str(value)))
    console.print(about)
    if facts["cards"]:
        console.print(_cards(facts["cards"]))


def _rows(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = [
        ("", facts["summary"]),
        ("kind", f"{facts['kind']} ({facts['role']})"),
        ("runs here", f"{'yes' if facts['runnable'] else 'no'}: {facts['why'] or facts['state']}"),
        ("data", f"{facts['dataset']}, {'×'.join(map(str, facts['image_shape']))}, {facts['num_classes']} classes"),
        ("licence", facts["license"]),
        ("from", facts["origin"]),
        ("source", facts["source"]),
        ("paper", facts["paper"]),
        ("settings", _listed(facts["settings"])),
        ("validation", _listed(facts["validation"])),
    ]
    if training := facts["training"]:
        on = f"{training['images']} images of {training['data']}, {training['seconds']:.0f} s, {training['date']}"
        rows += [("trained with", training["command"]), ("trained on", on)]
    for figure in facts["reported"]:
        under = f" under {figure['threat']} {figure['eps']}" if "threat" in figure else ""
        rows.append((f"reported {figure['metric']}{under}", f"{figure['percent']} % ({figure['source']})"))
    return rows


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _cards(cards: list[dict[str, Any]]) -> Table:
    table = Table(title="cards and weights", title_justify="left")
    for column in ("card", "kind", "licence", "weights", "bytes", "SHA-256"):
        table.add_column(column, overflow="fold")
    for card in cards:
        weights = card["weights"] or {"file": "–", "bytes": "–", "sha256": "–"}
        size = "not here" if weights["bytes"] is None else weights["bytes"]
        cells = (card["name"], card["kind"], card["license"], weights["file"], size, weights["sha256"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table
