"""WebDataset: tars of samples, whose files share a name up to the first dot."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import MOST_BYTES, decode_text, parse_json, require_file
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    BOTH_BAD,
    Comparison,
    Label,
    of_two,
    or_left_out,
    prompt_of,
    read_label,
    read_labels,
)
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.datasets.listing import OTHER, SUFFIXES, passed_over
from tastemaker.storage.files import atomic, leads_out, printable

ENDINGS = (".tar", ".tar.gz", ".tgz")

SIDES = (
    ("jpg_0", "image_0", "img_0", "0", "chosen"),
    ("jpg_1", "image_1", "img_1", "1", "rejected"),
)
"""Endings of the first and the second image, between the sample's name and the file type."""

TEXTS = ("prompt", "original_prompt", "caption", "text")
"""Endings of the prompt's file; a plain `.txt` is the prompt too."""

LABELS = ("label_0", "label_1", "label", "has_label", "model_0", "model_1")

MOST_TEXT = 1 << 20
"""Most bytes of one text."""

MOST_EXPANDED = 100
"""Most bytes per byte of a compressed tar, beyond `ALLOWANCE`: images hardly shrink."""

ALLOWANCE = 1 << 26

BLOCK = 512
CHUNK = 1 << 20

_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


@dataclass
class Sample:
    """Members of a tar that belong together.

    Args:
        where: The tar, the sample's number and its name.
        images: Encoded bytes by side, 0 or 1.
        texts: Contents of the other members by their name without its ending.
        preferred: True where the images' names tell which was chosen.
        trouble: Defect of its members, if any.
    """

    where: str
    images: dict[int, bytes] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    preferred: bool = False
    trouble: str = ""


@COMPARISONS.register("webdataset")
def webdataset(
    *, path: Annotated[str, Field(description="A tar, or a folder of them; .tar.gz and .tgz too.")]
) -> Source[Comparison]:
    """Tars of samples `NAME.jpg_0.jpg, NAME.jpg_1.jpg, NAME.label_0.txt, NAME.caption.txt`.

    The images may also be called `image_0`, `img_0` or `0`, or `chosen` and `rejected`, which need
    no label; the prompt `caption.txt`, `prompt.txt`, `original_prompt.txt`, `text.txt` or just
    `.txt`; and a `.json` may hold labels, prompt and the names of the models. Members are read one
    after another, and nothing is unpacked to disk.

    Args:
        path: A tar, or a folder whose tars are read in order of their names.

    Returns:
        Its comparisons in order of samples.

    Raises:
        TastemakerError: No such file, or no tar in the folder.
    """
    files = _tars(Path(path))
    names = {file.name for file in files}
    beside = passed_over(Path(path), lambda place: None if place in names else OTHER, False)
    return Source(files, _comparisons(files), beside)


