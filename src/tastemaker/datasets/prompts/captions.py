"""Captions of photographs as templates: what people say of a dog, said of the subject."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_lines
from tastemaker.core.templates import SLOT, as_template
from tastemaker.datasets.prompts.nouns import counts_several, ends_there, naming, plurals
from tastemaker.storage.files import read_json

BRACES = "has braces"
LONGER = "the word is part of a longer name"
NOT_NAMED = "names none of the words"
REPEATED = "repeats another one"
SEVERAL = "speaks of several"
TWICE = "names it more than once"


@dataclass(frozen=True)
class Rewritten:
    """Captions that became templates, and why the others did not.

    Args:
        templates: Unique, in order of the captions.
        left_out: How many captions were left out for each reason.
    """

    templates: list[str]
    left_out: dict[str, int]


def read_captions(file: Path) -> list[str]:
    """Read captions from COCO's JSON, or from a text file of a caption a line.

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
        raise TastemakerError(f"{file} holds no captions; add at least one.")
    return captions


def rewritten(captions: Iterable[str], words: Sequence[str]) -> Rewritten:
    """Turn captions that name a class once, in the singular, into templates.

    The name gives way to the slot; determiners and adjectives before it stay, and the full stop at
    the end goes. Rather too many captions are left out than one that would say something else of
    the subject: of two sheep, of a dog's bowl, of a hot dog.

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
        {'speaks of several': 1, 'names none of the words': 1}
    """
    names = {" ".join(word.lower().split()) for word in words} - {""}
    if not names:
        raise TastemakerError("no words to look for in captions; name the class, as [dog, puppy].")
    several = set[str]().union(*map(plurals, names)) - names
    pattern = naming(names | several)
    templates: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for caption in captions:
        sentence = " ".join(caption.split()).rstrip(" .")
        found = list(pattern.finditer(sentence))
        flaw = _flaw(sentence, found, several)
        if not flaw:
            start, end = found[0].span()
            template = as_template(f"{sentence[:start]}{SLOT}{sentence[end:]}")
            flaw = REPEATED if template in templates else ""
        if flaw:
            left_out[flaw] += 1
        else:
            templates[template] = None
    return Rewritten(list(templates), dict(left_out))


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


def _flaw(sentence: str, found: Sequence[re.Match[str]], several: set[str]) -> str:
    """Why a caption is no template; empty where it is one."""
    if "{" in sentence or "}" in sentence:
        return BRACES
    if not found:
        return NOT_NAMED
    if len(found) > 1:
        return TWICE
    name, (start, end) = found[0][0].lower(), found[0].span()
    if name in several or counts_several(name, sentence[:start]):
        return SEVERAL
    return "" if ends_there(sentence[end:]) else LONGER
