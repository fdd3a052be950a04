"""`import --check`: validate a data set without writing; report problems per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from tastemaker.config.datasets import SourceConfig, SplitConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.conversion import converter
from tastemaker.datasets.importing import open_source
from tastemaker.datasets.items import Convert, Filtered, LeftOut, Source, Usable, counts_text
from tastemaker.datasets.splits import part_of
from tastemaker.storage.images import size_of
from tastemaker.storage.pictures import Pictures


def check(config: SourceConfig) -> int:
    """Print the problems of an import's source, without writing anything.

    Those are the items that the import would refuse or leave out, and images that training would
    refuse later. Every row is read, those of other parts of the split too, so that a picture in two
    parts is found.

    Args:
        config: Options of the import, of comparisons or of photographs.

    Returns:
        Number of problems.

    Raises:
        TastemakerError: The source does not exist.
    """
    convert = converter(config.model_copy(update={"split": None}))
    return Check(config.kind, convert, config.split).run(open_source(config))


@dataclass
class Check:
    """Validation of a source from its first item to its last.

    Args:
        kind: Noun for an item.
        convert: Conversion of an item to candidates, as in an import.
        split: Parts that may share no picture.
    """

    kind: str
    convert: Convert[Any]
    split: SplitConfig | None
    pictures: Pictures = field(default_factory=Pictures, init=False)
    noted: Counter[str] = field(default_factory=Counter, init=False)

    def run(self, source: Source[Any]) -> int:
        """Print a line per problem, and the number of problems at the end.

        Args:
            source: Its items are checked, its other files counted.

        Returns:
            Number of problems.
        """
        read = problems = 0
        dropped: Counter[str] = Counter()
        for item in tqdm(source.items, desc="check", unit=f"{self.kind}s"):
            read += 1
            try:
                found = self._problems(item)
            except Filtered as reason:
                dropped[str(reason)] += 1
                continue
            for problem in found:
                tqdm.write(f"{item.where}: {problem}")
            problems += len(found)
        self.pictures.close()
        if not problems and read == dropped.total():
            tqdm.write(f"no {self.kind} is left")
            problems = 1
        beside = Counter(each.reason for each in source.passed_over)
        print(
            f"checked {read} {self.kind}s: {problems} problems{counts_text(dropped)}"
            f"{counts_text(beside, 'passed over')}{counts_text(self.noted, 'pictures')}"
        )
        return problems

    def _problems(self, item: Any) -> list[str]:
        if isinstance(item, LeftOut):
            return [item.reason]
        try:
            usable = self.convert(item, 0)
            _refuse_sizes(usable)
        except Filtered:
            raise
        except TastemakerError as error:
            return [str(error)]
        self.noted.update(usable.notes)
        part = 0 if self.split is None else part_of(usable.rows[0]["prompt"], self.split)
        found = list(self._repeated(usable, part))
        for place, picture in enumerate(usable.pictures):
            self.pictures.add(picture, f"image {place} of {item.where}", part)
        return found

    def _repeated(self, usable: Usable, part: int) -> Iterator[str]:
        """Find pictures of another part, or of any item where each may come once."""
        for place, picture in enumerate(usable.pictures):
            if usable.once and (seen := self.pictures.where(picture)):
                yield f"the same picture as {seen}"
            elif other := self.pictures.elsewhere(picture, part):
                yield (
                    f"image {place} is also {other[1]}, which is in part {other[0]} of the split;"
                    f" this is in part {part}"
                )


def _refuse_sizes(usable: Usable) -> None:
    sizes = {size_of(row["image"]["bytes"], row["candidate_id"]) for row in usable.rows}
    if len(sizes) > 1:
        words = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise TastemakerError(
            f"images of several sizes ({words}); set resolution or buckets to train"
        )
