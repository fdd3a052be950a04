"""DreamBooth: the denoising loss on photographs of a subject, and on images of its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tastemaker.backbones import compile_blocks
from tastemaker.backbones.places import name_base
from tastemaker.backbones.staged import keep_parts
from tastemaker.backbones.textual_inversion import save_token
from tastemaker.config.personalization import WHOLE, PersonalizeConfig
from tastemaker.training.batches import BatchLoss, NoisyBatch, mean_square, residual
from tastemaker.training.encoding import encodings_key, kept_below
from tastemaker.training.fsdp import join
from tastemaker.training.optimization import load_policy, text_rates, trainable_parameters
from tastemaker.training.personalization.data import encode_subject, subject_batch
from tastemaker.training.personalization.parameters import free_denoiser, free_text
from tastemaker.training.personalization.singular_values import keep_singular_values
from tastemaker.training.saving import save_lora, save_whole
from tastemaker.training.trainer import Trainer


class PersonalTrainer(Trainer[PersonalizeConfig, NoisyBatch]):
    """A training on photographs of a subject.

    Args:
        config: The section `personalize`.
        photographs: Files that can be read.
        output: Folder of checkpoints, metrics and the trained model.

    Raises:
        TastemakerError: The model, a target layer, the new word or a class image is wrong.
    """

    unit = "images"

    def __init__(
        self, config: PersonalizeConfig, photographs: Sequence[Path], output: Path
    ) -> None:
        super().__init__(config, output)
        self.backbone = load_policy(config, whole=config.method in WHOLE, staged=True)
        word = free_text(config, self.backbone)
        text = self.backbone.text_encoders if config.trains_text else []
        folder = None
        if config.prior is not None and config.cache == "disk":
            new_word = config.token and [config.identifier, config.token.model_dump()]
            key = encodings_key(self.backbone, config.model, new_word)
            folder = kept_below(Path(config.prior.pool), output) / key
        self.data = encode_subject(
            config, photographs, self.backbone, folder, text_trains=bool(text)
        )
        self.densities = [
            self.backbone.timestep_density(*shape[1:]) for shape in self.data.encoded.latents.shapes
        ]
        keep_parts(self.backbone, (self.backbone.part, *(self.backbone.text_parts if text else ())))
        self.backbone.prepare_training(config.dtype)
        free_denoiser(config, self.backbone)
        weights = trainable_parameters(self.backbone.denoiser, text)
        rates = text_rates(weights, config)
        if config.token is not None:
            words = {id(parameter) for parameter in word}
            mine = [name for name, parameter in weights.items() if id(parameter) in words]
            rates |= dict.fromkeys(mine, config.token.learning_rate)
        self.prepare(text, rates)
        if config.torch_compile:
            compile_blocks(self.backbone.denoiser, dynamic=len(self.densities) > 1)

    def batch(self, step: int, part: int = 0) -> NoisyBatch:
        """Add noise to photographs, and to as many class images."""
        return subject_batch(
            self.data,
            self.backbone,
            self.samples(step, part),
            seed=self.config.seed,
            densities=self.densities,
        )

    def loss(self, batch: NoisyBatch) -> BatchLoss:
        """Compute `loss = mean(error of photographs) + weight * mean(error of class images)`."""
        with self.accelerator.autocast():
            errors = mean_square(residual(self.backbone, self.policy, batch, self.text_encoders))
        prior = self.config.prior
        if prior is None:
            loss = errors.mean()
            return BatchLoss(loss, {"errors/photographs": loss.detach()})
        subject, of_class = (each.mean() for each in errors.chunk(2))
        metrics = {"errors/photographs": subject.detach(), "errors/class_images": of_class.detach()}
        return BatchLoss(subject + prior.weight * of_class, metrics)

    def save_model(self) -> None:
        """Write the LoRA, the word or the pipeline."""
        config, output = self.config, self.output
        join(self.backbone.denoiser, keep=self.main)
        if not self.main:
            return
        if config.method in WHOLE:
            keep_singular_values(self.backbone.denoiser)
            text_encoders = self.backbone.text_encoders if self.text_encoders else ()
            save_whole(config.model, output, self.backbone.denoiser, text_encoders)
            return
        if config.method == "lora" or config.text_lora is not None:
            save_lora(self.backbone, config.model, output)
        if config.token is not None:
            save_token(self.backbone, output, config.identifier)
            name_base(config.model, output)
