"""English articles: "a" or "an" before a phrase, as far as its spelling tells."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w")

_AN = re.compile(
    r"""
    (?i: hour | heir | hones | hono )                # a silent h
    | 8 | 1[18](?:th)?\b                             # eight, eleven, eighteen
    | [AEFHILMNORSX][A-Z]{0,2}\b                     # letters read one by one: an RC car
    | (?! U[A-Z]{0,2}\b )                            # a UFO
      (?! (?i: uni(?![dmn]) | us[aeu] | ut[eio] | ur[aiou] | uk | eu | ewe | one\b | once\b ) )
      (?i: [aeiou] )
    """,
    re.VERBOSE,
)


def takes_an(phrase: str) -> bool:
    """Tell whether "an" stands before a phrase: whether its first sound is a vowel.

    Args:
        phrase: Words without an article; signs before the first letter or digit do not count.

    Returns:
        True for "an".

    Example:
        >>> [takes_an(phrase) for phrase in ("owl", "sks owl", "unicorn", "hourglass", "<owl-toy>")]
        [True, False, False, True, True]
    """
    first = _WORD.search(phrase)
    return first is not None and _AN.match(phrase, first.start()) is not None
