"""The one exception that a user is meant to read: what is wrong, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TastemakerError(Exception):
    """Something the user can mend: the message names the thing and the remedy.

    The command line prints the message alone, without a traceback, and ends with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a misspelt one, and list them all.

    Args:
        name: The misspelt name.
        known: Every name that would have been accepted.

    Returns:
        A sentence to append to an error message.

    Example:
        >>> nearest("best_wrost", ["best_worst", "threshold"])
        'Did you mean best_worst? Known: best_worst, threshold.'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
