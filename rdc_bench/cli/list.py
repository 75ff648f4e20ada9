"""``rdc-bench list``."""

from __future__ import annotations

from typing import Any

import click

from rdc_bench.cli.options import json_option, print_json, with_plugins


@click.command("list")
@click.argument("what", metavar="models|attacks|threats|datasets|recipes")
@json_option
@with_plugins
def command(what: str, as_json: bool) -> None:
    """Show what there is: models, attacks, threats, datasets, or recipes to reproduce.

    \b
    Examples:
      rdc-bench list models
      rdc-bench list attacks --json
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rdc_bench.catalog import CATALOGS
    from rdc_bench.errors import unknown_name

    if what not in CATALOGS:
        raise unknown_name("list", what, CATALOGS, f"There are: {', '.join(CATALOGS)}.")
    rows: list[dict[str, Any]] = CATALOGS[what]()
    if as_json:
        print_json(rows)
        return
    table = Table()
    columns = [column for column in (rows[0] if rows else ("name",)) if column not in _JSON_ONLY.get(what, ())]
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_text(row[column])) for column in columns))
    Console().print(table)
    if what in _NOTES:
        click.echo(_NOTES[what])


#: Columns that a terminal has no room for, and that others imply.
_JSON_ONLY = {"models": ("kind", "role", "runnable"), "threats": ("members",)}

_NOTES = {"attacks": "And by class name: foolbox:NAME, torchattacks:NAME and art:NAME, where these libraries are installed."}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
