"""HG-DPO: real photographs as winners, reached by three stages."""

from __future__ import annotations

from pathlib import Path

from tastemaker import backbones
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.runs import RealRun, StageConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.registry import RECIPES
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.pairing.join import mix
from tastemaker.recipes.real_images import Images, stage_pairs
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.preference.train import train


@RECIPES.register("hg_dpo")
def hg_dpo(config: RealRun, run: RunDir) -> None:
    """Lift a model beyond its own samples: real photographs win, by a three-stage curriculum.

    1. Import real photographs with captions; draw N candidates for each from the base; score them.
    2. Easy: the best candidate over the worst.
    3. Normal: the photograph noised half-way and denoised by the base, the best of several noise
       levels, over easy's chosen; only where the score does not fall.
    4. Hard: the photograph, or a reconstruction close to it, over normal's chosen.
    On request, before them: SFT on the photographs (`warm_up`).
    5. One LoRA goes on through the stages; each stage's reference is the model at its start.
    6. On request the text encoder's own LoRA, trained apart on easy's pairs with the base's U-Net.
    7. Judge every stage against the base.

    Args:
        config: The run: what wins over what in each stage, and its training.
        run: Its folder.

    References:
        HG-DPO, arXiv 2405.20216; RealAlign, arXiv 2605.19839, for the warm-up.
    """
    images = Images(config, run)
    held_out = images.held_out()
    models: dict[str, Path] = {}
    before = warmed_up(config, images)
    for name, stage in config.stages.items():
        pairs = stage_pairs(images, name, stage)
        last = name == list(config.stages)[-1] and config.text_encoder is None
        label = "policy" if last else name
        before = models[label] = train(carried_on(stage, before), pairs, run.model(label))
    if config.text_encoder is not None:
        assert before is not None
        pairs = run.stage_pairs(config.text_encoder.pairs)
        text = train(config.text_encoder.train, pairs, run.model("text_encoder"))
        models["policy"] = backbones.merge_adapters([before, text], run.policy)
    evaluate(judging(config, held_out), models, run.evaluation, run.report_json)


@RECIPES.register("hg_dpo_mixed")
def hg_dpo_mixed(config: RealRun, run: RunDir) -> None:
    """HG-DPO without its curriculum: the pairs of all stages at once, one training.

    The paper's ablation "all stages mixed". Trained as the last stage says.

    Args:
        config: The run.
        run: Its folder.

    References:
        HG-DPO, arXiv 2405.20216, ablation.
    """
    images = Images(config, run)
    held_out = images.held_out()
    sets = [stage_pairs(images, name, stage) for name, stage in config.stages.items()]
    last = list(config.stages.values())[-1]
    training = carried_on(last, warmed_up(config, images))
    policy = train(training, mix(sets, run.stage_pairs("mixed")), run.policy)
    evaluate(judging(config, held_out), {"policy": policy}, run.evaluation, run.report_json)


def warmed_up(config: RealRun, images: Images) -> Path | None:
    """Train on the images that `warm_up` chooses, by the loss `sft`, before all stages.

    Args:
        config: The run.
        images: Its pools.

    Returns:
        The model that the first stage goes on from; None without `warm_up`.
    """
    if config.warm_up is None:
        return None
    pairs = stage_pairs(images, "warm_up", config.warm_up)
    options = {**config.warm_up.train.model_dump(), "loss": "sft"}
    return train(TrainConfig.model_validate(options), pairs, images.run.model("warm_up"))


def judging(config: RealRun, held_out: Path | None) -> EvaluateConfig:
    """Return the options of the evaluation, with the run's held-out images to compare with."""
    if held_out is None:
        return config.evaluate
    return config.evaluate.model_copy(update={"real": str(held_out)})


def carried_on(stage: StageConfig, before: Path | None = None) -> TrainConfig:
    """A stage's training, which goes on where the stage before it ended.

    Args:
        stage: Its options.
        before: The model after the stage before; None for the first stage.

    Returns:
        Its training with start and reference.
    """
    if before is None:
        return stage.train
    if stage.train.method == "full":
        return stage.train.model_copy(update={"model": str(before)})
    reference = "frozen_adapter" if stage.reference == "start" else "adapters_off"
    return stage.train.model_copy(update={"start": str(before), "reference": reference})
