"""Stage `vae`: an AutoencoderKL, 64x64 RGB to 16x16 latents of four channels."""

from importlib.resources import files
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from portraits import Portraits, pictures
from torch import Tensor

from tastemaker.nano.build.averaging import psnr
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.vae import loss_of, sheet
from training import Training, flipped, to_float

BATCH = 8
RATE = 2e-3
KL = 5e-4


def autoencoder() -> AutoencoderKL:
    """Nano's autoencoder, which has seen scenes and no portrait: 22.4 dB on these."""
    folder = files("tastemaker.nano") / "weights" / "pipeline" / "vae"
    return AutoencoderKL.from_pretrained(str(folder)).float()


def train(work: Path, data: Portraits, minutes: float) -> None:
    """Train on the train pictures until the minutes are over; writes `work/vae`."""
    if (work / "vae").exists():
        return
    torch.manual_seed(0)
    model, journal = autoencoder(), Journal(work / "vae.jsonl")
    known, held_out = pictures(data.train), to_float(pictures(data.held_out))
    training = Training(work / "vae.pt", model, minutes, rate=RATE, decay=0.998, weight_decay=1e-4)
    torch.manual_seed(training.step)
    while training.running():
        target = flipped(to_float(known[torch.randint(len(known), (BATCH,))]))
        posterior = model.encode(target).latent_dist
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = loss_of(model.decode(posterior.sample()).sample, target) + KL * kl
        training.update(loss)
        if training.step % 250 == 0:
            value = _psnr(_averaged(training), held_out[:64])
            journal.write(step=training.step, loss=loss.item(), kl=kl.item(), psnr=value)
    _finish(work, _averaged(training), known, held_out, journal, training.step)


def decoded(model: AutoencoderKL, originals: Tensor, noise: float = 0.0) -> Tensor:
    """What the autoencoder makes of pictures.

    Args:
        model: The autoencoder.
        originals: (n, 3, 64, 64) in [-1, 1].
        noise: Added to the latents, in their standard deviations: latents that were drawn by a
            sampler are never as clean as encoded ones.

    Returns:
        Pictures of the same shape, within [-1, 1].
    """
    parts = []
    with torch.no_grad():
        for part in originals.split(32):
            latents = model.encode(part).latent_dist.mode()
            latents += noise / model.config.scaling_factor * torch.randn_like(latents)
            parts.append(model.decode(latents).sample.clamp(-1, 1))
    # Rounded to 8 bits, as drawn pictures are.
    return ((torch.cat(parts) + 1) * 127.5).round() / 127.5 - 1


def _averaged(training: Training) -> AutoencoderKL:
    copy = autoencoder().eval().requires_grad_(False)
    training.average.copy_to(copy)
    return copy


def _psnr(model: AutoencoderKL, held_out: Tensor) -> float:
    return psnr(decoded(model, held_out), held_out)


@torch.no_grad()
def _finish(
    work: Path,
    model: AutoencoderKL,
    known: Tensor,
    held_out: Tensor,
    journal: Journal,
    step: int,
) -> None:
    parts = [model.encode(to_float(part)).latent_dist.sample() for part in known.split(32)]
    spread = torch.cat(parts).std().item()
    model.register_to_config(scaling_factor=1 / spread)
    shown = decoded(model, held_out)
    journal.write(step=step, psnr=psnr(shown, held_out), scaling_factor=1 / spread)
    sheet(held_out[:32], shown[:32]).save(work / "vae.png")
    model.save_pretrained(work / "vae.tmp")
    (work / "vae.tmp").rename(work / "vae")
