"""One process at a time: who is refused, who is named, and what frees the lock."""

import os
import platform
import re

import pytest

from rdc_bench.errors import UserError
from rdc_bench.results.lock import HOLDER, LOCK, alone


def test_the_second_is_told_who_is_there_and_since_when(tmp_path):
    with alone(tmp_path / "new" / "folder", "the run"):
        with pytest.raises(UserError) as refused, alone(tmp_path / "new" / "folder", "the run"):
            pass
        who, since = rf"process {os.getpid()} on {re.escape(platform.node())}", r"\d{4}-\d\d-\d\d [\d:]+ UTC"
        said = rf"the run: {who} has been at work on it since {since}; wait for it, or stop it"
        assert re.fullmatch(said, str(refused.value))
    with alone(tmp_path / "new" / "folder", "the run"):
        pass


def test_an_error_inside_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path, "the run"):
        raise ZeroDivisionError
    with alone(tmp_path, "the run"):
        pass


@pytest.mark.parametrize("left", [b'{"pid": 1, "host": "elsewhere", "since": "yesterday"}', b"", b"[]", b"{}", None])
def test_what_a_killed_process_left_does_not_block(tmp_path, left):
    (tmp_path / LOCK).touch()
    if left is not None:
        (tmp_path / HOLDER).write_bytes(left)
    with alone(tmp_path, "the run"):
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()


@pytest.mark.parametrize("left", [b"", b"[]", b"{}", None])
def test_a_holder_that_has_not_said_its_name_yet(tmp_path, left):
    with alone(tmp_path, "the run"):
        (tmp_path / HOLDER).unlink()
        if left is not None:
            (tmp_path / HOLDER).write_bytes(left)
        with pytest.raises(UserError, match="the run: another process is at work on it"), alone(tmp_path, "the run"):
            pass
