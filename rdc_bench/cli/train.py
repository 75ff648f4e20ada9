"""``rdc-bench train``. An option that is wrong by itself is refused before data are looked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rdc_bench.cli.options import check_device, data_dir_option, device_option, download_option

if TYPE_CHECKING:
    from rdc_bench.core.stages import Report
    from rdc_bench.training.job import Job


class Number(click.FloatRange):
    """A number within a range, which a NaN is not, nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or click's error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


FOLDER = click.Path(path_type=Path, file_okay=False)
CHANNELS = click.IntRange(1)


@click.group("train")
def command() -> None:
    """Train denoisers, multi-head students and baselines.

    Checkpoints let an interrupted training go on exactly where it was; at the end the weights and a card are written.

    \b
    Examples:
      rdc-bench train diffusion --name teacher-fashion-mnist --images 900000
      rdc-bench train multihead --name multihead-fashion-mnist --teacher teacher-fashion-mnist --images 200000
      rdc-bench train baseline --name at-linf-fashion-mnist --method pgd --threat linf --eps 8/255
    """


def _with(options: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds click options, shown in the order given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _shared(images: int, learning_rate: float, ema: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that all trainings have."""
    options = [
        click.option("--name", required=True, help="Name of the card and of the weights."),
        click.option("--dataset", default="fashion-mnist", show_default=True, help="Dataset to train on."),
        click.option(
            "--images", default=images, show_default=True, type=click.IntRange(1), help="Training images seen in all."
        ),
        click.option("--batch-size", default=128, show_default=True, type=click.IntRange(1)),
        click.option("--learning-rate", default=learning_rate, show_default=True, type=Number(0, min_open=True)),
        click.option(
            "--ema",
            default=ema,
            show_default=True,
            type=Number(0, 1, max_open=True),
            help="Decay of the weights' average; 1 / (1 − EMA) steps must be few against the training's. 0: no average.",
        ),
        click.option("--flip/--no-flip", default=False, show_default=True, help="Mirror half of the images."),
        click.option(
            "--shift", default=0, show_default=True, type=click.IntRange(0), help="Move images by up to so many pixels."
        ),
        click.option(
            "--precision",
            default="float32",
            show_default=True,
            type=click.Choice(["float32", "bfloat16"]),
            help="Of products and convolutions; bfloat16 is faster where the processor knows it, weights stay in float32.",
        ),
        click.option("--seed", default=0, show_default=True, type=int),
        click.option("--out", type=FOLDER, default=Path("models"), show_default=True, help="For card and weights."),
        click.option("--checkpoints", type=FOLDER, default=Path("checkpoints"), show_default=True),
        click.option("--fresh", is_flag=True, help="Throw an earlier checkpoint away."),
        device_option,
        data_dir_option,
        download_option,
    ]

    return _with(options)


_noise = _with(
    [
        click.option("--log-mean", default=0.2, show_default=True, type=Number(-10, 10), help="Mean of ln σ."),
        click.option(
            "--log-std",
            default=0.9,
            show_default=True,
            type=Number(0, 10, min_open=True),
            help="Standard deviation of ln σ.",
        ),
    ]
)
_bayes = click.option(
    "--bayes-weight",
    default=0.0,
    show_default=True,
    type=Number(0),
    help="Weight of the cross-entropy of Bayes' rule, which trains the classifier besides the likelihood.",
)
_network = _with(
    [
        click.option(
            "--patch", default=2, show_default=True, type=click.IntRange(1), help="Pixels per side folded into channels."
        ),
        click.option("--fine", default=32, show_default=True, type=CHANNELS, help="Channels at 1/patch of the resolution."),
        click.option("--coarse", default=96, show_default=True, type=CHANNELS, help="Channels at half of that."),
        click.option("--head", default=64, show_default=True, type=CHANNELS, help="Channels of the class-specific path."),
        click.option(
            "--head-blocks",
            default=2,
            show_default=True,
            type=click.IntRange(0),
            help="Residual blocks of the class-specific path.",
        ),
    ]
)


@command.command("diffusion")
@_shared(images=900_000, learning_rate=1e-3, ema=0.999)
@_noise
@click.option("--start", help="Card of an earlier denoiser to go on from; its shape is kept.")
@click.option("--label-dropout", default=0.1, show_default=True, type=Number(0, 1), help="Share of labels dropped.")
@click.option(
    "--rivals", default=2, show_default=True, type=click.IntRange(1), help="Wrong classes per image, with --bayes-weight."
)
@_bayes
@click.option(
    "--bayes-eps",
    help="Train on images shifted against Bayes' rule by so much, for example 8/255; see docs/explanation/method.md.",
)
@click.option(
    "--bayes-shift",
    default="both",
    show_default=True,
    type=click.Choice(["both", "target", "exact"]),
    help="What --bayes-eps shifts: the image under the noise and its target, the target alone, or both "
    "along the exact gradient.",
)
@_network
def diffusion(
    start: str | None,
    log_mean: float,
    log_std: float,
    label_dropout: float,
    rivals: int,
    bayes_weight: float,
    bayes_eps: str | None,
    bayes_shift: Any,
    patch: int,
    fine: int,
    coarse: int,
    head: int,
    head_blocks: int,
    **options: Any,
) -> None:
    """Train a class-conditional denoiser with the EDM loss."""
    from rdc_bench.cli.progress import stages

    network = {"patch": patch, "fine": fine, "coarse": coarse, "head": head, "head_blocks": head_blocks}
    with stages() as report:
        from rdc_bench.threats import make_threat
        from rdc_bench.training.runs import train_diffusion

        job = _job(options, report)
        shift = 0.0 if bayes_eps is None else float(make_threat("linf", bayes_eps, job.image_shape)[1])
        path = train_diffusion(
            job,
            start=start,
            log_mean=log_mean,
            log_std=log_std,
            label_dropout=label_dropout,
            rivals=rivals,
            bayes_weight=bayes_weight,
            bayes_eps=shift,
            shifted=bayes_shift,
            network=network,
        )
    click.echo(path)


@command.command("multihead")
@_shared(images=200_000, learning_rate=5e-4, ema=0.99)
@_noise
@click.option("--teacher", required=True, help="Card of the class-conditional denoiser to distil.")
@click.option("--start", help="Card of an earlier student to go on from. Default: the teacher's weights.")
@click.option("--heads", default=2, show_default=True, type=click.IntRange(1), help="Wrong classes per image and step.")
@click.option(
    "--loss-weight",
    default=0.02,
    show_default=True,
    type=Number(0),
    help="Weight of matching the classes' diffusion losses.",
)
@_bayes
def multihead(
    log_mean: float,
    log_std: float,
    teacher: str,
    start: str | None,
    heads: int,
    loss_weight: float,
    bayes_weight: float,
    **options: Any,
) -> None:
    """Distil a class-conditional denoiser into a multi-head one."""
    from rdc_bench.cli.progress import stages

    with stages() as report:
        from rdc_bench.training.runs import train_multihead

        path = train_multihead(
            _job(options, report),
            teacher=teacher,
            start=start,
            log_mean=log_mean,
            log_std=log_std,
            heads=heads,
            loss_weight=loss_weight,
            bayes_weight=bayes_weight,
        )
    click.echo(path)


@command.command("baseline")
@_shared(images=150_000, learning_rate=2e-3, ema=0.99)
@click.option("--method", type=click.Choice(["standard", "pgd", "trades"]), required=True)
@click.option("--threat", default="linf", show_default=True, help="linf or l2 (adversarial training).")
@click.option("--eps", help="Default: the threat's usual size.")
@click.option("--inner-steps", default=3, show_default=True, type=click.IntRange(1), help="Steps of the attack in training.")
@click.option("--beta", default=6.0, show_default=True, type=Number(0), help="TRADES' trade-off.")
def baseline(method: Any, threat: str, eps: str | None, inner_steps: int, beta: float, **options: Any) -> None:
    """Train a baseline classifier: standard, PGD adversarial training or TRADES."""
    from rdc_bench.cli.progress import stages

    with stages() as report:
        from rdc_bench.core.errors import UserError
        from rdc_bench.threats import LpThreat, make_threat
        from rdc_bench.training.runs import train_baseline

        job = _job(options, report)
        inside, size = make_threat(threat, eps, job.image_shape)
        if not isinstance(inside, LpThreat):
            raise UserError(f"adversarial training works under linf and l2, not {threat}")
        path = train_baseline(
            job,
            method=method,
            threat=inside,
            eps=size,
            inner_steps=inner_steps,
            beta=beta,
            network={},
        )
    click.echo(path)


def _job(options: dict[str, Any], report: Report) -> Job:
    from rdc_bench.training.job import Job
    from rdc_bench.training.loop import Schedule

    check_device(options["device"])
    keys = ("images", "batch_size", "learning_rate", "ema", "flip", "shift", "precision", "seed")
    schedule = Schedule(**{key: options.pop(key) for key in keys})
    return Job(schedule=schedule, allow_download=options.pop("download"), report=report, **options)
