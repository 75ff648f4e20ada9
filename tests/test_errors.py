from __future__ import annotations

import pytest

from rdc_bench.errors import unknown_name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pdg", "Did you mean 'pgd'"),
        ("PGD", "Did you mean 'pgd'"),
        ("apgd", "Did you mean 'pgd' or 'apgd-ce'"),
        ("CE", "Did you mean 'apgd-ce'"),
        ("xyz", None),
        ("", None),
    ],
)
def test_near_names_are_offered_and_far_ones_are_not(name: str, meant: str | None) -> None:
    message = str(unknown_name("attack", name, ["apgd-ce", "pgd", "stadv"], "List them."))
    assert message.startswith(f"unknown attack {name!r}.")
    assert message.endswith("List them.")
    assert "\n" not in message
    if meant is None:
        assert "Did you mean" not in message
    else:
        assert meant in message
