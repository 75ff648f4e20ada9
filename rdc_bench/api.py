"""The library behind the command line: run, report, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdc_bench.core.errors import UserError
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.run import RunResult
from rdc_bench.evaluation.run import run as _run
from rdc_bench.evaluation.run_set import RunSet, run_set
from rdc_bench.evaluation.tally import Progress, Say
from rdc_bench.evaluation.verify import Verification, verify_run
from rdc_bench.reporting import Format, check_report, compare, write_report
from rdc_bench.threats import SETS

__all__ = ["report", "run", "verify"]


def run(
    models: Sequence[str] | None = None,
    threat: str = "linf",
    eps: str | float | None = None,
    attacks: Sequence[str] | None = None,
    *,
    attack_options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    n: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    profile: str = "quick",
    out: str | Path = "results",
    progress: Progress = lambda step: None,
    say: Say = lambda line: None,
    **more: Any,
) -> RunResult | RunSet:
    """Attack models and write the results under ``out``.

    A set of threats (``unseen``, ``all``) makes one run for each of its threats, at that threat's usual size, and returns a
    :class:`~rdc_bench.evaluation.run_set.RunSet`; any other threat makes one run and returns a
    :class:`~rdc_bench.evaluation.run.RunResult`. Both have ``summary()``, ``as_json()`` and ``complete``.

    The same arguments resume an unfinished run and return a finished one. None leaves the choice to the profile, the threat's
    card or the models.

    Args:
        models: names, see :func:`rdc_bench.load_model`.
        threat: the name of a threat model or of a set. eps: its size, e.g. ``"8/255"``; none for a set.
        attacks: names; ``attack_options`` are passed to every attack that takes them.
        model_options: arguments of models named ``timm:NAME`` or ``torchvision:NAME``, e.g. ``{"checkpoint": "my.pt"}``
            (:class:`rdc_bench.zoo.library_name.LibraryArguments`). What such a name says itself comes first.
        n: images, the first of the test split. repeats: fresh draws that judge each image of a randomised model.
        profile: ``quick``, ``standard`` or ``paper``. progress: called after every shard. say: told, in a line
            each, what is worth knowing of the models.
        more: ``fixed_noise`` (attack each randomised model with its noise fixed as well), ``witness`` (False leaves out the
            attacks that check the others), ``fresh``, ``engine`` (``local``, or
            ``ray`` for a cluster), ``device``, ``keep`` (``worst`` or ``all`` adversarial images), ``data_dir``,
            ``allow_download``.
    Raises: ``UserError`` for bad input, and when another process is at work on the same run, and ``OSError`` where ``out``
        cannot be written, both before anything is computed. Later, ``OSError`` (a full disk) and ``KeyboardInterrupt``: what
        was done is kept, and the same arguments go on from there.
    """
    asked = {
        "models": tuple(models or ()),
        "threat": threat,
        "eps": None if eps is None else str(eps),
        "attacks": tuple(attacks or ()),
        "attack_options": dict(attack_options or {}),
        "model_options": dict(model_options or {}),
        "dataset": dataset,
        "n": n,
        "repeats": repeats,
        "seed": seed,
        "profile": profile,
        "out": out,
    }
    try:
        config = RunConfig.model_validate({**asked, **more})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    return run_set(config, progress, say) if threat in SETS else _run(config, progress, say)


def report(
    results: str | Path = "results", out: str | Path = "results/report", formats: Sequence[Format] = ("markdown", "csv", "png")
) -> list[Path]:
    """Write tables (Markdown, CSV) and a figure per run of all complete runs under ``results``; returns the paths written."""
    check_report(Path(out), formats)
    return write_report(compare(Path(results)), Path(out), formats)


def verify(run_dir: str | Path, **options: Any) -> Verification:
    """Re-check every stored adversarial image of a run, see :func:`rdc_bench.evaluation.verify.verify_run`."""
    return verify_run(Path(run_dir), **options)
