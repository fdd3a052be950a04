"""Queue of one voter: what to judge next, by chance or by information, with repeats and gold."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice

from tastemaker.core.seeding import keyed_seed
from tastemaker.storage.votes import ChosenBy
from tastemaker.studio.items import Items
from tastemaker.studio.permutation import Permutation
from tastemaker.studio.ranking import Player, Ranking
from tastemaker.studio.units import Units

SAMPLE = 256
"""Open sets of images among which active choice takes the most informative."""

Images = tuple[int, ...]
Key = tuple[Images, int, str]


@dataclass(frozen=True, slots=True)
class Task:
    """Images to judge by one question.

    Args:
        shown: Indices of the images in the order shown.
        prompt: Text that they belong to.
        question: Index of the question.
        chosen_by: Rule that chose it.
        probability: Probability with which it was chosen among the open ones.
    """

    shown: Images
    prompt: str
    question: int
    chosen_by: ChosenBy
    probability: float

    @property
    def images(self) -> Images:
        """The images, rising: equal for repeats."""
        return tuple(sorted(self.shown))

    @property
    def key(self) -> Key:
        """Identity for one voter, who meets it once: a repeat is another task than the first."""
        role = self.chosen_by if self.chosen_by in ("repeat", "gold") else "first"
        return self.images, self.question, role


@dataclass
class Plan:
    """Rules of a study, shared by its voters' queues.

    Args:
        items: The images.
        units: Sets of images that may be shown.
        questions: Number of questions asked of each set.
        seed: Keys order and sides.
        active: Choose by information.
        explore: Share of active choice that is by chance.
        num_tasks: Sets that each voter judges; None: all.
        repeats: Share of tasks shown twice.
        by_model: Rank models, not images.
    """

    items: Items
    units: Units
    questions: int
    seed: int
    active: bool = False
    explore: float = 0.1
    num_tasks: int | None = None
    repeats: float = 0.1
    by_model: bool = False
    ranking: Ranking = field(default_factory=Ranking)

    def __post_init__(self) -> None:
        """Fix the sets that all voters judge where they are chosen by chance."""
        self._order = Permutation(self.units.total, f"{self.seed} study")

    @property
    def sets(self) -> int:
        """Sets that a voter judges for the first time."""
        return min(self.num_tasks or self.units.total, self.units.total)

    @property
    def window(self) -> int:
        """First-time sets in a block, to each of which a repeat of the block before is added."""
        return max(1, round(1 / self.repeats) - 1) if self.repeats else 9

    def unit(self, number: int) -> tuple[Images, str]:
        """Return images and prompt of a set, by its number in `units`."""
        group, places = self.units[number]
        about = self.items.groups[group]
        return tuple(sorted(about.members[place] for place in places)), about.prompt

    def shared(self, number: int) -> tuple[Images, str]:
        """Return images and prompt of one of the sets that all voters judge."""
        return self.unit(self._order(number))

    def player(self, image: int, question: int) -> Player:
        """Return whose strength an image shows."""
        return question, self.items.places[image][0] if self.by_model else image

    def information(self, images: Images) -> float:
        """Return what is expected to be learnt of all questions by showing images, in nats."""
        return sum(
            self.ranking.information([self.player(image, question) for image in images])
            for question in range(self.questions)
        )

    def repeats_due(self, first: int, voter: str) -> int:
        """Count the repeats that belong before the next task.

        Args:
            first: Sets shown for the first time so far.
            voter: The voter's name.
        """
        if not self.repeats or not first:
            return 0
        block, place = divmod(first, self.window)
        middle = self.window // 2
        slot = middle + self.keyed(self.window - middle, "repeat", voter, block)
        return max(0, block - 1) + int(block >= 1 and slot < place)

    def gold_due(self, first: int, voter: str) -> int:
        """Count the gold items that belong before the next task: one in every second block."""
        block, place = divmod(first, self.window)
        slot = self.keyed((self.window + 1) // 2, "gold", voter, block)
        return min(len(self.items.gold), block // 2 + int(block % 2 == 1 and slot < place))

    def keyed(self, size: int, what: str, voter: str, number: int) -> int:
        """Draw from `range(size)`, equal for equal keys."""
        return keyed_seed(self.seed, what, voter, number) % size


class VoterQueue:
    """The tasks of one voter, in order.

    By chance, the order is a permutation keyed by seed and voter, so that nothing is stored and a
    restarted server goes on with the same task. Tasks handed out stay the same until they are
    voted on.

    Args:
        plan: Rules of the study.
        voter: Name.
        voted: Tasks of the voter's votes that count, in their order.
    """

    def __init__(self, plan: Plan, voter: str, voted: Iterable[Task] = ()) -> None:
        self.plan = plan
        self.voter = voter
        self.done: set[Key] = set()
        self._open: dict[Key, Task] = {}
        self._first: list[tuple[Images, str]] = []
        self._met: dict[str, set[Images]] = {"first": set(), "repeat": set(), "gold": set()}
        self._position = 0
        self._order = Permutation(plan.sets, f"{plan.seed} voter {voter}")
        for task in voted:
            self._meet(task)
            self.done.add(task.key)
            self._open.pop(task.key, None)

    @property
    def total(self) -> int:
        """Tasks of this voter, repeats and gold items included."""
        sets = self.plan.sets
        extra = self.plan.repeats_due(sets, self.voter) + self.plan.gold_due(sets, self.voter)
        return max((sets + extra) * self.plan.questions, len(self.done))

    def next(self, number: int) -> list[Task]:
        """Return the next open tasks, the same until they are voted on."""
        while len(self._open) < number and (task := self._chosen()) is not None:
            self._meet(task)
        return list(self._open.values())[:number]

    def vote(self, task: Task) -> bool:
        """Close a task.

        Returns:
            False where it is not open: it was voted on before.
        """
        if task.key in self.done:
            return False
        self._meet(task)  # handed out before a restart
        self.done.add(task.key)
        self._open.pop(task.key, None)
        return True

    def undo(self, task: Task) -> None:
        """Open a task again, as the next."""
        self.done.discard(task.key)
        self._open = {task.key: task, **self._open}

    def _meet(self, task: Task) -> None:
        """Note a set of images as this voter's, and open it for every question."""
        images, _, role = task.key
        if images in self._met[role]:
            return
        self._met[role].add(images)
        if role == "first":
            self._first.append((images, task.prompt))
        for question in range(self.plan.questions):
            each = replace(task, question=question)
            self._open[each.key] = each

    def _chosen(self) -> Task | None:
        """Choose the next set of images; None at the end."""
        plan, first = self.plan, len(self._first)
        if plan.repeats_due(first, self.voter) > len(self._met["repeat"]):
            return self._repeat()
        if plan.gold_due(first, self.voter) > len(self._met["gold"]):
            number = len(self._met["gold"])
            order = Permutation(len(plan.items.gold), f"{plan.seed} gold {self.voter}")
            gold = plan.items.gold[order(number)]
            return self._task(tuple(sorted(gold.members)), gold.prompt, "gold", 1.0)
        if first >= plan.sets:
            return None
        if plan.active:
            images, prompt, probability = self._informative()
            return self._task(images, prompt, "active", probability)
        while self._position < plan.sets:
            images, prompt = plan.shared(self._order(self._position))
            self._position += 1
            if images not in self._met["first"]:
                return self._task(images, prompt, "random", 1 / (plan.sets - first))
        return None

    def _repeat(self) -> Task:
        """Choose a set from the first half of the block before: never an adjacent one."""
        plan, met = self.plan, self._met["repeat"]
        block, half = len(met) + 1, (self.plan.window + 1) // 2
        start = (block - 1) * plan.window + plan.keyed(half, "repeated", self.voter, block)
        places = chain(range(start, len(self._first)), range(min(start, len(self._first))))
        images, prompt = next(
            self._first[place] for place in places if self._first[place][0] not in met
        )
        return self._task(images, prompt, "repeat", 1.0)

    def _informative(self) -> tuple[Images, str, float]:
        """Choose the most informative of a sample of open sets, or with `explore` any open one.

        Returns:
            Images, prompt, and the probability of their choice given the sample: above 0 for every
            open set.
        """
        plan, left = self.plan, self.plan.units.total - len(self._first)
        rng = random.Random(keyed_seed(plan.seed, "active", self.voter, len(self._first)))
        any_one, sample = self._draw(rng)
        if not sample:
            return *any_one, 1 / left
        best = max(sample, key=lambda each: plan.information(each[0]))
        chosen = any_one if rng.random() < plan.explore else best
        return *chosen, plan.explore / left + (1 - plan.explore) * (chosen == best)

    def _draw(self, rng: random.Random) -> tuple[tuple[Images, str], list[tuple[Images, str]]]:
        """Draw an open set of images, and a sample of them: where there are few, all."""
        plan, met, total = self.plan, self._met["first"], self.plan.units.total
        if total <= 2 * SAMPLE:
            every = [plan.unit(number) for number in range(total)]
            rng.shuffle(every)
            every = [each for each in every if each[0] not in met]
            return rng.choice(every), every
        drawn = (plan.unit(rng.randrange(total)) for _ in count())
        any_one = next(each for each in drawn if each[0] not in met)
        return any_one, [each for each in islice(drawn, SAMPLE) if each[0] not in met]

    def _task(self, images: Images, prompt: str, chosen_by: ChosenBy, probability: float) -> Task:
        task = Task(images, prompt, 0, chosen_by, probability)
        key = keyed_seed(self.plan.seed, "sides", self.voter, task.key[2], *images)
        return replace(task, shown=tuple(random.Random(key).sample(images, len(images))))
