"""``rdc-bench doctor``."""

from __future__ import annotations

import click

from rdc_bench.cli.options import json_option, print_json


@click.command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """What is installed, which device, which caches; what would fail, and how to mend it.

    Exit code 1 when the default run would fail.
    """
    from rdc_bench.cli.progress import stages

    with stages("examining this installation"):
        from rdc_bench.doctor import examine

        findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mend = f" → {finding.mend}" if finding.mend else ""
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.found}{mend}")
    ctx.exit(0 if all(finding.ok for finding in findings) else 1)
