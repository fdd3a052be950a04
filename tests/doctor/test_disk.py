"""Bytes of an encoded image and prompt: worked out without weights, held against real encodings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from families import FAMILIES
from pictures import noise
from tastemaker.backbones import load_backbone
from tastemaker.cli import main
from tastemaker.doctor.disk import bytes_per_row
from tastemaker.storage.encodings import Shards
from tastemaker.training.encoding import encode
from tastemaker.training.preference.pairs import ImagePairs
from trainings import train_config


def measured(shards: Shards) -> int:
    """Bytes of the first row and its checksum."""
    row = shards.read([0])
    return sum(each.numel() * each.itemsize for each in row.values()) + 8


@pytest.mark.parametrize("posterior", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_take_what_is_worked_out(
    family: str, posterior: bool, models: dict[str, Path]
) -> None:
    pairs = ImagePairs([{"prompt": "a cat", "chosen": noise(0), "rejected": noise(1)}])
    backbone = load_backbone(str(models[family]), device="cpu")
    encoded = encode(pairs, backbone, None, posterior=posterior)
    config = train_config(models[family], sample_posterior=posterior)
    found = bytes_per_row(config, (32, 32), kept=False)
    assert found == (measured(encoded.latents.shards), measured(encoded.embeddings))


def test_padding_is_part_of_what_flux_reads(models: dict[str, Path]) -> None:
    """T5's embeddings of padding depend on the prompt: they cannot be made up when read."""
    backbone = load_backbone(str(models["flux"]), device="cpu")
    rows = backbone.encode_prompts(["a cat", "a dog"])["prompt_embeds"]
    assert not torch.allclose(rows[0, -1], rows[1, -1], rtol=1e-3, atol=1e-5)


def test_doctor_says_it_before_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "demo"]) == 0
    said = capsys.readouterr().out
    # nano in fp32: 4 x 16 x 16 latents that its pool keeps, and a checksum.
    assert "Encodings on disk: 4.1 kB per image" in said
    assert "at most 1,536 images and 192 prompts" in said
    assert main(["doctor", "demo", "train.cache=none"]) == 0
    assert "Encodings on disk" not in capsys.readouterr().out
