"""Candidates of a recipe: the model's own, or imported comparisons."""

from __future__ import annotations

from pathlib import Path

from tastemaker.config.runs import PreferenceRun
from tastemaker.datasets.importing import import_comparisons
from tastemaker.evaluation.score import score
from tastemaker.sampling.generate import generate
from tastemaker.storage.run_dir import RunDir


def scored_candidates(config: PreferenceRun, run: RunDir) -> Path:
    """Generate or import candidates, and score them where scorers are named.

    Args:
        config: The run; `data` or `generate` is given.
        run: Its folder.

    Returns:
        The scored pool.
    """
    if config.data is not None:
        import_comparisons(config.data, run.candidates)
    elif config.generate is not None:
        generate(config.generate, run.candidates)
    if config.score is not None:
        score(config.score, run.candidates)
    return run.candidates
