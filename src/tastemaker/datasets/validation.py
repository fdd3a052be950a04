"""`import --check`: validate a data set without writing; report problems per row."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic

from tqdm import tqdm

from tastemaker.config.datasets import ImagesConfig, ImportConfig, SplitConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CAPTIONED, COMPARISONS
from tastemaker.datasets.captioned import Captioned, CaptionedImages
from tastemaker.datasets.comparisons import ComparedImages, Comparison
from tastemaker.datasets.conversion import Compared, Photograph
from tastemaker.datasets.importer import Convert, Filtered, Item, LeftOut, Usable, told
from tastemaker.datasets.splits import part_of
from tastemaker.storage.images import size_of
from tastemaker.storage.pictures import Pictures


def check(config: ImportConfig | ImagesConfig) -> int:
    """List what is wrong with the source of an import, without writing anything.

    That is what the import would refuse or leave out, and what training would refuse later. Every
    row is read, those of other parts of the split too: a picture in two parts is named.

    Args:
        config: Of the import, of comparisons or of photographs.

    Returns:
        How many problems there are.

    Raises:
        TastemakerError: There is no source.
    """
    if isinstance(config, ImagesConfig):
        return _check_images(config)
    return _check_comparisons(config)


def _check_comparisons(config: ImportConfig) -> int:
    choice = config.comparisons
    source: ComparedImages = COMPARISONS.bind(choice.name, choice.options)()
    convert = Compared.of(config.model_copy(update={"split": None}))

    def converted(comparison: Comparison, number: int) -> Usable:
        usable = convert(comparison, number)
        if config.resolution is None and not config.buckets:
            _refuse_sizes(usable)
        return usable

    reading = Check("comparison", converted, config.split, _prompt_of_comparison)
    return reading.run(itertools.islice(source.comparisons, config.limit), source.passed_over)


def _check_images(config: ImagesConfig) -> int:
    choice = config.images
    source: CaptionedImages = CAPTIONED.bind(choice.name, choice.options)()
    convert = Photograph.of(config.model_copy(update={"split": None}))
    reading = Check("image", convert, config.split, _prompt_of_image)
    return reading.run(source.images, source.passed_over)


@dataclass
class Check(Generic[Item]):
    """Reads a source to its end, and says what is wrong where.

    Args:
        kind: What an item is called.
        convert: From an item to candidates, as for an import.
        split: Parts that no picture may share.
        prompt: The prompt of an item.
    """

    kind: str
    convert: Convert[Item]
    split: SplitConfig | None
    prompt: Callable[[Item], str]
    pictures: Pictures = field(default_factory=Pictures, init=False)
    noted: Counter[str] = field(default_factory=Counter, init=False)

    def run(self, items: Iterator[Item | LeftOut], passed_over: Iterable[LeftOut] = ()) -> int:
        """Print a line for each problem, and their number in the end.

        Args:
            items: The source.
            passed_over: Files beside those of the items: counted, and no problem.

        Returns:
            How many problems there are.
        """
        read = problems = 0
        dropped: Counter[str] = Counter()
        for item in tqdm(items, desc="check", unit=f"{self.kind}s"):
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
        beside = Counter(each.reason for each in passed_over)
        print(
            f"checked {read} {self.kind}s: {problems} problems{told(dropped)}"
            f"{told(beside, 'passed over')}{told(self.noted, 'pictures')}"
        )
        return problems

    def _problems(self, item: Item | LeftOut) -> list[str]:
        if isinstance(item, LeftOut):
            return [item.reason]
        try:
            usable = self.convert(item, 0)
        except Filtered:
            raise
        except TastemakerError as error:
            return [str(error)]
        self.noted.update(usable.notes)
        part = 0 if self.split is None else part_of(self.prompt(item), self.split)
        found = list(self._repeated(usable, part))
        for place, picture in enumerate(usable.pictures):
            self.pictures.add(picture, f"image {place} of {item.where}", part)
        return found

    def _repeated(self, usable: Usable, part: int) -> Iterator[str]:
        """Pictures shared with another part, or with any item where each may come once."""
        for place, picture in enumerate(usable.pictures):
            if usable.once and (seen := self.pictures.where(picture)):
                yield f"the same picture as {seen}"
            elif other := self.pictures.elsewhere(picture, part):
                yield (
                    f"image {place} is also {other[1]}, which is in part {other[0]} of the split;"
                    f" this is in part {part}"
                )


def _refuse_sizes(usable: Usable) -> None:
    sizes = {size_of(row["image"]["bytes"]) for row in usable.rows}
    if len(sizes) > 1:
        words = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise TastemakerError(f"images of several sizes ({words}); set size or buckets to train")


def _prompt_of_comparison(comparison: Comparison) -> str:
    return comparison.prompt


def _prompt_of_image(image: Captioned) -> str:
    return image.caption
