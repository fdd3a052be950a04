"""AlignProp: the gradient of a scorer, propagated back through the sampler, trains the model."""

from __future__ import annotations

from tastemaker.config.runs import RewardRun
from tastemaker.core.registry import RECIPES
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.reward.train import train_reward


@RECIPES.register("align_prop")
def align_prop(config: RewardRun, run: RunDir) -> None:
    """Align a model with a differentiable scorer, without candidates or pairs.

    1. Draw images of training prompts with DDIM, the last K steps with their graph; K is drawn
       anew at each optimizer step.
    2. Score them, and propagate `loss = -reward_scale * mean(score)` back through scorer, decoder
       and the K steps to a LoRA.
    3. Judge policy against base on other prompts, count those trained on, and show the result.

    Args:
        config: The run.
        run: Its folder.

    References:
        Prabhudesai et al., arXiv 2310.03739.
    """
    policy = train_reward(config.train, run.policy)
    evaluate(config.evaluate, {"policy": policy}, run.evaluation, run.report_json)
