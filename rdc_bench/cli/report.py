"""``rdc-bench report``."""

from __future__ import annotations

from pathlib import Path

import click

from rdc_bench.cli.options import json_option, print_json


@click.command("report")
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the files written. Default: RESULTS/report.")
@click.option(
    "--format", "formats", multiple=True, help="markdown, csv, png (the default: these three) or robustbench. May be repeated."
)
@json_option
def command(results: Path, out: Path | None, formats: tuple[str, ...], as_json: bool) -> None:
    """Compare models over all stored runs in RESULTS (default: results).

    Prints the tables, and writes them as Markdown and CSV with a figure for each run, and with accuracy against every eps for
    runs that hold a minimum-norm attack (fmn, ddn, fab); as robustbench, the files that its leaderboard takes. Reads only what
    `rdc-bench run` stored.

    \b
    Examples:
      rdc-bench report
      rdc-bench report results --format markdown --out tables
      rdc-bench report results/RUN --format robustbench
      rdc-bench report --json
    """
    from rdc_bench.reporting import DEFAULT_FORMATS, check_report, compare, write_report
    from rdc_bench.reporting.show import show

    out, formats = out or results / "report", formats or DEFAULT_FORMATS
    check_report(out, formats)
    comparisons = compare(results)
    paths = write_report(comparisons, out, formats)
    if as_json:
        print_json(comparisons.as_json())
        return
    show(comparisons)
    for path in paths:
        click.echo(f"written: {path}", err=True)
