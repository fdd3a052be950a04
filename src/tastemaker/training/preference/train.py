"""Train a model on pairs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tastemaker.config.commands import takes_options
from tastemaker.config.training import TrainConfig
from tastemaker.core.registry import CREDITS, LOSSES
from tastemaker.preflight import check, expect, expect_columns
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.groups import score_keys
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import write_trained_prompts
from tastemaker.training.checks import check_training


@takes_options(TrainConfig)
def train(config: TrainConfig, pairs: Path, output: Path) -> Path:
    """Train a model on pairs, or go on from the newest checkpoint.

    Args:
        config: Model, loss, adapters, optimizer and guards.
        pairs: Folder of pairs; with `verdicts` a scored pool.
        output: Folder of the trained model: a LoRA with `model.json`, or a pipeline; beside it
            `metrics.jsonl`, `checkpoints/` and `validation/`.

    Returns:
        `output`, usable as `model` anywhere.

    Raises:
        TastemakerError: No pairs, no such model, a folder of another configuration, a loss or
            gradient that is not finite, a full disk.
    """
    check(config)
    expect(pairs, "pairs" if config.verdicts is None else "pool")
    losses = (config.loss.name, *(each.name for each in config.extra_losses))
    inputs: dict[str, Any] = {
        "pairs": finished_key(pairs),
        "code": {**LOSSES.code(*losses), **CREDITS.code(config.credit.name)},
    }

    from tastemaker.backbones import adapter_identity, model_identity

    settings = config.identity()
    if config.verdicts is not None:
        expect_columns([Pool(pairs)], config)
        inputs["scores"] = score_keys(Pool(pairs), [config.verdicts])
    inputs["model"] = model_identity(config.model)
    if config.start is not None:
        inputs["start"] = adapter_identity(config.start)
    artifact = Artifact(output, "train", {**settings, "inputs": inputs}, config.rising)
    with artifact.claimed(partial(check_training, config)) as unfinished:
        if unfinished:
            from tastemaker.training.preference.trainer import PreferenceTrainer
            from tastemaker.training.preference.verdicts import examples_of

            PreferenceTrainer(config.model, pairs, config, output=output).run()
            before = [model for model in (config.model, config.start) if model is not None]
            prompts = (text for _, text, _ in examples_of(pairs, config).rows())
            write_trained_prompts(output, prompts, before)
            artifact.finish(steps=config.max_steps)
    return output
