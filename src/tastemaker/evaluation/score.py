"""Score candidates."""

from __future__ import annotations

from pathlib import Path

from tastemaker.config.commands import takes_options
from tastemaker.config.sections import ScoreConfig
from tastemaker.preflight import check, expect
from tastemaker.scorers.pool import score_pools
from tastemaker.storage.pool import Pool


@takes_options(ScoreConfig)
def score(config: ScoreConfig, pool: Path) -> Path:
    """Add the scores of every configured scorer to a pool.

    Args:
        config: Scorers and how to run them.
        pool: Folder of a finished pool.

    Returns:
        `pool`.

    Raises:
        TastemakerError: No such pool, an unknown model, a corrupt image, a score that is NaN or
            infinite.
    """
    check(config)
    expect(pool, "pool")

    score_pools(
        [Pool(pool)],
        config.scorers,
        reuse=[Pool(Path(folder).expanduser()) for folder in config.reuse],
        batch_size=config.batch_size,
        device=config.device,
        dtype=config.dtype,
    )
    return pool
