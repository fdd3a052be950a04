"""Steps of sampled trajectories as training batches: D3PO.

With the steps `x' = own * x + predicted * prediction + sigma * z` of DDIM, an image's error is
`mean((x' - mean_policy(x))^2) / (2 sigma^2)`: the negative log-density of its step, a constant
apart and averaged over the latent's elements. Differences of errors are log-ratios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tastemaker.backbones import Backbone, Conditioning, SamplingBatch, stack
from tastemaker.backbones.staged import load_parts
from tastemaker.backbones.tokens import TEXT
from tastemaker.backbones.trajectories import GaussianSteps, gaussian_steps
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.storage.candidates import Rows, has_trajectories
from tastemaker.storage.files import read_record
from tastemaker.storage.locks import ARTIFACT_FILE
from tastemaker.storage.pairs import PairSet
from tastemaker.training.batches import moved
from tastemaker.training.preference.data import PairBatch, PairBatches


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of pairs, and how they were sampled.

    Attributes:
        paths: Float16, [pairs, 2, steps + 1, channels, h, w], the chosen image's first.
        steps: Their steps.
        negative: Embeddings of the negative prompt, one row.
        guidance_scale: Classifier-free guidance.
    """

    paths: torch.Tensor
    steps: GaussianSteps
    negative: Conditioning
    guidance_scale: float


def read_trajectories(
    pairs: str | Path | PairSet | Sequence[Mapping[str, Any]], backbone: Backbone
) -> Trajectories:
    """Read the trajectories of the images of pairs into memory.

    Args:
        pairs: A folder of pairs of one pool with trajectories.
        backbone: The model, with its text encoders.

    Raises:
        TastemakerError: The pairs are of another kind, their images differ in size, or the family
            is sampled without noise.
    """
    pairs = PairSet(Path(pairs)) if isinstance(pairs, str | Path) else pairs
    pools = pairs.pools() if isinstance(pairs, PairSet) else []
    if not isinstance(pairs, PairSet) or len(pools) != 1 or not has_trajectories(pools[0]):
        raise TastemakerError(
            "train.noise=trajectory needs pairs of one pool with trajectories: make it with"
            " generate trajectories=true."
        )
    rows = Rows(pools[0], ("trajectory", "trajectory_shape"))
    found = [
        [_path(rows[pair["chosen_id"]]), _path(rows[pair["rejected_id"]])] for pair in pairs.rows()
    ]
    if len({each.shape for both in found for each in both}) > 1:
        raise TastemakerError("train.noise=trajectory needs images of one size; pair such alone.")
    paths = torch.from_numpy(np.array(found))
    config = read_record(pools[0].folder / ARTIFACT_FILE, config=dict)["config"]
    load_parts(backbone, [each for each in backbone.networks if each.startswith(TEXT)])
    negative = backbone.encode_negative(config["negative_prompt"])
    steps = gaussian_steps(backbone, paths.shape[2] - 1, paths.shape[3:])
    return Trajectories(paths, steps, negative, backbone.guidance_scale(config["guidance_scale"]))


def _path(row: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(row["trajectory"], np.float16).reshape(row["trajectory_shape"])


@dataclass(frozen=True, eq=False)
class TrajectoryBatches(PairBatches):
    """Pairs at a step of their trajectories, the same for both images and drawn uniformly.

    A last step that is exact has no density and is left out. Policy and reference predict with the
    guidance that the trajectories were sampled with.
    """

    trajectories: Trajectories = field(kw_only=True)

    def noisy(self, pairs: torch.Tensor, draws: Sequence[int]) -> PairBatch:
        """Take pairs at a step.

        Args:
            pairs: Indices of pairs, shape [draws].
            draws: Numbers of the samples in the run, or of `FixedDraws`.

        Returns:
            The batch on the device.
        """
        walks, steps = self.trajectories, self.trajectories.steps
        usable = int((steps.sigma > 0).sum())
        generators = [keyed_generator(self.config.seed, "draw", draw) for draw in draws]
        places = torch.cat([torch.randint(usable, (1,), generator=each) for each in generators])
        here, there = (self._latents(pairs, places + i) for i in (0, 1))
        own, predicted, sigma = (each[places].repeat(2).view(-1, 1, 1, 1) for each in steps[1:])
        rows = self.data.prompts(pairs).repeat(2)
        conditioning = {
            name: moved(value, self.device) for name, value in self.data.text(rows)[0].items()
        }
        negative = {name: value.to(conditioning[name]) for name, value in walks.negative.items()}
        return PairBatch(
            noisy_latents=moved(here, self.device),
            timesteps=moved(steps.timesteps[places].repeat(2), self.device),
            target=moved((there - own * here) / predicted, self.device),
            conditioning=conditioning,
            guided=SamplingBatch(
                conditioning,
                stack([negative] * len(rows)),
                (),
                num_inference_steps=len(steps.sigma),
                guidance_scale=walks.guidance_scale,
            ),
            weight=moved(predicted / (2**0.5 * sigma), self.device),
            score_gap=moved(self.data.gaps(pairs), self.device),
        )

    def _latents(self, pairs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Latents of both sides at places of their trajectories, float32, chosen first."""
        sides = self.trajectories.paths[pairs, :, places].transpose(0, 1)
        return (sides.flip(0) if self.config.swapped else sides).flatten(0, 1).float()
