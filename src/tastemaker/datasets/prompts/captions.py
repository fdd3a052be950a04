"""Captions of photographs as templates: the class's name gives way to the subject's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_lines
from tastemaker.core.templates import SLOT, as_template
from tastemaker.storage.files import read_json

BRACES = "has braces"
NOT_NAMED = "names none of the words"
REPEATED = "repeats another one"
TWICE = "names it more than once"

_ONE = r"(?<![\w-])(?:a|an|another|one|that|the|this) (?:(?!of )[\w-]+ ){0,3}?"
"""A determiner of the singular, and up to three adjectives; "a herd of" is of the plural."""


@dataclass(frozen=True)
class Rewritten:
    """Captions that became templates, and counts of the others by reason.

    Args:
        templates: Unique, in order of the captions.
        left_out: Number of captions left out, by reason.
    """

    templates: list[str]
    left_out: dict[str, int]


def read_captions(file: Path) -> list[str]:
    """Read captions from COCO's JSON, or from a text file with one caption per line.

    Args:
        file: `.json` of the form `{"annotations": [{"caption": ...}, ...]}`, or `.txt`.

    Returns:
        The captions in their order, empty ones left out.

    Raises:
        TastemakerError: The file is missing, of another kind, or has no captions.

    References:
        Chen et al., Microsoft COCO Captions, arXiv 1504.00325.
    """
    readers = {".txt": read_lines, ".json": _annotated}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        known = ", ".join(readers)
        raise TastemakerError(f"{file}: captions come as {known}, not {file.suffix!r}.")
    captions = [caption for caption in reader(file) if caption.strip()]
    if not captions:
        raise TastemakerError(f"{file} has no captions; add at least one.")
    return captions


def rewritten(captions: Iterable[str], words: Sequence[str]) -> Rewritten:
    """Turn captions that name a class once, in the singular, into templates.

    The name is replaced by the slot; a determiner of the singular must precede it. Adjectives
    before it stay, and the full stop at the end goes.

    Args:
        captions: English sentences.
        words: The class's names in the singular, "dog" and "puppy"; case does not matter.

    Returns:
        The templates, and a count of captions left out by reason.

    Raises:
        TastemakerError: No words.

    Example:
        >>> result = rewritten(["An old dog sleeps.", "Two dogs", "A cat"], ["dog"])
        >>> result.templates
        ['An old {} sleeps']
        >>> result.left_out
        {'names none of the words': 2}
    """
    names = sorted({" ".join(word.lower().split()) for word in words} - {""}, key=len)
    if not names:
        raise TastemakerError("no words to look for in captions; name the class, as [dog, puppy].")
    name = rf"(?<![\w-])(?:{'|'.join(map(re.escape, reversed(names)))})(?![\w'’-])"
    whole, one = re.compile(name, re.IGNORECASE), re.compile(_ONE + f"({name})", re.IGNORECASE)
    templates: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for caption in captions:
        sentence = " ".join(caption.split()).rstrip(" .")
        found = one.search(sentence)
        if "{" in sentence or "}" in sentence:
            left_out[BRACES] += 1
        elif found is None:
            left_out[NOT_NAMED] += 1
        elif len(whole.findall(sentence)) > 1:
            left_out[TWICE] += 1
        else:
            start, end = found.span(1)
            template = as_template(f"{sentence[:start]}{SLOT}{sentence[end:]}")
            left_out[REPEATED] += template in templates
            templates[template] = None
    return Rewritten(list(templates), dict(+left_out))


def _annotated(file: Path) -> list[str]:
    data = read_json(file)
    rows = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise TastemakerError(f"{file} has no list 'annotations'; take a file of COCO's captions.")
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            where = f"{file}: annotations[{index}]"
            raise TastemakerError(f"{where} has no text 'caption'; take a file of COCO's captions.")
    return [row["caption"] for row in rows]
