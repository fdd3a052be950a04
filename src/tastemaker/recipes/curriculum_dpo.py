"""Curriculum-DPO: Diffusion-DPO with the pairs of the widest gap first."""

from __future__ import annotations

from tastemaker.config.runs import CurriculumRun
from tastemaker.core.registry import RECIPES
from tastemaker.recipes.diffusion_dpo import diffusion_dpo
from tastemaker.storage.run_dir import RunDir


@RECIPES.register("curriculum_dpo")
def curriculum_dpo(config: CurriculumRun, run: RunDir) -> None:
    """Align a model from easy pairs to hard ones: wide gaps of score first, narrower ones added.

    1. Draw candidates, score them.
    2. Pair every two candidates of a prompt whose gap exceeds tau: rule `threshold`.
    3. Train on the widest gaps, and every so many steps add the next part: `train.curriculum`.
    4. Judge.

    The steps and their order are Diffusion-DPO's.

    Args:
        config: The run.
        run: Its folder.

    References:
        Croitoru et al., Curriculum-DPO, arXiv 2405.13637: six parts, the next after 500 steps.
    """
    diffusion_dpo(config, run)
