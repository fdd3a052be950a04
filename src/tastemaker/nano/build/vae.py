"""Stage `vae`: an AutoencoderKL, 64x64 RGB to 16x16 latents of four channels.

The encoder learns the linear code of `code`, the decoder to draw the picture from that code plus
the posterior's noise. Both targets being known, neither waits for the other.
"""

import math
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, l1_loss, mse_loss

from tastemaker.nano import MODEL
from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.averaging import Average, cosine, psnr, set_rate
from tastemaker.nano.build.code import as_bytes, code
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import SPREAD
from tastemaker.nano.captions import sample_scene
from tastemaker.storage.files import atomic

BATCH = 8
POOL = 6000
# Latents have unit variance, but are scaled below it for the U-Net. These pictures are so plain
# that at scale 1 the mean of the noisiest latents still shows the background: the U-Net would read
# it there instead of in the caption, and at sampling the mean of the noise would decide the colour.
SCALING = 0.8
LOGVAR = 2 * math.log(SPREAD)


def autoencoder() -> AutoencoderKL:
    """A fresh autoencoder of under half a million parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """RGB pictures as one float tensor in [-1, 1], (pictures, 3, height, width)."""
    array = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: Tensor) -> list[Image.Image]:
    """The inverse of `to_tensor`; values outside [-1, 1] are clipped."""
    array = ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in array]


def pool(art: Sprites, number: int, split: str, seed: int) -> Tensor:
    """Rendered scenes as bytes, (number, 3, 64, 64)."""
    rng = Random(f"vae/{split}/{seed}")
    return as_bytes([sample_scene(rng, split) for _ in range(number)], rng, art)


def loss_of(picture: Tensor, target: Tensor) -> Tensor:
    """L1 + squares + L1/2 of the gradients + chroma at an eighth of the size.

    Squares and the chroma term keep green and purple, which plain L1 loses on plain backgrounds.
    """
    down = l1_loss(picture.diff(dim=2), target.diff(dim=2))
    across = l1_loss(picture.diff(dim=3), target.diff(dim=3))
    chroma = picture - picture.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    colour = l1_loss(avg_pool2d(chroma[0], 8), avg_pool2d(chroma[1], 8))
    plain = l1_loss(picture, target) + 2 * mse_loss(picture, target)
    return plain + 0.5 * (down + across) + colour


def load(work: Path) -> AutoencoderKL:
    """The trained autoencoder, for inference; that of the package where none was trained."""
    folder = work / "vae" if (work / "vae" / "config.json").exists() else MODEL / "vae"
    model: AutoencoderKL = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(False)
    return model.eval()


def train(work: Path, minutes: float) -> None:
    """Train until the minutes are over; goes on from `work/vae.pt` if it was stopped."""
    if (work / "vae" / "config.json").exists():
        return
    torch.manual_seed(0)
    art = sprites(work)
    held_out = pool(art, 256, "validation", 0).float() / 127.5 - 1
    model, journal = autoencoder(), Journal(work / "vae.jsonl")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4, foreach=True)
    average = Average(model, 0.998)
    step, spent = 0, 0.0
    if (work / "vae.pt").exists():
        state = torch.load(work / "vae.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights, average.steps = state["average"], state["step"]
        step, spent = state["step"], state["spent"]
    pictures, encode = pool(art, POOL, "train", step), code(work, art)
    generator = torch.Generator().manual_seed(step)
    began, total = time.monotonic() - spent, 60 * minutes
    while (spent := time.monotonic() - began) < total:
        set_rate(optimizer, 2e-3 * cosine(spent / total))
        index = torch.randint(len(pictures), (BATCH,), generator=generator)
        target = pictures[index].float() / 127.5 - 1
        latents = encode(target)
        posterior = model.encode(target).latent_dist
        taught = (
            mse_loss(posterior.mean, latents) + 0.01 * (posterior.logvar - LOGVAR).square().mean()
        )
        noisy = latents + SPREAD * torch.randn_like(latents)
        loss = loss_of(model.decode(noisy).sample, target) + taught
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        step += 1
        if step % 250 == 0:
            value = _held_out_psnr(model, average, held_out[:64])
            journal.write(step=step, loss=loss.item(), code=taught.item(), psnr=value)
            _save(work, model, optimizer, average, step, spent)
    _finish(work, model, average, pictures, held_out, journal, step)


def _finish(
    work: Path,
    model: AutoencoderKL,
    average: Average,
    pictures: Tensor,
    held_out: Tensor,
    journal: Journal,
    step: int,
) -> None:
    average.copy_to(model)
    model.eval()
    with torch.no_grad():
        decoded = model.decode(model.encode(held_out).latent_dist.mode()).sample
    model.register_to_config(scaling_factor=SCALING)
    journal.write(step=step, psnr=psnr(decoded, held_out), scaling_factor=SCALING)
    sheet(held_out[:32], decoded[:32]).save(work / "vae.png")
    model.save_pretrained(work / "vae")


def sheet(originals: Tensor, decoded: Tensor) -> Image.Image:
    """Originals above what the autoencoder makes of them, eight a row, doubled in size."""
    canvas = Image.new("RGB", (8 * 128, len(originals) // 8 * 264), "white")
    pairs = zip(to_pictures(originals), to_pictures(decoded), strict=True)
    for number, pair in enumerate(pairs):
        for row, picture in enumerate(pair):
            corner = (number % 8 * 128, number // 8 * 264 + row * 128)
            canvas.paste(picture.resize((126, 126), Image.Resampling.NEAREST), corner)
    return canvas


@torch.no_grad()
def _held_out_psnr(model: AutoencoderKL, average: Average, held_out: Tensor) -> float:
    copy = autoencoder().eval()
    average.copy_to(copy)
    return psnr(copy.decode(copy.encode(held_out).latent_dist.mode()).sample, held_out)


def _save(
    work: Path,
    model: AutoencoderKL,
    optimizer: torch.optim.Optimizer,
    average: Average,
    step: int,
    spent: float,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.weights,
        "step": step,
        "spent": spent,
    }
    with atomic(work / "vae.pt") as temporary:
        torch.save(state, temporary)
