"""Figures of the checker and the examiner, on scenes of the split "test" that neither has seen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tastemaker.nano.attributes import NETWORKS, Attributes
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.attribute_scenes import TAUGHT, UNSEEN
from tastemaker.nano.build.code import as_bytes, to_float
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.build.vae import load
from tastemaker.nano.captions import CLAUSES, STYLES, Scene, sample_scene
from tastemaker.nano.obedience import questions, together, wrong

NUMBER = 1000


def measure(work: Path, name: str) -> None:
    """Write the shares of right answers to `<name>-figures.jsonl`.

    By attribute for art it learned from, drawn and through the autoencoder, and for each set of art
    that it has not seen; `refused` is the share of prompts with one attribute changed that the
    picture is found not to obey.
    """
    network = NETWORKS[name][0]()
    network.load_state_dict(load_file(work / f"{name}.safetensors"))
    network.eval()
    rng, vae = Random(f"figures/{name}"), load(work)
    figures = {}
    taught = tuple(sorted(set(TAUGHT[name])))
    for title, styles in {
        "drawn": STYLES,
        "decoded": STYLES,
        **{style: (style,) for style in (*UNSEEN[name], *taught) if style not in STYLES},
    }.items():
        art = sprites(work, styles)
        drawn = [sample_scene(rng, "test") for _ in range(NUMBER)]
        scenes = [replace(each, style=rng.choice(styles)) for each in drawn]
        pictures = to_float(as_bytes(scenes, rng, art))
        if title == "decoded":
            with torch.no_grad():
                parts = [vae(part).sample.clamp(-1, 1) for part in pictures.split(50)]
            pictures = torch.cat(parts)
        named = CLAUSES if styles == STYLES else CLAUSES - {"style"}
        asked = [replace(scene, named=named) for scene in scenes]
        wrong = [changed(scene, rng) for scene in asked]
        figures[title] = shares(network, pictures, asked)
        figures[title]["refused"] = 1 - shares(network, pictures, wrong)["all"]
    Journal(work / f"{name}-figures.jsonl").write(**figures)


@torch.no_grad()
def shares(network: nn.Module, pictures: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the share of pictures that obey, of those asked, by attribute and together.

    Args:
        network: The checker or the examiner.
        pictures: [pictures, 3, 64, 64] in [-1, 1].
        scenes: What is asked of each.
    """
    found: dict[str, list[bool]] = {}
    for part, some in zip(pictures.split(100), _split(scenes, 100), strict=True):
        seen = network(part)
        logits = [getattr(seen, each) for each in Attributes.__slots__]
        for *each, scene in zip(*logits, some, strict=True):
            asked = questions(Attributes(*each), scene)
            verdicts = {name: not wrong(*question) for name, question in asked.items()}
            verdicts["all"] = all(verdicts[name] for name in together(asked))
            for attribute, verdict in verdicts.items():
                found.setdefault(attribute, []).append(verdict)
    return {attribute: sum(each) / len(each) for attribute, each in found.items()}


def _split(scenes: Sequence[Scene], size: int) -> list[Sequence[Scene]]:
    return [scenes[start : start + size] for start in range(0, len(scenes), size)]
