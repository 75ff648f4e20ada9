"""The README is short, and says what the stored runs say."""

from pathlib import Path

import rdc_bench

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short_and_has_the_two_commands_on_a_line_each():
    lines = README.splitlines()
    assert len(lines) < 120
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "rdc-bench run --threat linf --eps 8/255" in commands[0]
    assert commands[1].endswith("pytest")


def test_its_table_is_that_of_the_stored_run(tmp_path):
    rdc_bench.report(ROOT / "results" / "linf-table", tmp_path, formats=["markdown"])
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    table = README.split("<!-- standard table -->")[1].split("<!-- end -->")[0].strip()
    heading, *parts = table.split("\n\n")
    assert f"## {heading.strip('*')}" in report
    assert [part for part in parts if part not in report] == []
