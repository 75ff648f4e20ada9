from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rdc_bench.errors import in_words, is_refusal, unknown_name


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


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ENOSPC", "no space is left on the device; make room"),
        ("EDQUOT", "quota"),
        ("EIO", "failed to read or write"),
        ("EMFILE", "ulimit -n"),
        ("EFBIG", "ulimit -f"),
        ("EACCES", "permission denied; choose another place"),
        ("EROFS", "can be read only; choose another place"),
        ("ENOENT", "removed meanwhile"),
        ("ENOTDIR", "no folder"),
        ("ENAMETOOLONG", "choose a shorter one"),
    ],
)
@pytest.mark.parametrize("path", ["/a/place", b"/a/place", Path("/a/place"), None])
def test_refusals_of_the_system_are_one_line(name: str, says: str, path: str | None) -> None:
    error = OSError(getattr(errno, name), "as the system says it", path)
    assert is_refusal(error)
    line = in_words(error)
    assert says in line
    assert line.startswith("/a/place: ") == (path is not None)
    assert "Errno" not in line
    assert "\n" not in line


def test_a_refusal_that_nobody_thought_of_names_the_path_and_the_reason() -> None:
    error = OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/a/place")
    assert is_refusal(error)
    assert in_words(error) == f"/a/place: {os.strerror(errno.EXDEV)}"


@pytest.mark.parametrize("error", [OSError("a library's words"), OSError(errno.EBADF, "bad"), ValueError("/a"), KeyError()])
def test_mistakes_of_programs_are_no_refusals(error: Exception) -> None:
    assert not is_refusal(error)
