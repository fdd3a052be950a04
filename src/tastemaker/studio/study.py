"""A study: its plan, its voters, and every vote on disk before it is acknowledged."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tastemaker.config.studio import StudioConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.vote_files import VoteFile
from tastemaker.storage.votes import (
    FOLDER,
    SKIP,
    Answer,
    Undo,
    Vote,
    checked_voter,
    counted,
    is_answer,
    read_lines,
)
from tastemaker.studio.items import Items
from tastemaker.studio.pictures import Pictures
from tastemaker.studio.queue import Plan, Task, VoterQueue
from tastemaker.studio.ranking import Ranking
from tastemaker.studio.wire import Refused, Wire

MOST_TASKS = 8
"""Tasks that are handed out together."""

MOST_SECONDS = 1e6

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass
class Voter:
    """One voter's queue, file and history.

    Args:
        queue: What to judge next.
        file: Where votes go.
        history: Id, task and answer of the votes that count, in order.
        undone: Tasks that were opened again, by the id of the undoing.
    """

    queue: VoterQueue
    file: VoteFile
    history: list[tuple[str, Task, Answer]] = field(default_factory=list)
    undone: dict[str, Task] = field(default_factory=dict)

    def progress(self) -> dict[str, int]:
        """Votes that count, and tasks in all."""
        return {"done": len(self.history), "total": self.queue.total}


class Study:
    """State of a study behind the page; every method may be called from any thread.

    Args:
        config: Options.
        items: The images.
        plan: Rules of what comes next.
        references: Photographs beside each question, by its key.
        secret: Key of names and tickets.
        folder: Output: votes that are there count.

    Raises:
        TastemakerError: A file of votes is damaged.
    """

    def __init__(
        self,
        config: StudioConfig,
        items: Items,
        plan: Plan,
        references: Mapping[str, tuple[int, ...]],
        secret: bytes,
        folder: Path,
    ) -> None:
        self.config = config
        self.items = items
        self.pictures = Pictures(items, secret)
        self._plan = plan
        self._wire = Wire(config, items, self.pictures, references, secret)
        self._folder = folder
        self._keys = list(config.asked)
        self._lock = threading.Lock()
        self._voters: dict[str, Voter] = {}
        self._ids: dict[str, str] = {}
        lines: dict[str, list[Vote | Undo]] = {}
        for file in sorted((folder / FOLDER).glob("*.jsonl")):
            for line in read_lines(file):
                lines.setdefault(line.voter, []).append(line)
        for name, own in lines.items():
            self._replay(name, own)
        self._learn_again()

    def about(self) -> dict[str, Any]:
        """Describe the study for the page: title, questions, and voters so far."""
        with self._lock:
            voters = [
                {"name": name, "votes": len(voter.history)}
                for name, voter in sorted(self._voters.items())
                if voter.history
            ]
        return {
            "title": self.config.title,
            "kind": self.config.kind,
            "questions": [self._wire.question(number) for number in range(len(self._keys))],
            "voters": voters,
        }

    def enter(self, name: object) -> dict[str, Any]:
        """Let a voter in, or go on."""
        with self._lock:
            voter = self._voter(name)
            return {"voter": voter.queue.voter, **voter.progress()}

    def tasks(self, name: object, number: int) -> dict[str, Any]:
        """Return a voter's next open tasks."""
        with self._lock:
            voter = self._voter(name)
            tasks = voter.queue.next(max(1, min(number, MOST_TASKS)))
            progress = voter.progress()
        return {"tasks": [self._wire.task(voter.queue.voter, task) for task in tasks], **progress}

    def vote(self, body: Mapping[str, Any]) -> dict[str, int]:
        """Record a vote; the same id again changes nothing.

        Args:
            body: vote_id, voter, task_id, shown, question, answer, seconds and ticket.

        Returns:
            Done and total.

        Raises:
            Refused: It is not a vote on a task that is open for this voter.
            TastemakerError: The disk is full or gone; nothing was recorded.
        """
        vote_id = _identifier(body.get("vote_id"))
        with self._lock:
            voter = self._voter(body.get("voter"))
            name = voter.queue.voter
            if vote_id in self._ids:
                if self._ids[vote_id] != name:
                    raise Refused(409, "this vote_id is another voter's")
                return voter.progress()
            task = self._wire.opened(body, name)
            vote = self._record(vote_id, name, task, body)
            if task.key in voter.queue.done:
                raise Refused(409, "this task is not open: it was voted on before")
            voter.file.append(vote)
            self._ids[vote_id] = name
            voter.queue.vote(task)
            voter.history.append((vote_id, task, vote.answer))
            self._learn(task, vote.answer)
            return voter.progress()

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a voter's last vote back and open its task again; the same id again changes nothing.

        Args:
            body: vote_id, of the undoing, and voter.

        Raises:
            Refused: The voter has no vote.
            TastemakerError: The disk is full or gone; nothing was recorded.
        """
        undo_id = _identifier(body.get("vote_id"))
        with self._lock:
            voter = self._voter(body.get("voter"))
            if undo_id not in voter.undone:
                if undo_id in self._ids:
                    raise Refused(409, "this vote_id is that of a vote")
                if not voter.history:
                    raise Refused(404, "no vote to undo")
                vote_id, task, _ = voter.history[-1]
                voter.file.append(Undo(undo_id, voter.queue.voter, _now(), vote_id))
                voter.history.pop()
                voter.undone[undo_id] = task
                voter.queue.undo(task)
                self._ids[undo_id] = voter.queue.voter
                self._learn_again()
            task = voter.undone[undo_id]
            progress = voter.progress()
        return {"task": self._wire.task(voter.queue.voter, task), **progress}

    def votes(self) -> int:
        """Count the votes of all voters."""
        with self._lock:
            return sum(len(voter.history) for voter in self._voters.values())

    def _voter(self, name: object) -> Voter:
        try:
            voter = checked_voter(name)
        except TastemakerError as error:
            raise Refused(400, str(error)) from None
        if voter not in self._voters:
            queue = VoterQueue(self._plan, voter)
            self._voters[voter] = Voter(queue, VoteFile(self._folder, voter))
        return self._voters[voter]

    def _replay(self, name: str, lines: Sequence[Vote | Undo]) -> None:
        """Take up a voter's votes where the last server left them."""
        every = {line.vote_id: line for line in lines if isinstance(line, Vote)}
        tasks = {each: self._task_of(vote) for each, vote in every.items() if self._known(vote)}
        votes = [vote for vote in counted(lines) if vote.vote_id in tasks]
        queue = VoterQueue(self._plan, name, [tasks[vote.vote_id] for vote in votes])
        voter = Voter(queue, VoteFile(self._folder, name))
        voter.history = [(vote.vote_id, tasks[vote.vote_id], vote.answer) for vote in votes]
        for line in lines:
            self._ids[line.vote_id] = name
            if isinstance(line, Undo) and line.undoes in tasks:
                voter.undone[line.vote_id] = tasks[line.undoes]
        self._voters[name] = voter

    def _known(self, vote: Vote) -> bool:
        """True for a vote on images and a question of this study."""
        return vote.question in self._keys and all(each in self.items.index for each in vote.shown)

    def _task_of(self, vote: Vote) -> Task:
        shown = tuple(self.items.index[each] for each in vote.shown)
        question = self._keys.index(vote.question)
        return Task(shown, vote.prompt, question, vote.chosen_by, vote.probability)

    def _record(self, vote_id: str, name: str, task: Task, body: Mapping[str, Any]) -> Vote:
        answer: Any = body.get("answer")
        seconds: Any = body.get("seconds")
        if not is_answer(self.config.kind, answer, len(task.shown)):
            raise Refused(400, f"this is not an answer of kind {self.config.kind}")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 <= seconds <= MOST_SECONDS:
            raise Refused(400, "seconds is not a time")
        return Vote(
            vote_id=vote_id,
            voter=name,
            at=_now(),
            task_id=self._wire.task_id(task),
            prompt=task.prompt,
            shown=tuple(self.items.ids[image] for image in task.shown),
            models=tuple(self.items.label(image) for image in task.shown),
            question=self._keys[task.question],
            kind=self.config.kind,
            answer=answer,
            seconds=float(seconds),
            chosen_by=task.chosen_by,
            probability=task.probability,
        )

    def _learn_again(self) -> None:
        """Begin the ranking anew from all votes that count."""
        self._plan.ranking = Ranking()
        for voter in self._voters.values():
            for _, task, answer in voter.history:
                self._learn(task, answer)

    def _learn(self, task: Task, answer: Answer) -> None:
        """Update the ranking by which active choice chooses; repeats and gold items do not."""
        if answer == SKIP or task.chosen_by not in ("random", "active"):
            return
        players = [self._plan.player(image, task.question) for image in task.shown]
        ranking = self._plan.ranking
        if isinstance(answer, dict):
            ranking.best_worst(players, answer["best"], answer["worst"])
        elif isinstance(answer, int):
            ranking.rate(players[0], answer)
        else:
            left, right = players
            ranking.compare(left, right, {"left": 1.0, "right": 0.0}.get(answer, 0.5))


def _identifier(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refused(400, "vote_id has 1 to 64 letters, digits, - and _")
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
