"""Files on the Hugging Face hub: found, or refused within seconds with one clear error."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from tastemaker.core.errors import TastemakerError

PATIENCE = 5.0
"""Seconds that the hub has to answer; its client would retry every request for half a minute."""


@functools.cache
def offline_if_unreachable() -> None:
    """Ask the hub for a sign of life, once; without one its client reads its cache alone."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    # The client's libraries raise errors of several kinds, not all of them OSErrors.
    except Exception:
        constants.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def hub_errors(name: str, repository: str, file: str) -> Iterator[None]:
    """Raise one error with a remedy for all that the hub's client raises.

    Args:
        name: Name as the user gave it.
        repository: Repository of the hub, `owner/name`.
        file: File that is looked for in it.

    Raises:
        TastemakerError: The file cannot be had.
    """
    from huggingface_hub import errors

    offline_if_unreachable()
    try:
        yield
    except errors.GatedRepoError:
        reason = "its licence must be accepted first: do so on its page, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private: check the name, or"
        reason += " `hf auth login`"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        what = repository if name == repository else f"{repository} {file}"
        reason = "the hub cannot be reached (no network, or HF_HUB_OFFLINE is set): download it"
        reason += f" where there is a network, by `hf download {what}`, or give the path of a copy"
    except errors.EntryNotFoundError:
        reason = f"{repository} has no {file}: check the name"
    except Exception as error:  # of several libraries
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"the hub did not give {file} ({first}): try again, or give the path of a copy"
    else:
        return
    raise TastemakerError(f"{name!r} is not here, and {reason}.")


def hub_file(name: str, repository: str, file: str) -> Path:
    """Return a file of a repository, from the hub's cache or downloaded.

    Args:
        name: Name as the user gave it, for messages.
        repository: Repository of the hub, `owner/name`.
        file: Path in it.

    Raises:
        TastemakerError: It cannot be had.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(name, repository, file):
        return Path(hf_hub_download(repository, file))
