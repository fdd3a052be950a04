"""Small CLIP models: their size, their embeddings, and contrast with hard negatives."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from tastemaker.nano.build.text import WIDTH, text_config

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
    return image_and_patches(model, pictures)[0]


def image_and_patches(model: CLIPModel, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image embeddings, (pictures, 96), and states of the patches, (pictures, 64, 96)."""
    seen = model.vision_model(pixel_values=pixels(pictures))
    image = normalize(model.visual_projection(seen.pooler_output), dim=-1)
    return image, seen.last_hidden_state[:, 1:]


def text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit text embeddings, (texts, 96)."""
    words = ids != model.config.text_config.eos_token_id  # what comes after the end changes nothing
    pooled = model.text_model(input_ids=ids[:, : int(words.sum(1).max()) + 1]).pooler_output
    return normalize(model.text_projection(pooled), dim=-1)


def contrast(
    model: CLIPModel, image: Tensor, ids: Tensor, wrong: Tensor, true: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE, where each picture also meets its own hard negative captions.

    Args:
        model: The CLIP model.
        image: Unit embeddings of pictures, (batch, 96).
        ids: Captions, (batch, 24).
        wrong: Captions with one attribute changed, as many of each picture, (batch * k, 24).
        true: Pairs that are right, (batch, batch): but for the diagonal they are left out;
            None leaves none out.

    Returns:
        The scalar loss.
    """
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
