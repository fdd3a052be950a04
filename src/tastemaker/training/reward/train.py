"""Reward back-propagation (AlignProp): the gradient of a scorer to a trained model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tastemaker.config.commands import takes_options
from tastemaker.config.training import RewardTrainConfig
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.preflight import check
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.trained_prompts import write_trained_prompts
from tastemaker.training.checks import check_training


@takes_options(RewardTrainConfig)
def train_reward(config: RewardTrainConfig, output: Path) -> Path:
    """Train a LoRA on the gradient of a scorer, or go on from the newest checkpoint.

    Args:
        config: Model, prompts, scorer, sampler, adapters and optimizer.
        output: Folder of the trained LoRA with `model.json`; beside it `metrics.jsonl` and
            `checkpoints/`.

    Returns:
        `output`, usable as `model` anywhere.

    Raises:
        TastemakerError: No prompts, no such model, a folder of another configuration, a score or
            gradient that is not finite, a full disk.

    References:
        Prabhudesai et al. (AlignProp), arXiv 2310.03739.
    """
    check(config)
    prompts = load_prompts(config.prompts)

    from tastemaker.backbones import model_identity

    settings = config.identity()
    from tastemaker.scorers.inputs import scorer_inputs

    inputs = {
        "model": model_identity(config.model),
        "prompts": prompts,
        "scorer": scorer_inputs(config.scorer),
    }
    artifact = Artifact(output, "align_prop", {**settings, "inputs": inputs}, config.rising)
    with artifact.claimed(partial(check_training, config)) as unfinished:
        if unfinished:
            from tastemaker.training.reward.trainer import RewardTrainer

            RewardTrainer(config, prompts, output).run()
            write_trained_prompts(output, prompts, [config.model])
            artifact.finish(steps=config.max_steps)
    return output
