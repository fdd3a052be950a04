"""Textual inversion: a new word of the text encoders, whose embedding is learned.

A word of several vectors is several tokens, `<toy>`, `<toy>_1`, ..., as in diffusers: a prompt
names it once, and the pipeline adds the others.

References:
    Gal et al., arXiv 2208.01618.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import embedding

from tastemaker.backbones.places import TOKEN_FILE
from tastemaker.backbones.tokens import TEXT
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import open_tensors
from tastemaker.storage.tensors import write_tensors

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

ENCODERS = ("clip_l", "clip_g")
"""Keys of a word's embeddings in a file of several text encoders, as diffusers' script has them."""


def refuse_token(folder: Path) -> None:
    """Refuse to take a folder's LoRA without the learned word beside it.

    Raises:
        TastemakerError: The folder has a learned word.
    """
    if (folder / TOKEN_FILE).is_file():
        raise TastemakerError(
            f"{folder} has a learned word beside its LoRA, and only both together are the model;"
            " give the folder as `model` and train on top of it."
        )


class LearnedRows(torch.nn.Module):
    """A table of embeddings with further rows that train; the table's own stay as they are.

    Only the new rows are parameters with a gradient: neither optimizer nor checkpoint carries the
    whole vocabulary, and weight decay cannot reach the words that are known.

    Args:
        table: Embeddings of the known tokens.
        first: Number of the first new token.
        rows: Initial values of the new rows, shape [vectors, dimension]; kept in float32.
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
    backbone: Backbone, name: str, *, initializer: str, vectors: int
) -> list[torch.nn.Parameter]:
    """Give the text encoders a new word, whose embedding trains.

    Args:
        backbone: The model.
        name: The word as prompts write it: `<toy>`, lower case in angle brackets, so that the
            tokenizer does not find it inside another word.
        initializer: Known words; every new row starts at the mean of their embeddings.
        vectors: Tokens that the word becomes, 1 or a few.

    Returns:
        The word's embeddings in each text encoder, shape [vectors, dimension].

    Raises:
        TastemakerError: The word is known already, or the family learns none.
    """
    return [
        _add_rows(tokenizer, encoder, name, initializer=initializer, vectors=vectors)
        for tokenizer, encoder in _encoders(backbone, name)
    ]


def save_token(backbone: Backbone, folder: Path, name: str) -> None:
    """Save a word of `add_token` in the form that diffusers' `load_textual_inversion` reads."""
    rows = [encoder.get_input_embeddings().rows for _, encoder in _encoders(backbone, name)]
    if len(rows) == 1:
        write_tensors(folder / TOKEN_FILE, {name: rows[0]}, {"format": "pt"})
    else:
        tensors = dict(zip(ENCODERS, rows, strict=True))
        write_tensors(folder / TOKEN_FILE, tensors, {"format": "pt", "word": name})


def load_token(backbone: Backbone, folder: Path) -> None:
    """Add the word that `save_token` wrote; it is then part of the model and does not train."""
    encoders = _encoders(backbone, f"in {folder}")
    stored: Any
    with open_tensors(folder / TOKEN_FILE) as stored:
        word = (stored.metadata() or {}).get("word")
        names = ENCODERS if word else list(stored.keys())
        for name, (tokenizer, encoder) in zip(names, encoders, strict=True):
            rows, both = stored.get_tensor(name), {"text_encoder": encoder, "tokenizer": tokenizer}
            backbone.pipeline.load_textual_inversion(rows, token=word or name, **both)


def _encoders(backbone: Backbone, word: str) -> list[tuple[Any, Any]]:
    """Tokenizer and text encoder of each embedding of a word."""
    if not backbone.learns_words:
        raise TastemakerError(
            f"the learned word {word}: {backbone.name} reads prompts through T5 too, which learns"
            " none here; personalise it by LoRA (leave token out)."
        )
    names = [(part.replace(TEXT, "tokenizer"), part) for part in backbone.text_parts]
    return [tuple(getattr(backbone.pipeline, each) for each in pair) for pair in names]


def _add_rows(
    tokenizer: Any, text_encoder: Any, name: str, *, initializer: str, vectors: int
) -> torch.nn.Parameter:
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
