"""``rdc-bench run``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rdc_bench.cli.options import (
    check_device,
    data_dir_option,
    device_option,
    download_option,
    json_option,
    print_json,
    with_plugins,
)


@click.command("run")
@click.option(
    "--threat",
    default="linf",
    show_default=True,
    help="Threat model, or a set of them: unseen, all. `list threats` shows them.",
)
@click.option("--eps", help="Size of the perturbation, e.g. 8/255 or 0.5. Default: the threat's usual size.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Model to attack: a name, a card's path, hf://owner/repo, timm:NAME or torchvision:NAME. May be repeated. "
    "Default: the RDC, its parts, baselines.",
)
@click.option(
    "--model-arg",
    "model_args",
    multiple=True,
    metavar="KEY=VALUE",
    help="Argument of the models named timm:NAME or torchvision:NAME, e.g. checkpoint=FILE. May be repeated.",
)
@click.option("--dataset", help="Dataset. Default: the models'.")
@click.option("--attack", "attacks", multiple=True, help="Attack to use. May be repeated. Default: those of the profile.")
@click.option(
    "--attack-arg",
    "attack_args",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option for the attacks that take it. May be repeated.",
)
@click.option("--n", type=int, help="Number of test images. Default: the profile's.")
@click.option("--repeats", type=int, help="Fresh draws that judge each image of a randomised model. Default: the profile's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw.")
@click.option("--profile", default="quick", show_default=True, help="Amount of effort: quick, standard or paper.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder for results.")
@click.option(
    "--fixed-noise",
    is_flag=True,
    help="Besides each randomised model, attack the same with its noise fixed, as a row of its own.",
)
@click.option(
    "--witness/--no-witness",
    default=True,
    show_default=True,
    help="Check what the profile's attacks leave standing by attacks that need no gradient of the model.",
)
@click.option("--fresh", is_flag=True, help="Start anew beside an earlier run of the same plan.")
@click.option(
    "--keep", type=click.Choice(["worst", "all"]), default="worst", show_default=True, help="Adversarial images to store."
)
@click.option(
    "--engine",
    default="local",
    show_default=True,
    help="Where images are attacked: local, or ray for a cluster (docs/how-to/run-on-a-cluster-or-gpu.md).",
)
@device_option
@data_dir_option
@download_option
@json_option
@with_plugins
@click.pass_context
def command(
    ctx: click.Context,
    /,
    as_json: bool,
    device: str,
    attack_args: tuple[str, ...],
    model_args: tuple[str, ...],
    download: bool,
    **options: Any,
) -> None:
    """Attack models and store what came of it.

    An unfinished run goes on where it stopped when the same command is given again.

    \b
    Examples:
      rdc-bench run --threat linf --eps 8/255
      rdc-bench run --threat l2 --eps 0.5 --model rdc-fashion-mnist --model at-l2-fashion-mnist
      rdc-bench run --threat stadv --eps 0.05 --profile standard
      rdc-bench run --threat unseen --n 32
      rdc-bench run --model hf://owner/repo@v1.0 --model at-linf-fashion-mnist
      rdc-bench run --model timm:resnet18 --model-arg checkpoint=my.safetensors --dataset cifar10
      rdc-bench run --attack pgd --attack-arg steps=100 --attack-arg eot=4
      rdc-bench run --plugin my_attack.py --attack my-attack
      rdc-bench run --profile standard --engine ray
    """
    from rdc_bench.cli.progress import run_progress

    with run_progress() as progress:
        from rdc_bench.api import run
        from rdc_bench.evaluation.run_set import RunSet

        check_device(device)
        options |= {"device": device, "allow_download": download}
        options |= {
            "attack_options": _parsed(attack_args),
            "model_options": dict(_pairs("--model-arg", model_args, "checkpoint=FILE")),
        }
        result = run(progress=progress, say=lambda line: click.echo(line, err=True), **options)
    from rdc_bench.reporting import compare
    from rdc_bench.reporting.show import show, show_set

    runs = result.runs if isinstance(result, RunSet) else [result]
    for entry in runs[0].manifest.models:
        if entry.sources:
            click.echo(f"model {entry.name}: from {', '.join(entry.sources)}", err=True)
    if isinstance(result, RunSet):
        for skipped in result.skipped:
            click.echo(f"threat {skipped.threat}: skipped: {skipped.reason}", err=True)
    if as_json:
        print_json(result.as_json())
    elif isinstance(result, RunSet):
        show_set(result.table, [run.path for run in result.runs])
    else:
        show(compare(result.path))
    ctx.exit(0 if result.complete else 1)


def _pairs(option: str, texts: tuple[str, ...], example: str) -> Iterator[tuple[str, str]]:
    """Key and value of each ``KEY=VALUE``."""
    from rdc_bench.core.errors import UserError

    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {text!r}: write KEY=VALUE, e.g. {example}")
        yield key, value


def _parsed(attack_args: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` with the value read as YAML would: a number, true/false, or text."""
    import yaml

    from rdc_bench.core.errors import UserError

    options: dict[str, Any] = {}
    for key, value in _pairs("--attack-arg", attack_args, "steps=100"):
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--attack-arg {f'{key}={value}'!r}: {value!r} is no number, true, false or text") from error
        if isinstance(options[key], str):
            with contextlib.suppress(ValueError):
                options[key] = float(value)  # YAML takes 1e-3 for text
    return options
