"""``rdc-bench diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rdc_bench.cli.options import check_device, data_dir_option, device_option, json_option, print_json, with_plugins


@click.command("diagnose")
@click.argument("model")
@click.option("--threat", default="linf", show_default=True, help="Threat model: linf or l2.")
@click.option("--eps", help="Size of the perturbation, e.g. 8/255 or 0.5. Default: the threat's usual size.")
@click.option("--n", type=int, default=32, show_default=True, help="Number of test images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw.")
@click.option(
    "--surrogate",
    "surrogates",
    multiple=True,
    help="Model to transfer adversarial images from. May be repeated. Default: every baseline of the dataset that runs here.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Results folder whose tables shall show what was found.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write diagnosis.json and the plots here too.")
@device_option
@data_dir_option
@json_option
@with_plugins
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    results: Path,
    out: Path | None,
    surrogates: tuple[str, ...],
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Look for signs that a model's gradients are masked, so that it only looks robust.

    Writes diagnosis.json and a plot for each check into RESULTS/diagnosis/, where `run` and `report` find them and mark models
    that failed. Exit code 1 when a check fails.

    \b
    Examples:
      rdc-bench diagnose at-linf-fashion-mnist
      rdc-bench diagnose dc-fashion-mnist --threat linf --eps 8/255 --n 32
      rdc-bench diagnose --plugin examples/masked_defense.py quantized-fashion-mnist
    """
    from rdc_bench.cli.progress import stages

    with stages() as report:
        from rdc_bench.diagnostics import diagnose
        from rdc_bench.errors import UserError
        from rdc_bench.files import check_writable
        from rdc_bench.reporting.diagnosis import pictures
        from rdc_bench.reporting.show import show_diagnosis
        from rdc_bench.results.diagnosis import folder_of, write_diagnosis

        check_device(device)
        for option, folder in (("--results", results), ("--out", out)):
            if folder is not None:
                if folder.exists() and not folder.is_dir():
                    raise UserError(f"{option} {folder}: is a file, not a folder")
                check_writable(folder)
        diagnosis = diagnose(model, device=device, surrogates=surrogates or None, report=report, **options)
        report("drawing")
        drawn = pictures(diagnosis)
    if as_json:
        print_json(diagnosis.as_json())
    else:
        show_diagnosis(diagnosis)
    for folder in dict.fromkeys([folder_of(results, diagnosis), out]):
        if folder is not None:
            for path in write_diagnosis(folder, diagnosis, drawn):
                click.echo(f"written: {path}", err=True)
    ctx.exit(1 if diagnosis.verdict == "fail" else 0)
