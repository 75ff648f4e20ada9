"""The order of the folders, as ``[tool.importlinter]`` in pyproject.toml has it."""

from pathlib import Path

from importlinter.cli import lint_imports

CONFIG = Path(__file__).parents[1] / "pyproject.toml"


def test_no_folder_imports_from_one_above_it(capsys):
    assert lint_imports(str(CONFIG), no_cache=True, no_logo=True) == 0, capsys.readouterr().out
