"""Base of all options, with the checks that they share, and names of files."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

LONGEST_NAME = 100
"""Bytes of a name that becomes a file's: systems allow 255, and suffixes are still to come."""


def checked_name(text: str) -> str:
    """Return a name that can be a file's name and a column's on any disk.

    Args:
        text: A label or a run's name.

    Returns:
        The same text.

    Raises:
        ValueError: It is empty, longer than `LONGEST_NAME` bytes, begins or ends with a space or a
            dot, or contains a slash, a backslash or a character that cannot be printed.

    Example:
        >>> checked_name("pick score, v1.5")
        'pick score, v1.5'
        >>> checked_name("../evil")
        Traceback (most recent call last):
        ValueError: the name '../evil' has '/'; a name is part of a path: leave '/' out
    """
    if not text:
        raise ValueError("a name cannot be empty; leave it out, or give one")
    wrong = next((each for each in text if each in "/\\" or not each.isprintable()), None)
    if wrong is not None:
        raise ValueError(
            f"the name {shown(text)} has {wrong!r}; a name is part of a path: leave {wrong!r} out"
        )
    if text != text.strip(". "):
        raise ValueError(f"the name {shown(text)} begins or ends with a dot or a space; drop it")
    if len(text.encode()) > LONGEST_NAME:
        raise ValueError(f"the name {shown(text)} is longer than {LONGEST_NAME} bytes; shorten it")
    return text


def _computed_in(precision: str, info: ValidationInfo) -> str:
    """Replace "auto" by the device's precision, which is recorded and part of a stage's key."""
    if precision != "auto":
        return precision
    from tastemaker.core.hardware import fast_dtype

    return fast_dtype(info.data.get("device", "auto"))


Precision = Annotated[Literal["auto", "fp32", "bf16", "fp16"], AfterValidator(_computed_in)]
"""Precision to compute in; "auto" is bf16 where the device is fast in it, else fp32."""

Compile = Annotated[
    bool,
    Field(
        description="Compile the denoiser's repeated blocks by torch.compile, which takes minutes"
        " once; for long runs on a GPU."
    ),
]

MACHINE = frozenset({"device", "torch_compile"})
"""Options of the machine, on which no key of an artifact depends."""

Name = Annotated[str, AfterValidator(checked_name)]
"""Text that becomes a file's or a folder's name, or a column's."""


@dataclass(frozen=True)
class Names:
    """Marks an option whose value names something outside of its section.

    `Annotated[str, Names("model")]`: it is looked for before anything is written.

    Attributes:
        what: Kind of thing that the value, or each of several, names.
    """

    what: Literal[
        "column",
        "device",
        "features",
        "lora",
        "model",
        "photographs",
        "picture",
        "pool",
        "tracker",
        "words",
    ]


@dataclass(frozen=True)
class Weights:
    """Marks an option that names weights: `Annotated[str, Weights(), Field(...)]`.

    `tastemaker doctor` reports whether they are present.

    Attributes:
        tokenizer: True where only a tokenizer is read from there.
    """

    tokenizer: bool = False


class Options(BaseModel):
    """Base of sections and of registered entries' options.

    Frozen. An unknown key, a number that is not finite, a truth value where none is meant (YAML
    reads `yes` as one) and text that no file can store are errors.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = set(_leaves(cls.model_fields[str(info.field_name)].annotation))
        values = list(_inside(value))
        if {int, float} & kinds and not {bool, Any} & kinds:
            if any(isinstance(each, bool) for each in values):
                raise ValueError(f"{shown(value)} is not a number")
            if int in kinds and not {float, str} & kinds and isinstance(value, str):
                return _whole(value)
        for text in values:
            if isinstance(text, str) and ("\0" in text or not _encodes(text)):
                raise ValueError(f"{shown(text)} has a character that no file can store")
        return value


def shown(value: Any) -> str:
    """Return a value as messages show it: shortened, whatever it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to write a number of thousands of digits
        return "a number of very many digits"


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is put together of."""
    inside = get_args(annotation)
    if not inside:
        yield annotation
    for each in inside:
        yield from _leaves(each)


def _inside(value: Any) -> Iterator[Any]:
    """A value, or all keys and values inside of it at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each
        else:
            yield each


def _whole(text: str) -> Any:
    """A whole number written as `1e3`; any other text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else text


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
