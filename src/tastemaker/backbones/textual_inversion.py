"""Textual inversion: a new word of a text encoder, whose embedding is learned.

A word of several vectors is several tokens, `<toy>`, `<toy>_1`, ..., in the manner of diffusers: in
a prompt it is written once, and the pipeline puts the others after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.functional import embedding

from tastemaker.core.errors import TastemakerError

TOKEN_FILE = "learned_embeds.safetensors"
"""What diffusers' `load_textual_inversion` looks for in a folder."""


def refuse_token(folder: Path) -> None:
    """Refuse a folder whose LoRA would be taken without the learned word beside it.

    Raises:
        TastemakerError: The folder holds a learned word.
    """
    if (folder / TOKEN_FILE).is_file():
        raise TastemakerError(
            f"{folder} holds a learned word beside its LoRA, and only both together are the model;"
            " give the folder as `model` and train on top of it."
        )


def read_word(folder: Path) -> str:
    """Return the word of a file that holds its embeddings for several text encoders."""
    with safe_open(folder / TOKEN_FILE, framework="pt") as stored:
        return str((stored.metadata() or {})["word"])


class LearnedRows(torch.nn.Module):
    """A table of embeddings with further rows that train; the table's own stay as they are.

    Only the new rows are parameters with a gradient: neither optimizer nor checkpoint carries the
    whole vocabulary, and weight decay cannot reach the words that are known.

    Args:
        table: Embeddings of the known tokens.
        first: Number of the first new token.
        rows: Where the new rows start, shape [vectors, dimension]; kept in float32.
    """

    def __init__(self, table: torch.nn.Embedding, first: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.first = first
        self.rows = torch.nn.Parameter(rows.detach().float().clone())

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look tokens up.

        Args:
            input_ids: Numbers of tokens, any shape.

        Returns:
            Their embeddings in the table's precision, one dimension more.
        """
        new = input_ids >= self.first
        known = self.table(input_ids.masked_fill(new, 0))
        learned = embedding((input_ids - self.first).clamp(min=0), self.rows)
        return torch.where(new[..., None], learned.to(known.dtype), known)


def add_token(
    tokenizer: Any, text_encoder: Any, name: str, *, initializer: str, vectors: int
) -> torch.nn.Parameter:
    """Teach a tokenizer a new word and give its text encoder rows that train.

    Args:
        tokenizer: Of the transformers library.
        text_encoder: Its text encoder.
        name: The word, as it stands in prompts: `<toy>`, in small letters and angle brackets, so
            that the tokenizer does not find it inside another word.
        initializer: Known words; every new row starts at the mean of their embeddings.
        vectors: Tokens that the word becomes.

    Returns:
        Its embeddings, shape [vectors, dimension].

    Raises:
        TastemakerError: The word is known already.
    """
    words = [name, *(f"{name}_{number}" for number in range(1, vectors))]
    known = [word for word in words if word in tokenizer.get_vocab()]
    if known:
        raise TastemakerError(
            f"{known[0]!r} is a word of the model's tokenizer already; choose another."
        )
    start = tokenizer(initializer, add_special_tokens=False)["input_ids"]
    first = len(tokenizer)
    tokenizer.add_tokens(words)
    table = text_encoder.get_input_embeddings()
    mean = table.weight[start].float().mean(0)
    learned = LearnedRows(table, first, mean.expand(vectors, -1))
    text_encoder.set_input_embeddings(learned)
    return learned.rows
