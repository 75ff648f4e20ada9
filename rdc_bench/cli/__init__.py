"""The command line: one thin file per command, imported when the command is used."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

import rdc_bench
from rdc_bench.cli import streams
from rdc_bench.errors import Notice, UserError, in_words, is_refusal, unknown_name

#: Exit code where nobody reads the output any more: that of programs which the signal SIGPIPE ends.
UNREAD = 141

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
        return [*COMMANDS]  # once imported, the command `list` hides the built-in of that name here

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"rdc_bench.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

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
    """Entry point: one clear line and exit code 2 for bad input and for what the system refuses, 130 for an interruption."""
    streams.prepare()
    _show_notices()
    try:
        with _interruptible():
            code = group.main(standalone_mode=False)
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _told("interrupted; what was done is kept, and the same command goes on from there", 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except UserError as error:
        code = _told(f"error: {error}", 2)
    except SystemExit as stop:  # click and rich exit by themselves where nobody reads what they write
        if not (streams.unread() or isinstance(stop.__context__, BrokenPipeError)):
            raise
        code = UNREAD
    except OSError as error:
        if not is_refusal(error):
            raise
        code = _told(f"error: {in_words(error)}", 2)
    streams.let_go()
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


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a request to end (``kill``, a batch system's time limit) or a closed terminal do what Ctrl-C does.

    What the caller has set otherwise, as ``nohup`` does, stays.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _told(line: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody may be there any more to read it
        click.echo(line, err=True)
    return code
