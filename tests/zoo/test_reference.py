import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.core.errors import UserError
from rdc_bench.zoo.reference import HubReference, is_reference, parse_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "revision", "pinned"),
    [
        ("hf://owner/repo", None, False),
        ("hf://owner/repo@main", "main", False),
        ("hf://owner/repo@v1.0", "v1.0", False),
        ("hf://owner/repo@refs/pr/3", "refs/pr/3", False),
        (f"hf://owner/repo@{COMMIT}", COMMIT, True),
        (f"hf://owner/repo@{COMMIT[:7]}", COMMIT[:7], False),
    ],
)
def test_references_are_read_and_written(text, revision, pinned):
    found = parse_reference(text)
    assert found == HubReference("owner", "repo", revision)
    assert found.repo_id == "owner/repo"
    assert found.pinned is pinned
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://owner/re po", "no spaces"),
        ("hf://owner/repo@ main", "no spaces"),
        ("hf://owner/repo\n", "no spaces"),
        (" hf://owner/repo", "no spaces"),
        ("hf:owner/repo", "begins with hf://"),
        ("HF://owner/repo", "begins with hf://"),
        ("hf://owner", "repository is missing"),
        ("hf://owner/", "repository is missing"),
        ("hf:///repo", "owner is missing"),
        ("hf://", "owner is missing"),
        ("hf://owner/repo@", "no revision"),
        ("hf://../repo", r"'\.\.' cannot be the name of an owner"),
        ("hf://owner/..", r"'\.\.' cannot be the name of a repository"),
        ("hf://owner/repo/file", "'repo/file' cannot be the name of a repository"),
        ("hf://owner/a..b", "cannot be the name"),
        ("hf://owner/a--b", "cannot be the name"),
        ("hf://owner/repo.git", "cannot be the name"),
        ("hf://owner/-repo", "cannot be the name"),
        ("hf://owner/r%2e%2e", "cannot be the name"),
        ("hf://owner/repo?x=1", "cannot be the name"),
        ("hf://owner/repo@../../etc", "cannot be a revision"),
        ("hf://owner/repo@/etc", "cannot be a revision"),
        ("hf://owner/repo@a//b", "cannot be a revision"),
        ("hf://owner/repo@a@b", "cannot be a revision"),
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(text, message):
    assert is_reference(text)
    with pytest.raises(UserError, match=message) as caught:
        parse_reference(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_gives_a_safe_reference_or_one_line(text):
    message = ""
    try:
        found = parse_reference(f"hf://{text}")
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    if message:
        return
    for part in (found.owner, found.repo, *(found.revision or "main").split("/")):
        assert part
        assert part != ".."
        assert not set(part) & set("/\\:?#%@ ")
