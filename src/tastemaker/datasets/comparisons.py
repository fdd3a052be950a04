"""Compared images: pictures of one prompt, and which of them people preferred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.importer import LeftOut, Refused

CAPTIONS = ("prompt", "caption", "text")
"""Keys in which the prompt of a comparison is looked for, the first that is there."""

BOTH_BAD: Final = "both_bad"
"""The label of a comparison whose images people found all bad."""

Label = float | Literal["both_bad"] | None
"""Of the first of two images: 1 preferred, 0 not, 0.5 a tie, both bad, or no verdict at all."""

_WORDS: dict[str, Label] = {
    "tie": 0.5,
    BOTH_BAD: BOTH_BAD,
    "bothbad": BOTH_BAD,
    "both bad": BOTH_BAD,
    "tie (bothbad)": BOTH_BAD,
}

_KEYS_OF_ONE = ("{}_0", "{}_1", "chosen_{}", "rejected_{}")


class WrongLabel(TastemakerError):
    """A label that is none: the source is not what it is taken for."""


@dataclass(frozen=True)
class Comparison:
    """Images of one prompt, and which were preferred.

    Args:
        where: File and row, unique within the source.
        prompt: The text that all were made from.
        images: Encoded bytes of two or more.
        verdicts: One an image: the share of the others that it beat, ties counted half. Of two
            images, 1 and 0, or 0.5 and 0.5 for a tie.
        models: What drew them; empty where unknown.
        judged: Whether there is a verdict; without one the images count as a tie.
        bad: Whether people found all of them bad.
    """

    where: str
    prompt: str
    images: tuple[bytes, ...]
    verdicts: tuple[float, ...]
    models: tuple[str, ...]
    judged: bool = True
    bad: bool = False

    @property
    def tied(self) -> bool:
        """Whether no image was preferred to any other."""
        return len(set(self.verdicts)) == 1


@dataclass(frozen=True)
class ComparedImages:
    """A source of compared images.

    Args:
        files: What it reads: a file more, or one of other content, makes it another source.
        comparisons: In their order, and in the place of any that the source cannot give, why.
        identity: What else makes it another source, JSON-like.
        passed_over: What lies beside `files` and is not taken, with why.
    """

    files: Iterable[Path]
    comparisons: Iterator[Comparison | LeftOut]
    identity: Mapping[str, Any] = field(default_factory=dict)
    passed_over: Iterable[LeftOut] = ()


def win_shares(scores: Sequence[float]) -> tuple[float, ...]:
    """Turn scores into verdicts: the share of the other images that each beats, ties counted half.

    Args:
        scores: One an image of a prompt; higher is better. A ranking enters with its sign turned.

    Returns:
        One an image, in [0, 1]; they keep the order of the scores and all of its ties.

    Example:
        >>> win_shares([3.0, 1.0]), win_shares([2.0, 2.0]), win_shares([1.0, 5.0, 5.0])
        ((1.0, 0.0), (0.5, 0.5), (0.0, 0.75, 0.75))
    """
    others = max(len(scores) - 1, 1)
    return tuple(
        sum(0.5 * (s >= other) + 0.5 * (s > other) for j, other in enumerate(scores) if j != i)
        / others
        for i, s in enumerate(scores)
    )


def read_label(value: Any, name: str) -> Label:
    """Read the label of the first of two images.

    Args:
        value: 0, 0.5 or 1, as a number or as text; `tie`; `both_bad`; None for no verdict.
        name: Its key, for the message.

    Returns:
        The label.

    Raises:
        WrongLabel: It is anything else.

    Example:
        >>> read_label("1", "label_0"), read_label(0.5, "label_0"), read_label("tie", "label_0")
        (1.0, 0.5, 0.5)
    """
    if value is None:
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        value = {"0": 0.0, "0.0": 0.0, "0.5": 0.5, "1": 1.0, "1.0": 1.0}.get(word, value)
    if isinstance(value, (int, float)) and value in (0, 0.5, 1):
        return float(value)
    raise WrongLabel(f"{name} is {value!r}; it must be 0, 0.5 or 1, or {BOTH_BAD}")


def read_labels(row: Mapping[str, Any], names: tuple[str, str] = ("label_0", "label_1")) -> Label:
    """Read the label of the first image from those of both, of which one may be missing.

    Args:
        row: Labels by name; 0 for both says that both are bad.
        names: Of the first image's, and of the second's.

    Returns:
        The label of the first.

    Raises:
        WrongLabel: A label is none, or the two contradict each other.

    Example:
        >>> read_labels({"label_0": 1}), read_labels({"label_1": 1}), read_labels({"label_0": None})
        (1.0, 0.0, None)
    """
    first, second = (read_label(row.get(name), name) for name in names)
    if second is None or first == second == BOTH_BAD:
        return first
    if isinstance(second, str) or isinstance(first, str):
        raise WrongLabel(f"{names[0]} {first!r} and {names[1]} {second!r} contradict")
    if first is None:
        return 1.0 - second
    if first == second == 0:
        return BOTH_BAD
    if first + second != 1:
        raise WrongLabel(f"{names[0]} {first:g} and {names[1]} {second:g} contradict")
    return first


def prompt_of(row: Mapping[str, Any], keys: Sequence[str] = CAPTIONS) -> str:
    """Read the prompt of a comparison, and make sure that both images are of it.

    Args:
        row: Texts by key. Each of `keys` may also end in `_0` and `_1`, or begin with `chosen_`
            and `rejected_`: the prompt of each image.
        keys: Where it is looked for, the first that is there.

    Returns:
        The prompt as it stands.

    Raises:
        TastemakerError: There is none, it is no text, or the images have two.

    Example:
        >>> prompt_of({"caption": "a cat"}), prompt_of({"caption_0": "a cat", "caption_1": "a cat"})
        ('a cat', 'a cat')
    """
    of_one = [key.format(name) for name in keys for key in _KEYS_OF_ONE]
    texts = {key: row[key] for key in (*keys, *of_one) if row.get(key) is not None}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise TastemakerError(f"{key!r} is {text!r}, not text")
    if not texts:
        held = ", ".join(sorted(row)) or "nothing"
        raise TastemakerError(f"no prompt ({' or '.join(keys)}); it has {held}")
    of_each = {key: text.strip() for key, text in texts.items() if key in of_one}
    if len(set(of_each.values())) > 1:
        raise TastemakerError(
            f"the images are of two prompts ({', '.join(map(repr, of_each.values()))});"
            " only images of one prompt can be compared"
        )
    return str(next(iter(texts.values())))


def of_two(
    where: str,
    prompt: str,
    images: tuple[bytes, bytes],
    label: Label,
    models: tuple[str, str] = ("", ""),
) -> Comparison:
    """Make a comparison of two images from the label of the first.

    Args:
        where: File and row.
        prompt: Of both.
        images: Encoded bytes of both.
        label: Of the first.
        models: What drew them.

    Returns:
        The comparison.
    """
    first = label if isinstance(label, float) else 0.5
    return Comparison(
        where,
        prompt,
        images,
        (first, 1.0 - first),
        models,
        judged=label is not None,
        bad=label == BOTH_BAD,
    )


def or_left_out(where: str, read: Callable[[], Comparison]) -> Comparison | LeftOut:
    """Read a comparison, or say why it cannot be used.

    Args:
        where: File and row.
        read: Reads it; raises `TastemakerError` where it cannot.

    Returns:
        The comparison, or the reason: one that ends an import where the label is none.
    """
    try:
        return read()
    except WrongLabel as error:
        return Refused(where, str(error))
    except TastemakerError as error:
        return LeftOut(where, str(error))
