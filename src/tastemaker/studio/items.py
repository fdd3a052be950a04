"""Images of a study: ids, groups that compete, labels of their sources, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tastemaker.studio.units import Shape


class Reader(Protocol):
    """A source's images by number."""

    def read(self, place: int) -> bytes:
        """Return the encoded bytes of an image."""


@dataclass(frozen=True)
class Group:
    """Images that compete.

    Args:
        prompt: Text that they belong to; "" where none is known.
        members: Indices of the images; of several models row by row, a draw of each per row.
        shape: Rows and width of the members.
    """

    prompt: str
    members: Sequence[int]
    shape: Shape


@dataclass
class Items:
    """All images of a study; the index is in memory, the pictures are not.

    Args:
        labels: Names of the sources, one per model; a single "" where there is one.
        readers: Access to the pictures.
        ids: Id of each image, as votes record it.
        places: Label, reader and number there of each image.
        groups: Images that compete.
        gold: Pairs whose first image is surely the better one.
        index: Index of each id.
    """

    labels: tuple[str, ...]
    readers: list[Reader] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    gold: list[Group] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)

    def add(self, candidate_id: str, label: int, reader: int, place: int) -> int:
        """Add an image and return its index; one that is there already keeps its own.

        Args:
            candidate_id: Id, as votes record it.
            label: Index of its label; -1 for none.
            reader: Index of its reader.
            place: Its number there.
        """
        if candidate_id not in self.index:
            self.index[candidate_id] = len(self.ids)
            self.ids.append(candidate_id)
            self.places.append((label, reader, place))
        return self.index[candidate_id]

    def label(self, image: int) -> str:
        """Return the label of an image; "" for one of no source, such as a photograph."""
        number = self.places[image][0]
        return self.labels[number] if number >= 0 else ""

    def read(self, image: int) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            TastemakerError: It is gone or cannot be read.
        """
        _, reader, place = self.places[image]
        return self.readers[reader].read(place)
