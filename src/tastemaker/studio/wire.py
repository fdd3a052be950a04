"""Tasks as the page sees them, blind, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tastemaker.config.studio import StudioConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.votes import task_id
from tastemaker.studio.items import Items
from tastemaker.studio.pictures import Pictures
from tastemaker.studio.queue import Task
from tastemaker.studio.tickets import Seal


class Refused(Exception):
    """A request that cannot be met.

    Args:
        status: Of HTTP.
        why: For the page.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Wire:
    """Form in which tasks go to the page: opaque names, and a sealed ticket.

    Args:
        config: Options.
        items: The images.
        pictures: Their names and sizes.
        references: Photographs beside each question, by its key.
        secret: Key of the tickets.
    """

    def __init__(
        self,
        config: StudioConfig,
        items: Items,
        pictures: Pictures,
        references: Mapping[str, tuple[int, ...]],
        secret: bytes,
    ) -> None:
        self._kind = config.kind
        self._asked = config.asked
        self._keys = list(config.asked)
        self._items = items
        self._pictures = pictures
        self._references = references
        self._seal = Seal(secret)

    def task(self, voter: str, task: Task) -> dict[str, Any]:
        """Write a task for the page of a voter."""
        names = [self._pictures.name(image) for image in task.shown]
        sizes = [self._size(image) for image in task.shown]
        content = [voter, task.shown, task.prompt, task.question]
        return {
            "task_id": self.task_id(task),
            "ticket": self._seal.close([*content, task.chosen_by, task.probability]),
            "kind": self._kind,
            "prompt": task.prompt,
            "question": self.question(task.question),
            "shown": names,
            "images": [
                {"url": f"images/{name}", "width": width, "height": height}
                for name, (width, height) in zip(names, sizes, strict=True)
            ],
        }

    def opened(self, body: Mapping[str, Any], voter: str) -> Task:
        """Open the ticket of a vote, and compare it with what the vote says of its task.

        Raises:
            Refused: The ticket is not genuine, or of another task or voter.
        """
        ticket = body.get("ticket")
        content = self._seal.open(ticket) if isinstance(ticket, str) else None
        if content is None:
            raise Refused(403, "the ticket is not one of this study; load the page again")
        owner, shown, *rest = content
        task = Task(tuple(shown), *rest)
        names = [self._pictures.name(image) for image in task.shown]
        true = [self.task_id(task), names, self._keys[task.question]]
        if owner != voter or [body.get(each) for each in ("task_id", "shown", "question")] != true:
            raise Refused(403, "the vote is not on the task of its ticket")
        return task

    def task_id(self, task: Task) -> str:
        """Return the id under which votes on a task are recorded."""
        ids = (self._items.ids[image] for image in task.shown)
        return task_id(self._keys[task.question], self._kind, ids)

    def question(self, number: int) -> dict[str, Any]:
        """Write a question for the page."""
        key = self._keys[number]
        images = self._references.get(key, ())
        urls = [f"images/{self._pictures.name(image)}" for image in images]
        return {"key": key, "text": self._asked[key], "references": urls}

    def _size(self, image: int) -> tuple[int, int]:
        """Width and height; of a picture that cannot be read 0, so that the voter can skip it."""
        try:
            return self._pictures.size(image)
        except TastemakerError as error:
            print(error)
            return 0, 0
