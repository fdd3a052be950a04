"""Pair scored candidates: a rule picks (chosen, rejected) among those of one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tastemaker.config.commands import takes_options
from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import columns
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import RULES
from tastemaker.core.values import Names
from tastemaker.datasets.filters import prompt_reasons, words_key
from tastemaker.pairing.picks import (
    Dropped,
    PairRows,
    Pick,
    checked,
    extremes,
    filtered,
    finish_pairs,
    widest,
)
from tastemaker.preflight import check, expect, expect_columns
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.groups import Group, Groups, ScorerName, ZScored, columns_read, score_keys
from tastemaker.storage.pool import Pool

Weights = Annotated[
    dict[str, float],
    Names("column"),
    Field(min_length=1, description="Scorer name to weight."),
]


@RULES.register("best_worst")
def best_worst(group: Group, *, scorer: ScorerName) -> Iterator[Pick | Dropped]:
    """The best-scored candidate against the worst-scored, one pair per prompt.

    Ties (all scores equal) give no pair; among equals the first in pool order is taken.

    Args:
        group: One prompt's candidates.
        scorer: Column of the pool's scores.

    Yields:
        At most one pick.
    """
    yield from extremes(group.scored_by(scorer))


@RULES.register("threshold")
def threshold(
    group: Group,
    *,
    scorer: Annotated[
        str | Weights,
        Names("column"),
        Field(description="Column of the pool's scores, or columns with weights."),
    ],
    gap: Annotated[float, Field(ge=0, description="Keep pairs whose score gap exceeds this.")],
    max_pairs: Annotated[
        int | None, Field(ge=1, description="Most pairs per prompt; null: all.")
    ] = 4,
    zscored: ZScored = False,
) -> Iterator[Pick | Dropped]:
    """Every pair of a prompt whose score gap exceeds a value, the widest first.

    `gap=0` and `max_pairs=None` keep all pairs that the score orders. Dropped pairs are counted as
    ordered pairs: of two candidates, one order at least always is dropped.

    Args:
        group: One prompt's candidates.
        scorer: Column of the pool's scores, or several with their weights.
        gap: Smallest gap, exclusive, in the score's units.
        max_pairs: Most pairs per prompt.
        zscored: Divide each scorer's scores by their standard deviation over the pool; the gap is
            in these units then.

    Yields:
        Picks in order of falling gap.
    """
    scores = group.scored_by(scorer, zscored=zscored)
    gaps = [Pick(c, r, scores[c] - scores[r]) for c, r in permutations(range(len(scores)), 2)]
    picks = [pick for pick in gaps if pick.margin > gap]
    if len(picks) < len(gaps):
        yield Dropped(f"ordered pairs with a gap of at most {gap:g}", len(gaps) - len(picks))
    yield from widest(picks, max_pairs)


@RULES.register("weighted")
def weighted(
    group: Group, *, weights: Weights, zscored: ZScored = False
) -> Iterator[Pick | Dropped]:
    """Best against worst by a weighted sum of scores: `sum_k weight_k * score_k`.

    Scores enter in their own units, or in those of their spread, which balances two scales. Rule
    `threshold` takes the same sum where more than one pair per prompt is wanted.

    Args:
        group: One prompt's candidates.
        weights: Scorer name to weight; a negative weight reverses a scorer.
        zscored: Divide each scorer's scores by their standard deviation over the pool.

    Yields:
        At most one pick.

    References:
        DreamBoothDPO, arXiv 2505.20975: `lambda * TS + (1 - lambda) * IS`.
    """
    yield from extremes(group.scored_by(weights, zscored=zscored))


@RULES.register("harmonic")
def harmonic(
    group: Group,
    *,
    fidelity: Annotated[
        str, Names("column"), Field(description="Scores of fidelity to the subject: cosines.")
    ],
    prompt: Annotated[
        str, Names("column"), Field(description="Scores of fidelity to the prompt: cosines.")
    ],
    weight: Annotated[
        float, Field(ge=0, le=1, description="The paper's lambda: share of the subject.")
    ] = 0.3,
) -> Iterator[Pick | Dropped]:
    """Best against worst by the lambda-harmonic reward: one low score pulls it down.

    `reward = 1 / (lambda / s_I + (1 - lambda) / s_T)`, `s = (1 + cos) / 2`.

    Args:
        group: One prompt's candidates.
        fidelity: Column of cosines to the subject's photographs, such as `image_similarity`.
        prompt: Column of cosines to the prompt, such as `text_similarity`.
        weight: lambda; 0 is the prompt alone, 1 the subject alone.

    Yields:
        At most one pick.

    Raises:
        TastemakerError: A score is not a cosine.

    References:
        Miao et al. (RPO), arXiv 2407.12164; the map of cosines to [0, 1] and lambda = 0.3 are those
        of its code, which takes ALIGN for both cosines.
    """
    cosines = (group.scored_by(fidelity), group.scored_by(prompt))
    if any(abs(cosine) > 1 + 1e-6 for column in cosines for cosine in column):
        raise TastemakerError(
            f"rule harmonic takes cosines, and {fidelity!r} or {prompt!r} has a score beyond 1;"
            " name columns of image_similarity and text_similarity."
        )
    yield from extremes([_harmonic(*each, weight) for each in zip(*cosines, strict=True)])


def _harmonic(image: float, text: float, weight: float) -> float:
    parts = ((weight, (1 + image) / 2), (1 - weight, (1 + text) / 2))
    held = [(share, score) for share, score in parts if share > 0]
    if any(score <= 0 for _, score in held):
        return 0.0  # the limit
    return 1 / sum(share / score for share, score in held)


@takes_options(PairConfig)
def pair(config: PairConfig, pool: Path, output: Path) -> Path:
    """Pair a scored pool's candidates.

    Args:
        config: The rule, and filters of its pairs.
        pool: A scored pool.
        output: Folder of the pairs.

    Returns:
        `output`, which then holds `pairs.parquet` and `pools.json`.

    Raises:
        TastemakerError: No score by the rule's scorer, or no pair left after the rule.
    """
    check(config)
    expect(pool, "pool")
    source = Pool(pool)
    expect_columns([source], config)
    code = RULES.code(config.rule.name)
    inputs = {
        "pool": finished_key(pool),
        "scores": score_keys(source, columns_read(config, code)),
        "words": words_key(config.filters),
        "code": code,
    }
    artifact = Artifact(output, "pair", {**config.model_dump(mode="json"), "inputs": inputs})
    with artifact.claimed() as unfinished:
        if unfinished:
            _pair(config, source, artifact)
    return output


def _pair(config: PairConfig, source: Pool, artifact: Artifact) -> None:
    rule = RULES.bind(config.rule.name, config.rule.options)
    found = Groups(source, scored={name for _, name in columns(config)})
    reasons = prompt_reasons(config.filters, config.split)

    def kept(group: Group) -> Iterator[Pick | Dropped]:
        reason = reasons(group.prompt)
        if reason is None:
            picks = checked(config.rule.name, rule(group))
            yield from filtered(picks, group, config.filters)
        else:
            yield Dropped(reason)

    def picks() -> Iterator[tuple[Group, Group, Pick | Dropped]]:
        if found.unscored:
            why = "candidates without a score that the options name"
            yield Group("", ""), Group("", ""), Dropped(why, found.unscored)
        for group in found:
            yield from ((group, group, pick) for pick in kept(group))

    finish_pairs(
        artifact,
        PairRows(picks(), config.rule.name),
        [source],
        f"{len(found)} prompts' candidates",
        lambda dropped: (
            f"rule {config.rule.name!r} left no pair of {len(found)} prompts in"
            f" {source.folder}{dropped}. Generate more candidates per prompt, or loosen the rule."
        ),
    )
