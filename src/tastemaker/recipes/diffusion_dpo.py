"""Diffusion-DPO: draw candidates, score them, pair best with worst, train, judge."""

from __future__ import annotations

from tastemaker.config.runs import PreferenceRun
from tastemaker.core.registry import RECIPES
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.pairing.pair import pair
from tastemaker.recipes.candidates import scored_candidates
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.preference.train import train


@RECIPES.register("diffusion_dpo")
def diffusion_dpo(config: PreferenceRun, run: RunDir) -> None:
    """Align a model with the preferences of a scorer, from its own samples.

    1. Draw N candidates for every training prompt from the base model, or import images that
       people compared.
    2. Score them.
    3. Pair the candidates of a prompt by a rule.
    4. Train the policy with the base as reference: `-logsigmoid(0.5 * beta * margin)`.
    5. Judge policy against base on other prompts, count those trained on, and show the result.

    Args:
        config: The run.
        run: Its folder.

    References:
        Wallace et al., arXiv 2311.12908.
    """
    pool = scored_candidates(config, run)
    pairs = pair(config.pair, pool, run.pairs)
    policy = train(config.train, pairs, run.policy)
    evaluate(config.evaluate, {"policy": policy}, run.evaluation, run.report_json)
