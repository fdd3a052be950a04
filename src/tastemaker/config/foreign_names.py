"""Other tools' words for options: an unknown key is answered with the name that it has here."""

from __future__ import annotations

from tastemaker.config.sections import Section, section_class

FOREIGN = {
    # TRL and transformers
    "per_device_train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size",
    "num_train_epochs": "max_steps",
    "max_train_epochs": "max_steps",
    "lr_scheduler_type": "lr_scheduler",
    "num_warmup_steps": "warmup_steps",
    "beta": "loss.beta",
    "loss_type": "loss",
    "ref_model": "reference",
    "sync_ref_model": "reference",
    "bf16": "dtype",
    "fp16": "dtype",
    "torch_dtype": "dtype",
    "eval_steps": "validation.steps",
    "model_name_or_path": "model",
    # PEFT
    "rank": "r",
    "lora_rank": "r",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules",
    # diffusers and its scripts
    "pretrained_model_name_or_path": "model",
    "train_batch_size": "batch_size",
    "sample_batch_size": "batch_size",
    "max_train_steps": "max_steps",
    "lr_warmup_steps": "warmup_steps",
    "adam_weight_decay": "weight_decay",
    "beta_dpo": "loss.beta",
    "mixed_precision": "dtype",
    "checkpointing_steps": "save_steps",
    "validation_steps": "validation.steps",
    "validation_prompt": "validation.prompts",
    "validation_prompts": "validation.prompts",
    "log_with": "report_to",
    "use_ema": "ema_decay",
    "num_images_per_prompt": "num_candidates num_images",
    "instance_data_dir": "photographs",
    "instance_prompt": "prompt",
    "class_prompt": "class_name",
    "class_data_dir": "prior.pool",
    "prior_loss_weight": "prior.weight",
    "with_prior_preservation": "prior",
    "placeholder_token": "identifier",
    "initializer_token": "token.initializer",
    "num_vectors": "token.vectors",
    "train_data_dir": "images comparisons",
    "dataset_name": "comparisons images",
    "output_dir": "output",
    # kohya
    "network_dim": "r",
    "network_alpha": "alpha",
    "network_dropout": "dropout",
    "save_every_n_steps": "save_steps",
    "sample_every_n_steps": "validation.steps",
    "sample_prompts": "validation.prompts",
    "cache_latents": "cache",
    "cache_latents_to_disk": "cache",
    "cache_text_encoder_outputs": "cache",
    "flip_aug": "random_flip",
    "max_bucket_reso": "buckets",
    "sample_sampler": "scheduler",
    "cfg_scale": "guidance_scale",
    # others, and earlier names of our own
    "lr": "learning_rate",
    "ema": "ema_decay",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "precision": "dtype",
    "steps": "max_steps num_inference_steps",
    "gradient_accumulation": "gradient_accumulation_steps",
    "schedule": "lr_scheduler",
    "checkpoint_every": "save_steps",
    "tracker": "report_to",
    "adam_betas": "adam_beta1",
    "prompt_dropout": "proportion_empty_prompts",
    "targets": "target_modules",
    "every": "steps steps_per_chunk",
    "size": "resolution",
    "flip": "random_flip",
    "minimum": "min_photographs min_crop_side",
}
"""Other names to ours; of several names the first that the section has is meant."""


def own_name(name: str, kind: type[Section]) -> str | None:
    """Find what an option of another tool is called in a section or in one inside of it.

    Args:
        name: The other tool's word.
        kind: The section in which it was given.

    Returns:
        The path below the section; None where it is not known or has nothing like it.

    Example:
        >>> from tastemaker.config.training import TrainConfig
        >>> own_name("train_batch_size", TrainConfig), own_name("network_dim", TrainConfig)
        ('batch_size', 'lora.r')
    """
    found = (_path(kind, target) for target in FOREIGN.get(name, "").split())
    return next((path for path in found if path is not None), None)


def _path(kind: type[Section], target: str) -> str | None:
    name, _, option = target.partition(".")
    fields = kind.model_fields
    if name in fields:
        section = section_class(fields[name].annotation)
        # Anything but a section is a registered entry with options of its own.
        if not option or section is None or option in section.model_fields:
            return target
    # Of a run's sections most words of other tools are about training.
    for inside, field in sorted(fields.items(), key=lambda item: item[0] != "train"):
        section = section_class(field.annotation)
        if section is not None and (path := _path(section, target)) is not None:
            return f"{inside}.{path}"
    return None
