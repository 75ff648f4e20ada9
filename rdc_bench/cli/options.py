"""Options that several commands share, and what they share in printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else there.")
device_option = click.option("--device", default="cpu", show_default=True, help="Torch device, e.g. cpu or cuda.")
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Look for the dataset here and nowhere else (a folder, or a parquet file).",
)
download_option = click.option("--download", is_flag=True, help="Fetch the dataset when it is not on this machine.")
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file that registers attacks, models or threats. May be repeated.",
)


def print_json(document: Any) -> None:
    """One JSON document on stdout, in any encoding: what the stream's lacks is escaped."""
    plain = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    click.echo(json.dumps(document, indent=1, ensure_ascii=plain, allow_nan=False, default=str))


def with_plugins(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--plugin``, and load the files before the command runs."""

    @plugin_option
    @click.pass_context
    def wrapped(ctx: click.Context, /, plugins: tuple[Path, ...], **options: Any) -> Any:
        from rdc_bench.core.registry import load_plugin

        for plugin in plugins:
            load_plugin(plugin)
        return ctx.invoke(function, **options)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    wrapped.__click_params__ = wrapped.__click_params__ + getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return wrapped


def check_device(device: str) -> None:
    """Raise ``UserError`` for a device that torch does not know or does not have."""
    import torch

    from rdc_bench.core.errors import UserError

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
