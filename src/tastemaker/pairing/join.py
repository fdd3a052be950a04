"""Join pools to pairs: chosen from one, rejected from another or from earlier pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.config.commands import takes_options
from tastemaker.config.datasets import JoinConfig
from tastemaker.config.sections import columns
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import JOINS
from tastemaker.core.values import Names
from tastemaker.pairing.picks import Dropped, PairRows, Pick, checked, finish_pairs, highest, lowest
from tastemaker.preflight import expect, expect_columns
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.groups import Group, Groups, columns_read, matched, score_keys
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool


@JOINS.register("best_worst")
def best_worst(
    chosen: Group,
    rejected: Group,
    *,
    scorer: Annotated[
        str | None,
        Names("column"),
        Field(description="Column of both pools; needed where a side has a choice."),
    ] = None,
    keep_if: Annotated[
        float | None,
        Field(description="Keep a pair if its score rises by at least this; 0: HG-DPO's rule."),
    ] = None,
) -> Iterator[Pick | Dropped]:
    """The best-scored candidate of one side against the worst-scored of the other.

    HG-DPO keeps an item only where `score(chosen) >= score(rejected)`: `keep_if=0`.

    Args:
        chosen: Candidates of one item, to choose from.
        rejected: Candidates of the same item, to reject one of.
        scorer: Column of both pools; None where each side has one candidate.
        keep_if: Smallest rise of the score, inclusive; None keeps all.

    Yields:
        One pick, or the reason why there is none.

    References:
        HG-DPO, arXiv 2405.20216, normal and hard stage.
    """
    if scorer is None:
        sides = max(len(chosen.candidate_ids), len(rejected.candidate_ids))
        if sides > 1 or keep_if is not None:
            raise TastemakerError(
                "rule 'best_worst': name a scorer, for keep_if or to choose among"
                f" {sides} candidates of {chosen.prompt!r}."
            )
        yield Pick(0, 0, 0.0)
        return
    ours, theirs = chosen.scored_by(scorer), rejected.scored_by(scorer)
    best, worst = highest(ours), lowest(theirs)
    gain = ours[best] - theirs[worst]
    if keep_if is not None and gain < keep_if:
        yield Dropped(f"the score rises by less than {keep_if:g}")
    else:
        yield Pick(best, worst, gain)


@takes_options(JoinConfig)
def join(config: JoinConfig, chosen: Path, rejected: Path, output: Path) -> Path:
    """Pair the items of one pool with the same items of another, or of earlier pairs.

    Items are matched by their real image; where the other side was made from prompts alone, by
    prompt.

    Args:
        config: The rule.
        chosen: A pool.
        rejected: A pool, or a folder of pairs: then their chosen images are rejected here.
        output: Folder of the pairs.

    Returns:
        `output`, which then holds `pairs.parquet` and `pools.json`.

    Raises:
        TastemakerError: A score is missing, or no pair is left.
    """
    for folder in (chosen, rejected):
        expect(folder, "pool", "pairs")
    code = JOINS.code(config.rule.name)
    read = columns_read(config, code)
    scored = {name for _, name in columns(config)}
    left, right = _Side(chosen, read, scored), _Side(rejected, read, scored)
    expect_columns([*left.pools, *right.pools], config)
    inputs = {"chosen": left.key, "rejected": right.key, "code": code}
    artifact = Artifact(output, "join", {**config.model_dump(mode="json"), "inputs": inputs})
    rule = JOINS.bind(config.rule.name, config.rule.options)

    def picks() -> Iterator[tuple[Group, Group, Pick | Dropped]]:
        for group, other in matched(left.groups(), right.groups()):
            if other is None:
                yield group, group, Dropped(f"not in {rejected.name}")
            else:
                found = checked(config.rule.name, rule(group, other))
                yield from ((group, other, pick) for pick in found)

    pools = {pool.folder: pool for pool in (*left.pools, *right.pools)}
    with artifact.claimed() as unfinished:
        if unfinished:
            finish_pairs(
                artifact,
                PairRows(picks(), config.rule.name),
                list(pools.values()),
                f"{chosen.name}'s items",
                lambda dropped: (
                    f"no pair is left of {chosen} against {rejected}{dropped}."
                    " Loosen the rule, or make both from the same images."
                ),
            )
    return output


def mix(pairs: Sequence[Path], output: Path) -> Path:
    """Join several sets of pairs in one.

    Args:
        pairs: Folders of pairs.
        output: Folder of all of them.

    Returns:
        `output`.
    """
    artifact = Artifact(output, "mix", {"inputs": [finished_key(folder) for folder in pairs]})
    with artifact.claimed() as unfinished:
        if unfinished:
            sets = [PairSet(folder) for folder in pairs]
            rows = (row for each in sets for row in each.rows())
            pools = {pool.folder: pool for each in sets for pool in each.pools()}
            number = PairSet(output).write(rows, list(pools.values()))
            artifact.finish(pairs=number)
            print(f"{number} pairs of {len(sets)} sets")
    return output


class _Side:
    """A pool, or the chosen images of earlier pairs in their pools."""

    def __init__(self, folder: Path, read: Collection[str] | None, scored: Collection[str]) -> None:
        self.scored = scored
        self.key: dict[str, Any] = {"artifact": finished_key(folder)}
        if PairSet(folder).file.is_file():
            self.only: set[str] | None = set(PairSet(folder).table()["chosen_id"].to_pylist())
            self.pools = PairSet(folder).pools()
        else:
            self.only = None
            self.pools = [Pool(folder)]
        self.key["scores"] = [score_keys(pool, read) for pool in self.pools]

    def groups(self) -> Iterator[Group]:
        return (group for pool in self.pools for group in Groups(pool, self.only, self.scored))
