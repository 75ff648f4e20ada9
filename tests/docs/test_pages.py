"""Pages quote tables and name fields: they must be those of the stored results and of the code."""

import re
from pathlib import Path

import pytest

from rdc_bench.results.schema import RECORDS, Manifest

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"<!-- table: (?P<recipe>[a-z0-9-]+) -->\n\n(?P<table>.*?)\n\n<!-- end -->", re.DOTALL)
QUOTED = [
    pytest.param(match["table"], ROOT / "results" / match["recipe"] / "table.md", id=f"{page.stem}: {match['recipe']}")
    for page in sorted(ROOT.glob("docs/**/*.md"))
    for match in TABLE.finditer(page.read_text(encoding="utf-8"))
]
FIELDS = (ROOT / "docs" / "reference" / "result-files.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("table", "stored"), QUOTED)
def test_a_quoted_table_is_the_stored_one(table, stored):
    assert table in stored.read_text(encoding="utf-8")


def test_tables_are_quoted_at_all():
    assert len(QUOTED) >= 6


@pytest.mark.parametrize(("heading", "names"), [("records.parquet", RECORDS.names), ("run.json", list(Manifest.model_fields))])
def test_the_page_of_result_files_names_every_field(heading, names):
    section = FIELDS.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)) == sorted(names)
