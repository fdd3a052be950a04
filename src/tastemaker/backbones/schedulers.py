"""Known schedulers of diffusers, and samplers on a model's own noise schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import diffusers
import torch

from tastemaker.core.errors import TastemakerError, nearest

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

DIFFUSION = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers of `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise` at integer timesteps."""

FLOW = ("FlowMatchEulerDiscreteScheduler",)
"""Schedulers of `x_s = (1 - s) x_0 + s noise` by Euler's method."""

PREDICTIONS = ("epsilon", "v_prediction", "sample")

REFUSED = {
    "timestep_type": ("continuous",),
    "use_flow_sigmas": (True,),
    "variance_type": ("learned", "learned_range"),
    "stochastic_sampling": (True,),
    "invert_sigmas": (True,),
}
"""Options that make another process of a known class: training would not follow it."""

SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
"""Options that belong to the model, whatever its sampler."""

ENDS = ("steps_offset", "set_alpha_to_one")
"""Options of a sampler's last step; other samplers take them from the model's own."""

LATENTS = {"clip_sample": False, "thresholding": False}
"""Options for samplers of latents: pixels are in [-1, 1], latents are not."""

USUAL = {"set_alpha_to_one": False, "skip_prk_steps": True}
"""Options of Stable Diffusion's samplers, for what a model's file does not say."""


def sampler(kind: Any, scheduler: Any) -> Any:
    """Build a sampler of latents on the noise schedule of a model's scheduler.

    diffusers' `from_config` takes the defaults of the new class for all that the model's own file
    leaves out: other betas where the defaults differ (LCM, Heun), and `clip_sample=True` (DDIM,
    DDPM), which cuts latents off at 1. Here the noise schedule is the model's also where it is a
    default, and latents are never clipped.

    Args:
        kind: A scheduler class of diffusers.
        scheduler: The model's own scheduler.

    Returns:
        An instance of `kind`.

    Raises:
        TastemakerError: The class needs a package that is missing, or refuses the schedule.
    """
    config = dict(scheduler.config)
    defaults = set(config.pop("_use_default_values", ())) - {*SCHEDULE, *ENDS}
    own = {key: value for key, value in config.items() if key not in defaults}
    try:
        return kind.from_config({**USUAL, **own, **LATENTS})
    except (ImportError, NotImplementedError, ValueError) as error:
        said = " ".join(str(error).split())
        raise TastemakerError(f"{kind.__name__} cannot be built: {said}") from error


def set_scheduler(backbone: Backbone, name: str) -> None:
    """Replace a model's sampler by another diffusers scheduler with the same training schedule.

    Args:
        backbone: The model.
        name: Class name, such as "DDIMScheduler".

    Raises:
        TastemakerError: The family cannot be sampled by it.
    """
    if name not in backbone.samplers:
        raise TastemakerError(
            f"scheduler {name!r} does not suit {backbone.name}. {nearest(name, backbone.samplers)}"
            " Or leave scheduler out."
        )
    backbone.pipeline.scheduler = sampler(getattr(diffusers, name), backbone.pipeline.scheduler)
    if backbone.samplers is DIFFUSION:
        noise_schedule_of(backbone.name, backbone.pipeline.scheduler)


def check_scheduler(model: str, name: str, config: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a scheduler by its class and options, before it is built.

    Args:
        model: For the message.
        name: Class of the model's scheduler.
        config: Its configuration.
        known: `DIFFUSION` or `FLOW`.

    Raises:
        TastemakerError: Class, prediction type or an option is not understood.
    """
    remedy = "Take a model that was trained so, or one whose scheduler_config.json says how."
    if name not in known:
        raise TastemakerError(
            f"{model}: its scheduler is a {name}, whose noise schedule is not understood for this"
            f" family; known: {', '.join(known)}. {remedy}"
        )
    prediction = config.get("prediction_type", "epsilon")
    if known is DIFFUSION and prediction not in PREDICTIONS:
        raise TastemakerError(
            f"{model}: prediction_type {prediction!r} of its scheduler is not understood; known:"
            f" {', '.join(PREDICTIONS)}. {remedy}"
        )
    for option, refused in REFUSED.items():
        if config.get(option) in refused:
            raise TastemakerError(
                f"{model}: its scheduler has {option}={config[option]!r}, which is not understood"
                f" in training. {remedy}"
            )


def noise_schedule_of(model: str, scheduler: Any) -> Any:
    """Return the `DDPMScheduler` of a model's noise schedule, checked against its own scheduler.

    Args:
        model: For the message.
        scheduler: A diffusers scheduler of `DIFFUSION`.

    Returns:
        The scheduler whose `add_noise` and `get_velocity` are those of training.

    Raises:
        TastemakerError: The schedule does not fall from 1 to 0, has another length than its
            timesteps, ends in pure noise that a noise prediction tells nothing of, is not the one
            that the scheduler draws with, or it has no step for what the model predicts.
    """
    schedule = sampler(diffusers.DDPMScheduler, scheduler)
    abar, length = schedule.alphas_cumprod, schedule.config.num_train_timesteps
    levels = torch.cat([abar.new_ones(1), abar]).double()
    if len(abar) != length or not (levels.diff() < 0).all() or levels[-1] < 0:
        raise TastemakerError(
            f"{model}: the betas of its scheduler give no noise schedule of {length} timesteps that"
            " falls from 1 towards 0; mend beta_start, beta_end or trained_betas in its"
            " scheduler_config.json."
        )
    if abar[-1] == 0 and schedule.config.prediction_type == "epsilon":
        raise TastemakerError(
            f"{model}: with rescale_betas_zero_snr its last timestep is pure noise, of which a"
            " noise prediction (prediction_type epsilon) says nothing; such models predict v. Mend"
            " its scheduler_config.json."
        )
    _try_step(model, scheduler)
    if not torch.allclose(scheduler.alphas_cumprod.to(abar), abar, atol=1e-6):
        raise TastemakerError(
            f"{model}: a {type(scheduler).__name__} does not draw from its noise schedule"
            f" (beta_schedule {schedule.config.beta_schedule}, rescale_betas_zero_snr"
            f" {schedule.config.rescale_betas_zero_snr}); name another: scheduler=DDIMScheduler."
        )
    return schedule


def _try_step(model: str, scheduler: Any) -> None:
    """Take a step: some classes find out there that they know no such prediction."""
    trial = sampler(type(scheduler), scheduler)
    latents = torch.zeros(1, 4, 8, 8)
    try:
        trial.set_timesteps(min(4, trial.config.num_train_timesteps))
        first = trial.timesteps[0]
        trial.step(latents, first, trial.scale_model_input(latents, first))
    except (NotImplementedError, ValueError) as error:
        raise TastemakerError(
            f"{model}: a {type(scheduler).__name__} cannot draw from it ({error}); name another:"
            " scheduler=DDIMScheduler."
        ) from error
