"""``rdc-bench list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rdc_bench.cli.options import json_option, print_json, with_plugins

if TYPE_CHECKING:
    from rdc_bench.zoo.catalog import Row

#: What a line for other programs holds, in this order: fields of `--json`, and the row's group.
PIPED = {
    "models": ("name", "group", "dataset", "runnable", "state", "title", "why"),
    "attacks": ("name", "group", "threats", "access", "origin", "summary"),
    "threats": ("name", "group", "default_eps", "title", "unit", "paper"),
    "datasets": ("name", "shape", "classes", "summary"),
    "recipes": ("name", "dataset", "threat", "eps", "n", "title"),
}

#: What a terminal has room for; the last is a text that may be cut.
SHOWN = {
    "models": ("name", "dataset", "state", "title"),
    "attacks": ("name", "threats", "access", "summary"),
    "threats": ("name", "default_eps", "title"),
    "datasets": ("name", "shape", "classes", "summary"),
    "recipes": ("name", "dataset", "threat", "eps", "n", "title"),
}

NOTES = {
    "models": "Classifiers that are bundled, local, cached or registered run here; `--runnable` shows these alone. "
    "`rdc-bench models info NAME` says all about one, and what it lacks.",
    "attacks": "And by class name: foolbox:NAME, torchattacks:NAME and art:NAME, where these libraries are installed. "
    "`rdc-bench list attacks NAME` shows an attack's options and paper.",
    "threats": "`rdc-bench list threats NAME` shows unit, paper and attacks.",
    "recipes": "`rdc-bench list recipes NAME` shows what it asks and runs; `rdc-bench reproduce NAME` runs it.",
}

#: Threats of an attack that a table names.
FEW = 3


@click.command("list")
@click.argument("what", metavar="models|attacks|threats|datasets|recipes")
@click.argument("name", required=False)
@click.option("--dataset", help="Models and recipes for this dataset.")
@click.option("--threat", help="Attacks and recipes under this threat model, or under some threat of this set.")
@click.option("--runnable", is_flag=True, help="Models that can be run here now.")
@json_option
@with_plugins
def command(what: str, name: str | None, dataset: str | None, threat: str | None, runnable: bool, as_json: bool) -> None:
    """Show what there is: models, attacks, threats, datasets, or recipes to reproduce. With NAME, everything about one of them.

    Attacks of other libraries go by class name (foolbox:NAME, torchattacks:NAME, art:NAME) and are not listed.

    \b
    Examples:
      rdc-bench list models --dataset fashion-mnist --runnable
      rdc-bench list attacks --threat linf
      rdc-bench list attacks pgd
      rdc-bench list threats --json
      rdc-bench list attacks --threat unseen | cut -f1

    \b
    Into a pipe or a file goes one row a line, without a head; tabs separate
      models    name, group, dataset, runnable (yes or no), state, title, what is missing
      attacks   name, group, threats, access, origin, summary
      threats   name, group, default eps, title, unit, paper
      datasets  name, shape, classes, summary
      recipes   name, dataset, threat, eps, images, title
    """
    from rdc_bench.cli.catalog import CATALOGS, choose
    from rdc_bench.cli.table import on_terminal, tabbed
    from rdc_bench.core.errors import UserError, unknown_name

    if what not in CATALOGS:
        raise unknown_name("list", what, CATALOGS, f"There are: {', '.join(CATALOGS)}.")
    if name is not None:
        if dataset or threat or runnable:
            raise UserError("--dataset, --threat and --runnable choose among many; leave them out, or leave out NAME")
        _show_one(what, CATALOGS[what].one(name), as_json)
        return
    rows = choose(what, CATALOGS[what].rows(), dataset=dataset, threat=threat, runnable=runnable)
    if as_json:
        print_json([{key: value for key, value in row.items() if key != "group"} for row in rows])
    elif on_terminal():
        _show_groups(what, rows)
    else:
        for row in (row for group in CATALOGS[what].groups for row in rows if row["group"] == group):
            click.echo(tabbed(_cell(row, field) for field in PIPED[what]))
    if not rows:
        click.echo(f"no {what} match", err=True)


def _show_groups(what: str, rows: list[Row]) -> None:
    from rdc_bench.cli.catalog import CATALOGS, without_citations
    from rdc_bench.cli.table import Column, heading, prose, table, width

    columns = [Column(field.replace("_", " "), prose=field == SHOWN[what][-1]) for field in SHOWN[what]]
    for group, title in CATALOGS[what].groups.items():
        cells = [[without_citations(_short(row, field)) for field in SHOWN[what]] for row in rows if row["group"] == group]
        if not cells:
            continue
        heading(title, width())
        head, *lines = table(columns, cells, width())
        click.secho(head, dim=True)
        click.echo("\n".join(lines) + "\n")
    for line in prose(NOTES.get(what, ""), width()):
        click.echo(line)


def _short(row: Row, field: str) -> str:
    """A cell of a table: of many threats the first few, as one attack under all of them would push every other column out."""
    threats = row.get("threats", ())
    if field == "threats" and len(threats) > FEW:
        return f"{', '.join(threats[:FEW])}, {len(threats) - FEW} more"
    return _cell(row, field)


def _show_one(what: str, facts: Row, as_json: bool) -> None:
    if as_json:
        print_json({key: value for key, value in facts.items() if key != "group"})
    elif what == "models":
        from rdc_bench.cli.model_table import show_model

        show_model(facts)
    else:
        _show_facts(facts)


def _show_facts(facts: Row) -> None:
    """Each field but those that another one says better; an attack's options in a block of their own."""
    from rdc_bench.cli.table import definitions, heading, on_terminal, tabbed, width

    settings = facts.get("settings", [])
    implied = {"group", "settings", "options", "summary"} if settings or "description" in facts else {"group"}
    told = [(key.replace("_", " "), _cell(facts, key)) for key in facts if key not in implied]
    options = [(setting["name"], _setting(setting)) for setting in settings]
    if not on_terminal():
        for term, text in [*told, *((f"option {name}", text) for name, text in options)]:
            click.echo(tabbed((term, text)))
        return
    for line in definitions(told, width()):
        click.echo(line)
    if options:
        click.echo()
        heading("options, for --attack-arg NAME=VALUE", width())
        for line in definitions(options, width()):
            click.echo(line)


def _setting(setting: Row) -> str:
    """What values an option takes, its default and its help; choices by themselves say that they are texts."""
    kind, allowed = setting["type"], setting["allowed"]
    takes = allowed if kind == "str" and allowed else ", ".join(filter(None, (kind, allowed)))
    return f"{takes}; default {setting['default']}" + (f": {_plain(setting['help'])}" if setting["help"] else "")


def _cell(row: Row, field: str) -> str:
    value: Any = row[field]
    if field == "why" and value == row["state"]:
        return ""
    if field == "shape":
        return "" if value is None else "x".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else _plain(str(value))


def _plain(text: str) -> str:
    """A text without the marks that docstrings put around code."""
    return text.replace("``", "")
