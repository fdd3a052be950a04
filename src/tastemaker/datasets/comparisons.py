"""Compared images: pictures of one prompt with people's verdicts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.items import LeftOut, Refused

PROMPT_KEYS = ("prompt", "caption", "text")
"""Keys of a comparison's prompt; the first that is present counts."""

BOTH_BAD: Final = "both_bad"
"""The label of a comparison whose images people found all bad."""

Label = float | Literal["both_bad"] | None
"""Label of the first of two images: 1 preferred, 0 not, 0.5 a tie, both bad, or no verdict."""

_WORDS: dict[str, Label] = {
    "tie": 0.5,
    BOTH_BAD: BOTH_BAD,
    "bothbad": BOTH_BAD,
    "both bad": BOTH_BAD,
    "tie (bothbad)": BOTH_BAD,
}

_KEYS_OF_ONE = ("{}_0", "{}_1", "chosen_{}", "rejected_{}")


class WrongLabel(TastemakerError):
    """An invalid label: the source is of another format."""


@dataclass(frozen=True)
class Comparison:
    """Images of one prompt with people's verdicts.

    Args:
        where: File and row, unique within the source.
        prompt: The prompt of all images.
        images: Encoded bytes of two or more.
        verdicts: One per image: the share of the others that it beat, ties counted half. Of two
            images, 1 and 0, or 0.5 and 0.5 for a tie.
        models: The model that drew each image; empty where unknown.
        judged: False without a verdict; the images then count as a tie.
        bad: True where people found all of them bad.
        ids: Candidate ids of the images; empty where unknown.
        voter: Who compared them; empty where unknown.
    """

    where: str
    prompt: str
    images: tuple[bytes, ...]
    verdicts: tuple[float, ...]
    models: tuple[str, ...]
    judged: bool = True
    bad: bool = False
    ids: tuple[str, ...] = ()
    voter: str = ""

    @property
    def tied(self) -> bool:
        """True where no image was preferred to any other."""
        return len(set(self.verdicts)) == 1


def win_shares(scores: Sequence[float]) -> tuple[float, ...]:
    """Turn scores into verdicts: the share of the other images that each beats, ties counted half.

    Args:
        scores: One per image of a prompt; higher is better. Negate ranks.

    Returns:
        One per image, in [0, 1], in the order of the scores with all ties.

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
        name: Key of the label, for the message.

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
        row: Labels by name; 0 for both means that both are bad.
        names: Names of the first image's label and of the second's.

    Returns:
        The label of the first.

    Raises:
        WrongLabel: A label is invalid, or the two contradict each other.

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


def prompt_of(row: Mapping[str, Any], keys: Sequence[str] = PROMPT_KEYS) -> str:
    """Read the prompt of a comparison, and check that both images are of it.

    Args:
        row: Texts by key. Each of `keys` may also end in `_0` and `_1`, or begin with `chosen_`
            and `rejected_`: the prompt of each image.
        keys: Keys of the prompt; the first that is present counts.

    Returns:
        The prompt, unchanged.

    Raises:
        TastemakerError: There is none, it is not text, or the images have two.

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
        present = ", ".join(sorted(row)) or "nothing"
        raise TastemakerError(f"no prompt ({' or '.join(keys)}); it has {present}")
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
        prompt: Prompt of both.
        images: Encoded bytes of both.
        label: Label of the first.
        models: The models that drew them.

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
    """Read a comparison, or return the reason why it cannot be used.

    Args:
        where: File and row.
        read: Reads it; raises `TastemakerError` where it cannot.

    Returns:
        The comparison, or the reason; `Refused` where the label is invalid.
    """
    try:
        return read()
    except WrongLabel as error:
        return Refused(where, str(error))
    except TastemakerError as error:
        return LeftOut(where, str(error))


def read_comparisons(
    file: str,
    unit: str,
    rows: Iterable[tuple[int, Any]],
    read: Callable[[str, Any], Comparison],
) -> Iterator[Comparison | LeftOut]:
    """Read comparisons from the rows of a file; a torn file ends in `Refused`.

    Args:
        file: Name of the file.
        unit: "row" or "line".
        rows: Numbered rows; raises `TastemakerError` where the file is torn.
        read: From place and row to the comparison.
    """
    try:
        for number, row in rows:
            where = f"{file}, {unit} {number}"
            yield or_left_out(where, functools.partial(read, where, row))
    except TastemakerError as error:
        yield Refused(file, str(error))