@LAYOUTS.register("webdataset")
def write_webdataset(
    comparisons: Iterator[Comparison],
    folder: Path,
    *,
    samples: Annotated[int, Field(ge=1, description="Comparisons per tar.")] = 1000,
) -> None:
    """Tars of `jpg_0.jpg, jpg_1.jpg, label_0.txt, caption.txt`, and `json` with the models.

    The images keep their bytes, also where they are PNG: readers look for these names, and
    decoders look into the file.

    Args:
        comparisons: Of two images each.
        folder: Output folder.
        samples: Comparisons per tar.
    """
    for shard, part in enumerate(streamed(enumerate(comparisons), samples)):
        with (
            atomic(folder / f"{shard:05d}.tar") as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for number, comparison in part:
                for name, content in _members(comparison):
                    member = tarfile.TarInfo(f"{number:08d}.{name}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def _members(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    yield "jpg_0.jpg", comparison.images[0]
    yield "jpg_1.jpg", comparison.images[1]
    if comparison.judged:
        label = BOTH_BAD if comparison.bad else f"{comparison.verdicts[0]:g}"
        yield "label_0.txt", label.encode()
    yield "caption.txt", comparison.prompt.encode()
    more: dict[str, Any] = {} if comparison.judged else {"has_label": False}
    if any(comparison.models):
        more |= {f"model_{side}": model for side, model in enumerate(comparison.models)}
    if more:
        yield "json", json.dumps(more).encode()


def _tars(path: Path) -> list[Path]:
    if not path.is_dir():
        require_file(path)
        return [path]
    files = sorted(
        file
        for file in path.iterdir()
        if file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")
    )
    if not files:
        raise TastemakerError(f"{path} holds no {', '.join(ENDINGS)}.")
    return files


def _comparisons(files: Sequence[Path]) -> Iterator[Comparison | LeftOut]:
    for file in files:
        try:
            for sample in _samples(file):
                yield or_left_out(sample.where, functools.partial(_comparison, sample))
        except TastemakerError as error:
            yield Refused(file.name, str(error))
        except _BROKEN as error:
            yield Refused(file.name, f"is not a whole tar archive: {error}")


def _samples(file: Path) -> Iterator[Sample]:
    """Group the members of a tar, read in order, by their names up to the first dot."""
    held: tuple[str, Sample] | None = None
    number = 0
    zipped = file.suffix.lower() != ".tar"
    require_file(file)
    most = MOST_EXPANDED * file.stat().st_size + ALLOWANCE
    with tarfile.open(file, "r|gz" if zipped else "r|") as archive:
        while (member := archive.next()) is not None:
            if archive.offset > most and zipped:
                raise tarfile.ReadError(f"it expands to more than {MOST_EXPANDED} times its size")
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep a note of each
            name, _, ending = PurePosixPath(member.name).name.partition(".")
            if member.isdir() or not name or not ending:  # no name: a hidden file
                continue
            key = printable(str(PurePosixPath(member.name).with_name(name)))
            if held is None or held[0] != key:
                if held is not None:
                    yield held[1]
                held = key, Sample(f"{file.name}, row {number} ({key})")
                number += 1
            _take(held[1], ending, member, archive)
        end = archive.offset
    _refuse_cut(file, end, zipped=zipped)  # before the last sample, which may lack a part
    if held is not None:
        yield held[1]


def _take(sample: Sample, ending: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    """Add a member's content to its sample, or note its defect."""
    if leads_out(member.name):
        sample.trouble = f"member {member.name!r} leads out of the archive"
    elif not member.isreg():
        sample.trouble = f"member {member.name!r} is a link or a device; pack the file itself"
    elif member.size > MOST_BYTES:
        sample.trouble = f"member {member.name!r} has {member.size} bytes, too many to read"
    if sample.trouble:
        return
    name, _, kind = ending.lower().rpartition(".")
    name = name or kind
    side = next((side for side, names in enumerate(SIDES) if name in names), None)
    if side is not None and (f".{kind}" in SUFFIXES or kind == name):
        if side in sample.images:
            sample.trouble = f"it has two images {SIDES[side][0]}"
            return
        sample.images[side] = _content(member, archive)
        sample.preferred = name in {"chosen", "rejected"}
    elif kind == "json" or name in {"txt", *LABELS} or _is_text(name):
        where = f"member {member.name!r}"
        if member.size > MOST_TEXT or (kind != "json" and name in sample.texts):
            sample.trouble = f"{where} is there twice, or has more than {MOST_TEXT} bytes"
            return
        try:
            text = decode_text(_content(member, archive), where)
            sample.texts |= _read_json(text, where) if kind == "json" else {name: text}
        except TastemakerError as error:
            sample.trouble = str(error)


def _is_text(name: str) -> bool:
    return any(name in {text, f"{text}_0", f"{text}_1"} for text in TEXTS)


def _content(member: tarfile.TarInfo, archive: tarfile.TarFile) -> bytes:
    opened = archive.extractfile(member)
    assert opened is not None  # only links and folders have none
    return opened.read()


def _read_json(text: str, where: str) -> dict[str, Any]:
    row = parse_json(text, where)
    if not isinstance(row, dict):
        raise TastemakerError(f"{where} is {type(row).__name__}, not an object")
    return row


def _comparison(sample: Sample) -> Comparison:
    if sample.trouble:
        raise TastemakerError(sample.trouble)
    missing = [names[0] for side, names in enumerate(SIDES) if side not in sample.images]
    if missing:
        raise TastemakerError(f"it has no image {missing[0]}.jpg")
    texts = sample.texts
    models = str(texts.get("model_0") or ""), str(texts.get("model_1") or "")
    prompt = prompt_of(texts, (*TEXTS, "txt"))
    return of_two(
        sample.where, prompt, (sample.images[0], sample.images[1]), _label(sample), models
    )


def _label(sample: Sample) -> Label:
    texts = sample.texts
    if texts.get("has_label") in (False, 0, "0", "false", "False"):
        return None
    if "label" in texts:
        return read_label(texts["label"], "label")
    if "label_0" in texts or "label_1" in texts:
        return read_labels(texts)
    if sample.preferred:
        return 1.0
    raise TastemakerError("it has no label (label_0.txt)")


def _refuse_cut(file: Path, end: int, *, zipped: bool) -> None:
    """Refuse a tar that does not end in zeros behind its last member.

    Where it is cut off between two members, or damaged at one, `tarfile` takes it for whole.
    """
    zeros = 0
    with gzip.open(file) if zipped else file.open("rb") as opened:
        opened.seek(end)
        while part := opened.read(CHUNK):
            if part.strip(b"\0"):
                raise tarfile.ReadError(f"it is damaged at byte {end}")
            zeros += len(part)
    if zeros < BLOCK:
        raise tarfile.ReadError("it is cut off; its end mark is missing")
