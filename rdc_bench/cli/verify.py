"""``rdc-bench verify``."""

from __future__ import annotations

from pathlib import Path

import click

from rdc_bench.cli.options import check_device, data_dir_option, device_option, json_option, print_json, with_plugins


@click.command("verify")
@click.argument("run_dir", type=click.Path(path_type=Path))
@device_option
@data_dir_option
@json_option
@with_plugins
@click.pass_context
def command(ctx: click.Context, /, run_dir: Path, device: str, data_dir: Path | None, as_json: bool) -> None:
    """Re-check every stored adversarial image of a run.

    Files against their SHA-256, images against the threat set, and the models' predictions, with the same draws, against the
    records. Exit code 1 when anything differs.

    \b
    Example:
      rdc-bench verify results/fashion-mnist-linf-8_255-quick-n32-1a2b3c4d
    """
    from rdc_bench.cli.progress import stages

    with stages() as report:
        from rdc_bench.api import verify

        check_device(device)
        found = verify(run_dir, device=device, data_dir=data_dir, report=report)
    if as_json:
        print_json({"run": found.run, "ok": found.ok, "models": found.models})
    else:
        for row in found.models:
            verdict = row["note"] or f"{row['outside']} outside the threat set, {row['differing']} with other predictions"
            click.echo(f"{row['model']}: {row['checked']} images checked, {verdict}")
        click.echo("verified" if found.ok else "NOT verified")
    ctx.exit(0 if found.ok else 1)
