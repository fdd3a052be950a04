"""The paper's claims, each as one difference with its interval and what that says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from figures import Images, Interval, column, distance, hue_drift, mean, obeyed
from results import Choices, Model, NotMeasured, Results

Measure = Callable[[Sequence[Images], Sequence[Images]], Interval]


def by_hue(models: Sequence[Images], others: Sequence[Images], base: Images) -> Interval:
    """How many degrees further models' hues lie from the base's than other models' do."""
    return mean(models, others, hue_drift(base))


JUDGE: Measure = partial(mean, read=column("judge"))
OBEYED: Measure = partial(mean, read=obeyed)
SHARPNESS: Measure = partial(mean, read=column("sharpness"))


@dataclass(frozen=True)
class Claim:
    """A claim: `row` differs from `against` in a direction.

    Attributes:
        text: What the paper says.
        row: Row of the comparison.
        against: Another row, or "base".
        unit: What is measured, in words.
        measure: Function that measures it; None is the drift of hues.
        sign: 1 if the claim says that `row` has more of it, -1 for less.
        everywhere: Tested at all lengths, else at the searched one alone.
    """

    text: str
    row: str
    against: str
    unit: str
    measure: Measure | None
    sign: int
    everywhere: bool = False


CLAIMS = (
    Claim("naive collapses", "naive", "base", "distance", distance, 1, True),
    Claim("the curriculum beats naive", "curriculum", "naive", "distance", distance, -1, True),
    Claim("", "curriculum", "naive", "judge", JUDGE, 1, True),
    Claim("easy improves on the base", "easy", "base", "judge", JUDGE, 1),
    Claim("normal lowers the distance", "easy, normal", "easy", "distance", distance, -1),
    Claim("hard sharpens", "curriculum", "easy, normal", "sharpness", SHARPNESS, 1),
    Claim("", "curriculum", "easy, normal", "judge", JUDGE, 1),
    Claim("without easy it fails", "without easy", "curriculum", "distance", distance, 1),
    Claim("without normal it is worse", "without normal", "curriculum", "distance", distance, 1),
    Claim("mixing is worse than order", "mixed", "curriculum", "distance", distance, 1, True),
    Claim("fewer candidates are worse", "easy of two", "easy", "judge", JUDGE, -1),
    Claim("statistics matching holds colours", "easy, statistics", "easy", "hue drift", None, -1),
    Claim(
        "the text encoder restores adherence",
        "curriculum, text encoder",
        "curriculum",
        "obeyed, %",
        OBEYED,
        1,
    ),
    Claim("HG-DPO beats SFT", "curriculum", "SFT", "judge", JUDGE, 1, True),
)


def verdict(found: Interval, sign: int) -> str:
    """Return what an interval says of a claim of that direction.

    Example:
        >>> verdict(Interval(-1.0, -2.0, -0.1), 1)
        'contradicted'
    """
    if found.low <= 0 <= found.high:
        return "not shown"
    return "shown" if found.low * sign > 0 else "contradicted"


class Measured:
    """Images of rows at their chosen settings, as far as they are there.

    Args:
        results: All images.
        choices: Settings and guidance of the rows.
    """

    def __init__(self, results: Results, choices: Choices) -> None:
        self.results, self.choices = results, choices

    def base(self) -> Images:
        """Images of the base at its best guidance."""
        return self.results.images(self.choices.base)

    def models(self, row: str, steps: int) -> list[Model]:
        """A row's models, a training seed each, as many as were measured."""
        if row == "base":
            return [self.choices.base]
        found = []
        for seed in self.choices.size.seeds:
            try:
                model = self.choices.chosen(row, steps, seed)
                self.results.images(model)
            except NotMeasured:
                break
            found.append(model)
        return found

    def images(self, row: str, steps: int) -> list[Images]:
        """Their images."""
        return [self.results.images(model) for model in self.models(row, steps)]

    def effect(self, claim: Claim, steps: int) -> Interval | None:
        """The difference that a claim is about, over equal seeds; None where one is missing."""
        ours, theirs = self.images(claim.row, steps), self.images(claim.against, steps)
        if not ours or not theirs:
            return None
        if claim.against != "base":
            both = min(len(ours), len(theirs))
            ours, theirs = ours[:both], theirs[:both]
        measure = claim.measure or partial(by_hue, base=self.base())
        return measure(ours, theirs)


def as_table(measured: Measured) -> str:
    """The claims as a markdown table."""
    lengths = measured.choices.size.lengths
    lines = [
        "| claim | rows | steps | measured by | difference | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        for steps in lengths if claim.everywhere else lengths[1:2]:
            found = measured.effect(claim, steps)
            what = "not measured" if found is None else verdict(found, claim.sign)
            effect = found and f"{found.value:+.2f} [{found.low:.2f}, {found.high:.2f}]"
            against = f"{claim.row} – {claim.against}"
            lines.append(
                f"| {claim.text} | {against} | {steps} | {claim.unit} | {effect or ''} | {what} |"
            )
    return "\n".join(lines) + "\n"
