"""The text side: a CLIP tokenizer whose every grammar word is one token, and its encoder."""

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tastemaker.nano.captions import vocabulary

POSITIONS = 24
WIDTH = 96
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(work: Path) -> CLIPTokenizer:
    """The tokenizer in `work/tokenizer`, written first where it is missing."""
    folder = work / "tokenizer"
    if not (folder / "merges.txt").exists():
        source = work / "vocabulary"
        source.mkdir(parents=True, exist_ok=True)
        merges = merges_of(vocabulary())
        letters = sorted({letter for word in vocabulary() for letter in word})
        tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
        tokens += ["".join(pair) for pair in merges]
        ids = {token: number for number, token in enumerate([*dict.fromkeys(tokens), START, END])}
        (source / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (source / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        made = CLIPTokenizer.from_pretrained(source, model_max_length=POSITIONS)
        made.save_pretrained(folder)
        for name in ("vocab.json", "merges.txt"):
            (folder / name).write_bytes((source / name).read_bytes())
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return loaded


def merges_of(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges under which every word becomes one token.

    Words are taken in turn: what the merges so far leave apart is joined by new merges at the end
    of the list. Being last in priority, these cannot change the words joined before.

    Example:
        >>> merges_of(("on", "one"))
        [('o', 'n</w>'), ('o', 'n'), ('on', 'e</w>')]
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        parts = _merged([*word[:-1], f"{word[-1]}</w>"], ranks)
        while len(parts) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
            parts = _merged([*word[:-1], f"{word[-1]}</w>"], ranks)
    return list(ranks)


def _merged(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while True:
        pairs = [pair for pair in pairwise(parts) if pair in ranks]
        if not pairs:
            return parts
        best = min(pairs, key=ranks.__getitem__)
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined


def text_config(words: CLIPTokenizer) -> CLIPTextConfig:
    """Two layers of width 96 over 24 positions."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.eos_token_id,
    )


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """A fresh text encoder for the U-Net."""
    return CLIPTextModel(text_config(words))


def tokenize(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids padded to `POSITIONS`, (captions, 24)."""
    batch = words(captions, padding="max_length", max_length=POSITIONS, return_tensors="pt")
    ids: Tensor = batch["input_ids"].to(torch.long)
    return ids
