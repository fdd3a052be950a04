"""Fixed draws of timestep and noise per pair, and the reference's errors on them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tastemaker.backbones import adapter_identity, model_identity
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.files import atomic, config_key

DEPENDS_ON = (
    *("reference", "reference_draws", "method", "text_lora", "dtype"),
    *("seed", "noise", "inversion_steps", "swapped"),
    *("sample_posterior", "proportion_empty_prompts"),
)
"""Options that the reference's errors on fixed draws depend on, `model` and `start` aside."""


def fixed_draws(
    config: TrainConfig,
    data: Encoded,
    densities: Sequence[torch.Tensor | None],
    folder: Path | None,
) -> FixedDraws | None:
    """Open the errors of `reference_draws`, kept under all that they depend on.

    Args:
        config: Of the training.
        data: The encoded pairs.
        densities: How often each timestep is drawn, one density per bucket of latents.
        folder: Where they are kept; None keeps them in memory.

    Returns:
        None where the reference is live.
    """
    if config.reference_draws is None:
        return None
    file = None
    if folder is not None:
        depends = {
            "model": model_identity(config.model),
            "start": config.start and adapter_identity(config.start),
            "pairs": data.fingerprint,
            "densities": [each if each is None else each.tolist() for each in densities],
            **config.model_dump(mode="json", include=set(DEPENDS_ON)),
        }
        file = folder / f"reference-{config_key('reference', depends)}.npy"
    return FixedDraws(len(data), config.reference_draws, file)


class FixedDraws:
    """A pair trains on the same few draws in every epoch, so that its reference errors are known.

    A draw has a negative number, which no sample of a run has; with it `PairBatches` keys timestep,
    noise, posterior samples and the dropout of prompts. Errors are two floats per pair and draw.

    Args:
        pairs: Number of pairs.
        draws: Per pair.
        file: Keeps the errors, for every training that uses the same; None keeps them in memory.
    """

    def __init__(self, pairs: int, draws: int, file: Path | None = None) -> None:
        self.pairs = pairs
        self.draws = draws
        self.errors = np.full((draws * pairs, 2), np.nan, np.float32)
        if file is None:
            return
        if not _whole(file):
            # Whole, so that a full disk is noticed here, and written in place from then on.
            with atomic(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, self.errors)
        self.errors = np.load(file, mmap_mode="r+")

    def numbers(self, pairs: torch.Tensor, samples: Sequence[int]) -> list[int]:
        """Number the draws of samples: epoch e, of as many samples as pairs, takes draw `e % K`.

        Args:
            pairs: Their pairs, shape [samples].
            samples: Their numbers in the run.

        Returns:
            Negative numbers.

        Example:
            >>> FixedDraws(pairs=10, draws=2).numbers(torch.tensor([3, 3, 3]), [5, 15, 25])
            [-4, -14, -4]
        """
        epochs = (sample // self.pairs for sample in samples)
        return [
            -1 - epoch % self.draws * self.pairs - pair
            for epoch, pair in zip(epochs, pairs.tolist(), strict=True)
        ]

    def known(self, numbers: Sequence[int]) -> bool:
        """Return whether the errors on all these draws are known."""
        return bool(np.isfinite(self.errors[self._rows(numbers)]).all())

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return the errors on draws, those on chosen images first, shape [2 * numbers]."""
        return torch.from_numpy(self.errors[self._rows(numbers)].T.reshape(-1))

    def write(self, numbers: Sequence[int], errors: torch.Tensor) -> None:
        """Keep errors; what is known stays, so that they do not depend on the cut into batches.

        Args:
            numbers: Of the draws.
            errors: In the order of `read`.

        Raises:
            TastemakerError: One is not finite.
        """
        fresh = errors.float().cpu().numpy().reshape(2, -1).T
        if not np.isfinite(fresh).all():
            raise TastemakerError(
                "an error of the reference is not finite: check the pairs' images, or raise"
                " train.dtype to fp32."
            )
        rows = self._rows(numbers)
        there = self.errors[rows]
        self.errors[rows] = np.where(np.isfinite(there), there, fresh)

    def _rows(self, numbers: Sequence[int]) -> np.ndarray:
        return -1 - np.asarray(numbers)


def _whole(file: Path) -> bool:
    """Return whether a file is there and not cut short, which `r+` would fill with zeros."""
    try:
        np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True
