"""DDE: as Diffusion-DPO, with credit given to each denoising step for the finished image."""

from __future__ import annotations

from tastemaker.config.runs import PreferenceRun
from tastemaker.core.registry import RECIPES
from tastemaker.recipes.diffusion_dpo import diffusion_dpo
from tastemaker.storage.run_dir import RunDir


@RECIPES.register("dde")
def dde(config: PreferenceRun, run: RunDir) -> None:
    """Align a model with preferences, crediting denoising steps by what they do to x_0.

    1. Import compared images (Pick-a-Pic), or draw candidates from the base model.
    2. Relabel them by a scorer where one is named; people's verdicts are the column `human`.
    3. Pair the images of each comparison, ties dropped.
    4. Train with `z = -0.5 * beta * difference of (kappa_t * error + C_t)`: the step drawn counts
       by what its error does to the finished image, and the steps before it by running estimates.
    5. Judge policy against base, and show kappa, the corrections and where the weight went.

    The steps and their order are Diffusion-DPO's. The scheme is `train.credit`: `dde`, or
    `dde_single`, `dde_step`, `discounted`, `window` and `uniform` to compare with, on equal pairs.

    Args:
        config: The run.
        run: Its folder.

    References:
        Denoised distribution estimation, arXiv 2411.14871.
    """
    diffusion_dpo(config, run)
