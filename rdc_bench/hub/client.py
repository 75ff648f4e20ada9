"""Around the Hub's own client: its errors as one clear line each, and how it names this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx2
import huggingface_hub
from huggingface_hub import constants, errors

import rdc_bench
from rdc_bench.errors import UserError, first_line, in_words, is_refusal
from rdc_bench.hub.reference import HubReference

#: How this package introduces itself to the Hub; the name is also that in a repository's ``config.json``.
LIBRARY: Final = "rdc-bench"


def client(endpoint: str | None) -> huggingface_hub.HfApi:
    """The client, with the token that the user has set for it. None: the endpoint of ``HF_ENDPOINT``."""
    return huggingface_hub.HfApi(endpoint=endpoint, library_name=LIBRARY, library_version=rdc_bench.__version__)


@contextmanager
def one_line_errors(reference: HubReference, endpoint: str | None) -> Iterator[None]:
    """Turn whatever the client raises about ``reference`` into a ``UserError`` that says what to do."""
    try:
        yield
    except UserError:
        raise
    except (errors.EntryNotFoundError, httpx2.HTTPError, errors.OfflineModeIsEnabled, OSError, ValueError) as error:
        raise UserError(f"{reference}: {_explained(error, endpoint or constants.ENDPOINT)}") from error
    except (errors.XetDownloadError, errors.RevisionResolutionError) as error:
        raise UserError(f"{reference}: {first_line(error)}") from error


def _explained(error: Exception, endpoint: str) -> str:
    if is_refusal(error):  # of the cache
        return in_words(error)
    if isinstance(error, errors.GatedRepoError):
        return "its owners must grant access: ask on the repository's page, then set HF_TOKEN or use `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{endpoint} has no such repository, or it is private: then set HF_TOKEN or use `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; give a branch, a tag or a commit hash of all 40 digits"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{endpoint} does not have a file that it lists ({first_line(error)})"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"{endpoint} does not allow it ({status}): set HF_TOKEN to a token with the rights, or use `hf auth login`"
        return f"{endpoint} answered with an error ({first_line(error)})"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the client is offline (HF_HUB_OFFLINE); unset it to reach the Hub"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _explained(error.__cause__, endpoint) if isinstance(error.__cause__, Exception) else first_line(error)
    if isinstance(error, httpx2.HTTPError):
        return (
            f"cannot be had from {endpoint} ({type(error).__name__}: {first_line(error)}); "
            "see to the network, or set HF_HUB_OFFLINE=1 to use what is in the cache"
        )
    return first_line(error)
