"""Tokens of prompts, as a pipeline's CLIP tokenizers make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

TEXT = "text_encoder"
"""Prefix of a pipeline's names for its text encoders."""

PROMPTS_AT_ONCE = 32
"""Prompts that text encoders take together."""


def token_ids(pipeline: Any, part: str, prompts: Sequence[str]) -> torch.Tensor:
    """Tokenize prompts as `encode_prompt` does.

    Args:
        pipeline: The pipeline, which spells out learned words of several vectors where it can.
        part: Its name of a CLIP text encoder, such as "text_encoder_2".
        prompts: Texts.

    Returns:
        Shape [prompts, tokens].
    """
    tokenizer = getattr(pipeline, part.replace(TEXT, "tokenizer"))
    convert = getattr(pipeline, "maybe_convert_prompt", None)
    texts = list(prompts) if convert is None else convert(list(prompts), tokenizer)
    ids: torch.Tensor = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )["input_ids"]
    return ids


def limit_tokenizers(pipeline: Any) -> None:
    """Cut prompts at a CLIP encoder's positions, also if its tokenizer's file has no limit."""
    for end in ("", "_2"):
        tokenizer = getattr(pipeline, f"tokenizer{end}", None)
        encoder = getattr(pipeline, f"{TEXT}{end}", None)
        positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        if tokenizer is not None and positions is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if hasattr(pipeline, "tokenizer_max_length"):
        pipeline.tokenizer_max_length = pipeline.tokenizer.model_max_length
