"""Stage `clip`: two small CLIP models, trained apart by contrast with hard negatives."""

import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.averaging import cosine, set_rate
from tastemaker.nano.build.generated import SPLITS
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.build.scenes import render
from tastemaker.nano.build.text import WIDTH, text_config, tokenize, tokenizer
from tastemaker.nano.build.vae import load
from tastemaker.nano.captions import Scene, caption, sample_scene

BATCH = 64
RATE = 1e-3
HARD = 2
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_model(words: CLIPTokenizer) -> CLIPModel:
    """A fresh model: text 2 x 96 over 24 positions, image ViT 64/8 of 4 x 96."""
    text = text_config(words).to_dict()
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=64,
        patch_size=8,
    )
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=WIDTH)
    )


def text_state(model: CLIPModel) -> dict[str, Tensor]:
    """The text half's weights under the names of a `CLIPTextModel`."""
    state: dict[str, Tensor] = model.text_model.state_dict()
    return state


def pixels(pictures: Tensor) -> Tensor:
    """Bytes (n, 64, 64, 3) or floats in [-1, 1] (n, 3, 64, 64) as the model's input."""
    if pictures.dtype == torch.uint8:
        pictures = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((pictures + 1) / 2 - mean) / std


def image_features(model: CLIPModel, pictures: Tensor) -> Tensor:
    """Unit image embeddings, (pictures, 96)."""
    pooled = model.vision_model(pixel_values=pixels(pictures)).pooler_output
    return normalize(model.visual_projection(pooled), dim=-1)


def text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit text embeddings, (texts, 96)."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return normalize(model.text_projection(pooled), dim=-1)


class Material:
    """Endless drawn pictures of a split, and the autoencoder's view of them."""

    def __init__(self, work: Path, scorer: str, seed: int) -> None:
        """Load the art and the autoencoder; `seed` starts another stream."""
        self.art: Sprites = sprites(work)
        self.words = tokenizer(work)
        self.vae = load(work)
        self.split = SPLITS[scorer]
        self.rng = Random(f"material/{scorer}/{seed}")

    def scenes(self, number: int) -> list[Scene]:
        """Scenes of the scorer's split."""
        return [sample_scene(self.rng, self.split) for _ in range(number)]

    def pictures(self, scenes: list[Scene]) -> Tensor:
        """The scenes drawn, floats in [-1, 1], (scenes, 3, 64, 64)."""
        drawn = np.stack([np.asarray(render(scene, self.rng, self.art)) for scene in scenes])
        return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1

    @torch.no_grad()
    def decoded(self, pictures: Tensor) -> Tensor:
        """Return pictures as the autoencoder reconstructs them."""
        parts = [
            self.vae.decode(self.vae.encode(part).latent_dist.mode()).sample.clamp(-1, 1)
            for part in pictures.split(32)
        ]
        return torch.cat(parts)

    def ids(self, scenes: list[Scene]) -> Tensor:
        """Token ids of the scenes' captions."""
        return tokenize(self.words, [caption(scene) for scene in scenes])


def contrast(
    model: CLIPModel, pictures: Tensor, ids: Tensor, wrong: Tensor, true: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE, where each picture also meets its own hard negative captions.

    Args:
        model: The CLIP model.
        pictures: (batch, 3, 64, 64) in [-1, 1].
        ids: Captions, (batch, 24).
        wrong: Captions with one attribute changed, (batch * HARD, 24).
        true: Pairs that are right, (batch, batch): but for the diagonal they are left out;
            None leaves none out.

    Returns:
        The scalar loss.
    """
    image = image_features(model, pictures)
    text, hard = text_features(model, torch.cat([ids, wrong])).split([len(ids), len(wrong)])
    scale = model.logit_scale.exp()
    near = torch.einsum("id,ikd->ik", image, hard.view(len(ids), -1, image.shape[-1]))
    logits = scale * image @ text.T
    if true is not None:
        others = true & ~torch.eye(len(ids), dtype=torch.bool)
        logits = logits.masked_fill(others, -torch.inf)
    target = torch.arange(len(ids))
    to_text = cross_entropy(torch.cat([logits, scale * near], dim=1), target)
    return (to_text + cross_entropy(logits.T, target)) / 2


def update(model: CLIPModel, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One optimizer step, its gradient clipped to 1, within the limit of the scale."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    limit_scale(model)


@torch.no_grad()
def limit_scale(model: CLIPModel) -> None:
    """Keep the factor on the cosine at 50 or below."""
    model.logit_scale.clamp_(max=float(np.log(50.0)))


def train(work: Path, scorer: str, minutes: float, seed: int) -> None:
    """Contrastive training of one scorer for some minutes; saves `work/clip-<scorer>.pt`."""
    path = work / f"clip-{scorer}.pt"
    if path.exists():
        return
    torch.manual_seed(seed)
    material, journal = Material(work, scorer, seed), Journal(work / f"clip-{scorer}.jsonl")
    model = clip_model(material.words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, foreach=True)
    began, step, total = time.monotonic(), 0, 60 * minutes
    while (spent := time.monotonic() - began) < total:
        set_rate(optimizer, RATE * cosine(spent / total, floor=0.1))
        scenes = material.scenes(BATCH)
        pictures = material.pictures(scenes)
        wrong = [changed(scene, material.rng) for scene in scenes for _ in range(HARD)]
        loss = contrast(model, pictures, material.ids(scenes), material.ids(wrong))
        update(model, optimizer, loss)
        step += 1
        if step % 50 == 0:
            journal.write(step=step, loss=loss.item(), scale=model.logit_scale.exp().item())
    torch.save(model.state_dict(), path)
