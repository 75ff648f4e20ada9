"""The command line: one thin file per command, imported when the command is used."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import click

import rdc_bench
from rdc_bench.errors import Notice, UserError, unknown_name

COMMANDS = {
    "run": "attack models and store what came of it",
    "report": "comparison tables from stored runs",
    "verify": "re-check every stored adversarial image of a run",
    "reproduce": "carry out the runs behind a published table or figure",
    "diagnose": "look for signs that a model's gradients are masked",
    "list": "models, attacks, threats, datasets and recipes",
    "models": "describe them, exchange them with the Hugging Face Hub, convert foreign checkpoints",
    "train": "train denoisers, multi-head students and baselines",
    "doctor": "what is installed, what would fail, how to mend it",
}


class _Lazy(click.Group):
    """Knows its commands by name; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` is the command of that name here, once it has been imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"rdc_bench.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown_name("command", args[0], COMMANDS, "`rdc-bench --help` lists the commands.")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rdc_bench.__version__, prog_name="rdc-bench")
def group() -> None:
    """How robust is a diffusion classifier really?

    \b
    Examples:
      rdc-bench run --threat linf --eps 8/255      attack the bundled models
      rdc-bench report                             compare them
      rdc-bench list attacks                       what there is to attack with
    """


def main() -> None:
    """Entry point: one clear line and exit code 2 for bad input, 130 for an interruption."""
    _show_notices()
    try:
        code = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted()
    except KeyboardInterrupt:
        code = _interrupted()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _show_notices() -> None:
    """From now on a ``Notice`` is one line on stderr; other warnings look as Python shows them."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            click.echo(f"note: {message}", err=True)
        else:
            others(message, category, *where, **more)

    warnings.showwarning = show


def _interrupted() -> int:
    click.echo("interrupted; what was done is kept, and the same command goes on from there", err=True)
    return 130
