"""``rdc-bench doctor``: what an installation can do, and what stands in its way."""

from __future__ import annotations

import importlib.metadata
import platform
import warnings
from typing import NamedTuple

import click

from rdc_bench.cli.options import json_option, print_json
from rdc_bench.core.errors import UserError

PACKAGES = ("torch", "pyautoattack", "numpy", "pandas", "pyarrow", "safetensors", "pydantic", "huggingface_hub")


@click.command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """What is installed, which device, which caches; what would fail, and how to mend it.

    Exit code 1 when the default run would fail.
    """
    from rdc_bench.cli.progress import stages

    with stages("examining this installation"):
        findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mend = f" → {finding.mend}" if finding.mend else ""
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.found}{mend}")
    ctx.exit(0 if all(finding.ok for finding in findings) else 1)


class Finding(NamedTuple):
    """One thing looked at. ``ok`` False means that a default run would fail; ``mend`` says what to do."""

    what: str
    ok: bool
    found: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at packages, devices, cards, weights, data and plugins."""
    import torch
    from huggingface_hub import constants

    from rdc_bench.attacks import list_attacks
    from rdc_bench.core.card_files import packaged
    from rdc_bench.data.files import cache_dir
    from rdc_bench.evaluation.profiles import DEFAULT_DATASET, DEFAULT_MODELS
    from rdc_bench.zoo.loading import load_model

    offline = " (offline: HF_HUB_OFFLINE)" if constants.is_offline_mode() else ""
    findings = [
        Finding("rdc-bench", True, f"{importlib.metadata.version('rdc-bench')} on Python {platform.python_version()}"),
        Finding("packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)),
        Finding(
            "device",
            True,
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads",
        ),
        Finding("cards", packaged("models").is_dir(), str(packaged("models")), "reinstall rdc-bench"),
        Finding("cache", True, str(cache_dir())),
        Finding("Hugging Face Hub", True, f"{constants.ENDPOINT}{offline}, cache {constants.HF_HUB_CACHE}"),
    ]
    for name in DEFAULT_MODELS[DEFAULT_DATASET]:
        try:
            load_model(name)
            findings.append(Finding(f"model {name}", True, "loads"))
        except UserError as error:
            findings.append(Finding(f"model {name}", False, str(error), "reinstall rdc-bench"))
    findings.append(_data(DEFAULT_DATASET, "test images", "test", 1000, needed=True))
    findings.append(_data(DEFAULT_DATASET, "training images", "train", None, needed=False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attacks = list_attacks()
    findings.append(Finding("attacks", True, ", ".join(attacks)))
    findings += [Finding("plugin", True, str(w.message), "uninstall or repair it") for w in caught]
    return findings


def _data(name: str, what: str, split: str, n: int | None, *, needed: bool) -> Finding:
    from rdc_bench.data import load_dataset

    try:
        dataset = load_dataset(name, split, n)
    except UserError as error:
        return Finding(f"{name} {what}", not needed, str(error))
    return Finding(f"{name} {what}", True, f"{len(dataset)} from {dataset.source}")
