"""What a test session skipped, and why: told at its end, and remembered for ``pytest --skipped``."""

from collections import Counter

import pytest

#: Under which pytest's cache keeps the tests that the last session skipped.
SKIPPED = "rdc-bench/skipped"


def pytest_addoption(parser):
    parser.addoption("--skipped", action="store_true", help="run only what the last session without this option skipped")


def pytest_collection_modifyitems(config, items):
    if config.getoption("skipped"):
        names = set(config.cache.get(SKIPPED, []))  # of tests, and of files that were skipped as a whole
        chosen = [item for item in items if not names.isdisjoint([item.nodeid, item.nodeid.split("::")[0]])]
        config.hook.pytest_deselected(items=list(set(items).difference(chosen)))
        items[:] = chosen


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.getoption("skipped"):
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter, config):
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} skipped")
        for reason, count in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped).most_common():
            terminalreporter.line(f"{count:4}  {reason}")
    if config.cache and not config.getoption("skipped") and not config.getoption("collectonly"):
        config.cache.set(SKIPPED, [report.nodeid for report in skipped])
