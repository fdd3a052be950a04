"""Select trainable parameters: add LoRA adapters, resume from a LoRA, or unfreeze all weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import ADAPTER, START, add_lora
from tastemaker.backbones.lora.layers import read_layers
from tastemaker.backbones.lora.weights import load_adapter
from tastemaker.backbones.places import LORA_FILE
from tastemaker.backbones.staged import load_parts
from tastemaker.config.training import LoraConfig, TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.fsdp import split_like
from tastemaker.training.optimization import TEXT
from tastemaker.training.preference.objective import FrozenCopy, Reference


def add_text_adapters(config: TrainConfig, backbone: Backbone) -> None:
    """Put the LoRA on the text encoders, if one is configured.

    Raises:
        TastemakerError: No layer has a target's name, or `start` adapts text encoders that do not
            train.
    """
    if config.text_lora is not None:
        load_parts(backbone, backbone.text_parts)
        for number, encoder in enumerate(backbone.text_encoders):
            _add_adapters(config, encoder, config.text_lora, part=f"text_encoder_{number}")
    elif config.start is not None and any(
        each.startswith("text_encoder") for each in read_layers(Path(config.start) / LORA_FILE)
    ):
        raise TastemakerError(
            f"train.start={config.start} adapts the text encoder too; give train.text_lora to"
            " train it along."
        )


def make_trainable(config: TrainConfig, backbone: Backbone) -> Reference:
    """Put the LoRA on the denoiser, or free all its weights; return the reference.

    Args:
        config: Method, adapters, start, reference and gradient checkpointing.
        backbone: The model, with the adapters of its text encoders.

    Returns:
        The reference of the loss.

    Raises:
        TastemakerError: No layer has a target's name, or `start` is a LoRA of other layers.
    """
    denoiser: Any = backbone.denoiser
    if config.method == "lora":
        _add_adapters(config, denoiser, config.lora)
    else:
        denoiser.requires_grad_(config.method == "full")
    if config.start is not None:
        for name in _adapter_names(config):
            load_adapter(backbone, Path(config.start), name)
    text_encoders = backbone.text_encoders if config.text_lora is not None else []
    # Only now, with `start` loaded: a copy is of the networks that training starts from.
    if config.reference == "frozen_copy" or (config.reference, config.method) == ("synced", "full"):
        reference: Reference = FrozenCopy(backbone, text_encoders)
    else:
        reference = Reference(backbone, None if config.reference == "adapters_off" else START)
    for network in (denoiser, *text_encoders):
        network.train()
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return reference


def _adapter_names(config: TrainConfig) -> tuple[str, ...]:
    second = config.reference in ("frozen_adapter", "synced")
    return (START, ADAPTER) if second else (ADAPTER,)


def _add_adapters(config: TrainConfig, network: Any, lora: LoraConfig, part: str = "") -> None:
    """Put the LoRA that trains on a network, below it a frozen one where that is the reference."""
    for name in _adapter_names(config):
        own = lora if name == ADAPTER else lora.model_copy(update={"dropout": 0.0})
        add_lora(network, own, config.seed, name=name, part=part)


class Ema:
    """Exponential moving average of the weights that train; of a LoRA, of each of its factors.

    Args:
        weights: Parameters by name.
        decay: Share of the old average kept at an update; 0 copies the weights.
        averages: Tensors to keep it in, by the same names; None makes copies of the weights.
        every: Optimizer steps between updates.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.nn.Parameter],
        decay: float,
        averages: Mapping[str, torch.Tensor] | None = None,
        *,
        every: int = 1,
    ) -> None:
        self.weights = weights
        self.decay = decay
        self.every = every
        copies = averages or {name: value.detach().clone() for name, value in weights.items()}
        self.averages = dict(copies)

    def update(self, step: int) -> None:
        """Mix the weights in, if an update is due after so many optimizer steps."""
        for name, average in self.averages.items() if step % self.every == 0 else ():
            average.lerp_(self.weights[name].detach(), 1 - self.decay)

    def apply(self) -> None:
        """Put the averages in the weights' place."""
        for name, average in self.averages.items():
            self.weights[name].data.copy_(average)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the averages, by name."""
        return self.averages

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `state`, of whole tensors."""
        for name, average in self.averages.items():
            average.copy_(split_like(state[name], average))


def averages(
    config: TrainConfig, weights: Mapping[str, torch.nn.Parameter], reference: Reference
) -> dict[str, Ema]:
    """Return the averages of the policy that a training keeps, by name.

    Args:
        config: Whether the trained model is averaged, and how the reference follows.
        weights: Parameters that train, by name.
        reference: Of the loss.

    Returns:
        `ema` for the trained model; `reference` where it follows the policy, in weights of its own.
    """
    found = {"ema": Ema(weights, config.ema_decay)} if config.ema_decay else {}
    if config.reference == "synced":
        own = _weights_of(reference, weights)
        decay, every = 1 - config.ref_model_mixup_alpha, config.ref_model_sync_steps
        found["reference"] = Ema(weights, decay, own, every=every)
    return found


def _weights_of(reference: Reference, names: Collection[str]) -> dict[str, torch.Tensor]:
    """The reference's weights by the policy's names: other adapters, or a copy of everything."""
    networks = {"": reference.denoiser}
    if any(name.startswith(TEXT) for name in names):  # otherwise they may be released
        networks |= {f"{TEXT}{i}.": each for i, each in enumerate(reference.text_encoders)}
    own = {
        prefix + name: parameter.detach()
        for prefix, network in networks.items()
        for name, parameter in network.named_parameters()
    }
    return {name: own[name.replace(f".{ADAPTER}.", f".{START}.")] for name in names}
