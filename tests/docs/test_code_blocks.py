"""Every code block of the pages and the README does what it says, on few images.

Blocks of one page run in order, in one folder: what one writes, the next one finds. A block with a ``title`` is a file, which
is written; ``bash`` runs in a shell, ``python`` in one namespace per page; other languages are shown, not run. A block that
cannot run here says so above itself: ``<!-- skip: next "the reason" -->``.
"""

import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import pytest
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

import rdc_bench
from rdc_bench.threats import THREATS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
#: Pages that take seconds. The others are for ``pytest -m slow``.
QUICK = {
    "docs/how-to/add-a-threat.md",
    "docs/how-to/add-an-attack.md",
    "docs/reference/python.md",
}
#: Languages that are shown alone.
SHOWN = {"text", "yaml", "json"}

SMALL = Path(__file__).parent / "small_rdc_bench.py"
SHELL = f'set -eu; rdc-bench () {{ "{sys.executable}" "{SMALL}" "$@"; }}\n'
#: What ``results/RUN``, the folder of a run that the reader has, is here: the first one.
RUN = '"$(dirname "$(ls results/*/run.json | head -n 1)")"'


def blocks(document: Document):
    """All fenced blocks, as regions whose evaluators know what to do with them."""
    lexer = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[a-z]*)(?P<options>[^\n]*)$\n", re.MULTILINE))
    for region in lexer(document):
        title = re.search(r'title="([^"]+)"', region.lexemes["options"])
        language = region.lexemes["language"]
        if title:
            yield Region(region.start, region.end, (title[1], region.lexemes["source"]), write)
        elif language in ("bash", "python"):
            evaluate = bash if language == "bash" else PythonEvaluator()
            yield Region(region.start, region.end, region.lexemes["source"], evaluate)
        else:
            yield Region(region.start, region.end, language, show)


def write(example: Example) -> None:
    name, source = example.parsed
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(source)


def bash(example: Example) -> None:
    script = SHELL + example.parsed.replace("results/RUN", RUN)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=1200)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def show(example: Example) -> None:
    assert example.parsed in SHOWN, f"a block of language {example.parsed!r}: name python, bash or one of {sorted(SHOWN)}"


def run_page(path: Path) -> None:
    """Run the blocks of a page in the working directory; a failure names the page and the line."""
    document = Document.parse(str(path), blocks, SkipParser())
    for example in document.examples():
        try:
            example.evaluate()
        except unittest.SkipTest:
            continue
        except Exception as error:
            where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            pytest.fail(f"{where}:{example.line}: {type(error).__name__}: {error}", pytrace=False)


@pytest.fixture
def few(registered, monkeypatch, tmp_path):
    """An empty folder with the examples in it; few images for runs from Python; registries as before afterwards."""
    threats = dict(THREATS._entries)
    whole = rdc_bench.run
    monkeypatch.setattr(rdc_bench, "run", lambda *args, **more: whole(*args, **{**more, "n": 2, "repeats": 1}), raising=False)
    for name, value in {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    yield
    THREATS._entries = threats


def _named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=_named(p), marks=[] if _named(p) in QUICK else [pytest.mark.slow]) for p in PAGES]
)
@pytest.mark.timeout(3600)
def test_the_blocks_of_a_page_run(path, few):
    run_page(path)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```bash\ntrue\nfalse\n```", "exit code 1"),
        ("```\nrdc-bench list\n```", "language ''"),
    ],
)
def test_a_block_that_fails_names_its_page_and_line(block, says, few, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\nWords.\n\n{block}\n")
    with pytest.raises(pytest.fail.Exception, match=rf"page\.md:5: .*{says}"):
        run_page(page)


def test_a_skipped_block_gives_its_reason(few, tmp_path):
    page = tmp_path / "page.md"
    page.write_text('<!-- skip: next "needs a cluster" -->\n```bash\nfalse\n```\n\n```python title="kept.py"\n1 / 0\n```\n')
    run_page(page)
    assert Path("kept.py").read_text() == "1 / 0\n"


@pytest.mark.parametrize("path", PAGES, ids=_named)
def test_every_exclusion_has_a_reason(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("<!-- skip"):
            assert re.fullmatch(r'\s*<!-- skip: next "[^"]+" -->', line), line
