"""``rdc-bench reproduce``."""

from __future__ import annotations

from pathlib import Path

import click

from rdc_bench.cli.options import (
    check_device,
    data_dir_option,
    device_option,
    download_option,
    json_option,
    print_json,
)


@click.command("reproduce")
@click.argument("name")
@click.option("--n", type=click.IntRange(1), help="Number of test images. Default: the recipe's.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder for results.")
@device_option
@data_dir_option
@download_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, name: str, n: int | None, out: Path, device: str, data_dir: Path | None, download: bool, as_json: bool
) -> None:
    """Carry out the runs behind a published table or figure, and write it again.

    NAME is a packaged recipe (`rdc-bench list recipes`), or the path of one. What is there already under OUT/NAME is not
    computed again, so an interrupted reproduction goes on.

    \b
    Examples:
      rdc-bench reproduce linf-table
      rdc-bench reproduce survival-fashion-mnist --n 32 --out trial
    """
    from rdc_bench.cli.progress import run_progress

    with run_progress() as progress:
        from rdc_bench.reporting.show import show_table
        from rdc_bench.reproduction.reproduce import reproduce
        from rdc_bench.reproduction.table import table

        check_device(device)
        options = {"device": device, "data_dir": data_dir, "allow_download": download}
        done = reproduce(name, n=n, out=out, progress=progress, say=lambda line: click.echo(line, err=True), **options)
    if as_json:
        print_json(done.as_json())
    else:
        show_table(table(done.rows), done.heading, done.footnotes)
        for path in done.written:
            click.echo(f"written: {path}", err=True)
    ctx.exit(0 if done.complete else 1)
