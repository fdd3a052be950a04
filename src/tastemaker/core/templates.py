"""Prompts of personalised models: sentences with one slot for the subject.

A template is a sentence such as "a {} in a hammock". Filled with the subject's phrase ("sks dog")
it is a prompt for the personalised model; filled with the class's name ("dog") it is for a text
encoder, to which the rare token means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_seed

__all__ = ["SLOT", "as_template", "filled", "parts", "takes_an"]

SLOT = "{}"
"""The subject's place in a template."""

_ARTICLE = re.compile(r"\b(a)n? (?={})", re.IGNORECASE)


def as_template(text: str, where: str = "the template") -> str:
    """Read a sentence as a template.

    Args:
        text: A sentence with one slot `{}`.
        where: File and line, for messages.

    Returns:
        The sentence with single spaces, and with "a" for "an" before the slot: templates that give
        the same prompts are equal.

    Raises:
        TastemakerError: The sentence has no slot, or more than one.

    Example:
        >>> as_template(" An {}  in a hammock")
        'A {} in a hammock'
    """
    slots = text.count(SLOT)
    if not slots:
        raise TastemakerError(f"{where}: {text!r} has no slot; write {SLOT} for the subject.")
    if slots > 1:
        raise TastemakerError(f"{where}: {text!r} has {slots} slots {SLOT}; keep one of them.")
    return _ARTICLE.sub(r"\1 ", " ".join(text.split()))


def takes_an(phrase: str) -> bool:
    """Return True where a phrase begins with a vowel letter: "an owl", "an <owl-toy>", "a sks owl".

    Example:
        >>> takes_an("owl"), takes_an("sks owl"), takes_an("<owl-toy>")
        (True, False, True)
    """
    first = re.search(r"\w", phrase)
    return first is not None and first[0].lower() in "aeiou"


def filled(template: str, phrase: str) -> str:
    """Put a phrase in the slot, with the article before it that the phrase asks for.

    Args:
        template: A sentence with one slot.
        phrase: The subject's ("sks owl"), or the class's name ("owl"); without an article.

    Returns:
        The prompt.

    Raises:
        TastemakerError: The sentence has no slot or more than one, or the phrase is empty or begins
            with an article.

    Example:
        >>> filled("a {} in a hammock", "owl"), filled("a {} in a hammock", "sks owl")
        ('an owl in a hammock', 'a sks owl in a hammock')
        >>> filled("a red {}", "owl")
        'a red owl'
    """
    words = " ".join(phrase.split())
    if not words or words.split()[0].lower() in {"a", "an"}:
        raise TastemakerError(
            f"{phrase!r} cannot fill {template!r}; name the subject without an article: 'sks dog'."
        )
    article = r"\1n " if takes_an(words) else r"\1 "
    return _ARTICLE.sub(article, as_template(template)).replace(SLOT, words)


def parts(templates: Sequence[str], number: int, seed: int = 0) -> list[list[str]]:
    """Split templates into disjoint parts, for rounds that must not see each other's prompts.

    Templates are ranked by a hash of seed and template: the part of each depends on the whole set,
    the number of parts and the seed, never on the order of templates or of calls.

    Args:
        templates: Of one set; repetitions count once.
        number: Of parts, from 1 to the number of templates.
        seed: Equal seeds give equal parts.

    Returns:
        The parts, each in the order of `templates`; together they hold every template once, and
        their sizes differ by at most one.

    Raises:
        TastemakerError: More parts than templates, or less than one.

    Example:
        >>> parts(["a {}", "a red {}", "a wet {}"], 2) == parts(["a {}", "a red {}", "a wet {}"], 2)
        True
        >>> [len(part) for part in parts(["a {}", "a red {}", "a wet {}"], 2)]
        [2, 1]
    """
    unique = list(dict.fromkeys(templates))
    if not 1 <= number <= len(unique):
        raise TastemakerError(
            f"{len(unique)} templates cannot be split into {number} parts;"
            f" ask for 1 to {len(unique)} parts, or add templates."
        )
    ranked = sorted(unique, key=lambda template: (keyed_seed(seed, "part", template), template))
    place = {template: rank % number for rank, template in enumerate(ranked)}
    return [[template for template in unique if place[template] == k] for k in range(number)]
