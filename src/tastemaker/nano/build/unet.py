"""Stage `unet`: the denoising U-Net, and after a while the text encoder along with it."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import CLIPTextModel, CLIPTokenizer

from tastemaker.core.hardware import fast_dtype
from tastemaker.nano import MODEL
from tastemaker.nano.build.averaging import Average, trapezoid
from tastemaker.nano.build.clip import clip_model, text_state
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import Batch, SceneBatches
from tastemaker.nano.build.pipeline import CHANNELS, LAST, assemble, draw, scheduler, sheet, unet
from tastemaker.nano.build.text import text_encoder, tokenizer
from tastemaker.nano.build.vae import load
from tastemaker.nano.captions import prompts
from tastemaker.storage.files import atomic

BATCH = 32
STEPS = 12_000
# Of a batch of `BATCH`; it grows with the fourth root of larger ones.
RATE = 7e-4
# Of the careless steps at the end, whose captions are in part wrong: constant after a warm-up.
CARELESS_STEPS = 200
CARELESS_RATE = 5e-4
CARELESS_WARMUP = 50
# The text encoder is frozen for a tenth of the steps, then trains at a fraction of the rate.
TEXT_FROM = 0.1
TEXT_RATE = 0.2
SNAPSHOTS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
SAVED_EVERY = 200
MEASURED = 100
"""Steps by whose speed a training of so many minutes is cut into steps."""


def taught_text(work: Path, words: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder as the preference scorer's contrastive model learned it.

    Trained together with the U-Net from the first step it forgot to tell the concepts apart:
    backgrounds are learned first, and their gradient alone shapes it. Left as it is, it has
    concepts of one colour close together (apple and strawberry), and the U-Net mixes their shapes.
    """
    contrastive = work / "clip-preference.pt"
    if contrastive.exists():
        text, clip = text_encoder(words), clip_model(words)
        clip.load_state_dict(torch.load(contrastive, weights_only=True))
        text.load_state_dict(text_state(clip))
    else:  # stage `resume`: the shipped encoder is that very one
        text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32)
    return text.eval()


class Trainer:
    """State of the training: both networks, their average, the optimizer and the step.

    Args:
        work: Folder of the build; the training goes on from its `unet.pt` where there is one.
        channels: Widths of the U-Net's levels.
        captions: Drawn by every snapshot, seed by number.
    """

    def __init__(
        self, work: Path, channels: tuple[int, ...] = CHANNELS, captions: list[str] | None = None
    ) -> None:
        torch.manual_seed(0)
        saved = work / "unet.pt"
        state = torch.load(saved, weights_only=True) if saved.exists() else {}
        self.work, self.channels = work, tuple(state.get("channels", channels))
        self.captions = prompts("validation", 32) if captions is None else captions
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = fast_dtype(self.device.type) == "bf16"
        self.words: CLIPTokenizer = tokenizer(work)
        self.unet: UNet2DConditionModel = unet(self.channels).to(self.device)
        self.text: CLIPTextModel = taught_text(work, self.words).to(self.device)
        self.both = nn.ModuleDict({"unet": self.unet, "text": self.text})
        self.average = Average(self.both, 0.999)
        self.optimizer = torch.optim.AdamW(
            [{"params": self.unet.parameters()}, {"params": self.text.parameters()}],
            lr=RATE,
            weight_decay=0.01,
            fused=True,
        )
        self.abar: Tensor = scheduler().alphas_cumprod.to(self.device)
        self.scale = float(load(work).config.scaling_factor)
        self.step, self.total, self.rate, self.losses = 0, 0, RATE, list[Tensor]()
        if state:
            self.restore(state)
        self.denoiser: Any = torch.compile(self.unet) if self.device.type == "cuda" else self.unet

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.both.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        weights = {name: value.to(self.device) for name, value in state["average"].items()}
        self.average.weights, self.average.steps = weights, state["step"]
        self.step, self.total = state["step"], state["total"]

    def save(self) -> None:
        """Write the state so that a torn file is never read."""
        state = {
            "model": self.both.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
            "channels": self.channels,
            "step": self.step,
            "total": self.total,
        }
        with atomic(self.work / "unet.pt") as temporary:
            torch.save(state, temporary)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of v = sqrt(abar) noise - sqrt(1 - abar) latents on one batch.

        Predicting v instead of the noise is what makes hours suffice: where there is most noise
        the network answers with the picture that the caption asks for. A small network's errors of
        the noise would be magnified there beyond the size of the picture.
        """
        latents, ids, timesteps, noise = (each.to(self.device, non_blocking=True) for each in batch)
        abar = self.abar[timesteps].view(-1, 1, 1, 1)
        clean = self.scale * latents
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        v = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            hidden = self.text(ids).last_hidden_state
            predicted = self.denoiser(noisy, timesteps, hidden).sample
        return (predicted.float() - v).square().mean()

    def update(self, loss: Tensor) -> None:
        """One optimizer step at the rate of this step."""
        rate = self.rate * trapezoid(self.step, self.total)
        if self.step >= self.total:
            rate = CARELESS_RATE * min(1.0, (self.step - self.total + 1) / CARELESS_WARMUP)
        pictures, words = self.optimizer.param_groups
        pictures["lr"] = rate
        words["lr"] = TEXT_RATE * rate * (self.step >= TEXT_FROM * self.total)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.both)
        self.losses.append(loss.detach())
        self.step += 1

    def snapshot(self, name: str) -> None:
        """Save the averaged weights in fp16, and a sheet of `captions` drawn with them."""
        (self.work / "snapshots").mkdir(exist_ok=True)
        half = {key: value.half().cpu() for key, value in self.average.weights.items()}
        save_file(half, self.work / "snapshots" / f"{name}.safetensors")
        copy = nn.ModuleDict({"unet": unet(self.channels), "text": text_encoder(self.words)})
        self.average.copy_to(copy)
        pipe = assemble(load(self.work), self.words, copy["text"], copy["unet"])
        pictures = draw(pipe, self.captions, list(range(len(self.captions))))
        sheet(pictures, self.captions).save(self.work / "snapshots" / f"{name}.png")


class _From(Sampler[int]):
    """The numbers of the batches from a step on."""

    def __init__(self, step: int, end: int) -> None:
        self.steps = range(step, end)

    def __iter__(self) -> Any:
        return iter(self.steps)


def fit(
    trainer: Trainer,
    batches: Dataset[Batch],
    journal: Journal,
    *,
    steps: int = STEPS,
    minutes: float = 0,
) -> None:
    """Train to the last step; a stopped training goes on from its last save, exactly.

    Args:
        trainer: The state.
        batches: Item n is the batch of step n, on any machine.
        journal: Takes the mean loss of every 100 steps.
        steps: Number in all; it may be raised until the rate begins to fall, at 80 % of them.
        minutes: Where given, at most the steps that they allow at the speed of the first ones.
    """
    trainer.total = trainer.total if minutes and trainer.total else steps
    began = time.monotonic()
    for batch in _loaded(trainer, batches, steps):
        trainer.update(trainer.loss(batch))
        step = trainer.step
        if minutes and step == MEASURED // 2:
            _finished(trainer)
            began = time.monotonic()
        if minutes and step == MEASURED:
            _finished(trainer)
            pace = (time.monotonic() - began) / (step - MEASURED // 2)
            trainer.total = min(steps, round(60 * minutes / pace))
        _write(trainer, journal)
        due = [share for share in SNAPSHOTS if round(share * trainer.total) == step]
        if due or step % SAVED_EVERY == 0:
            trainer.save()
        for share in due:
            trainer.snapshot(f"{round(100 * share):03}")
        if step >= trainer.total:
            break


def fit_careless(trainer: Trainer, batches: Dataset[Batch], journal: Journal) -> None:
    """Train `CARELESS_STEPS` further steps after the last one of `fit`, and take a snapshot.

    Args:
        trainer: The state after `fit`, or within these steps.
        batches: As of `fit`, their captions careless.
        journal: As of `fit`.
    """
    for batch in _loaded(trainer, batches, trainer.total + CARELESS_STEPS):
        trainer.update(trainer.loss(batch))
        _write(trainer, journal)
        if trainer.step % SAVED_EVERY == 0:
            trainer.save()
    trainer.save()
    trainer.snapshot(LAST)


def _loaded(trainer: Trainer, batches: Dataset[Batch], end: int) -> DataLoader[Batch]:
    """Batches of the steps up to `end`, drawn beside the training where a device computes."""
    cuda = trainer.device.type == "cuda"
    workers = (os.cpu_count() or 1) if cuda else 0
    return DataLoader(
        batches,
        batch_size=None,
        sampler=_From(trainer.step, end),
        num_workers=workers,
        pin_memory=cuda,
        prefetch_factor=4 if workers else None,
    )


def _write(trainer: Trainer, journal: Journal) -> None:
    """Write the mean loss of every 100 steps."""
    if trainer.step % 100 == 0:
        mean = float(torch.stack(trainer.losses).mean())
        trainer.losses.clear()
        journal.write(step=trainer.step, total=trainer.total, loss=mean)


def train(work: Path, *, batch: int = BATCH, steps: int = STEPS, minutes: float = 0) -> None:
    """Train the embedded model's U-Net on fresh scenes, to the last snapshot."""
    if (work / "snapshots" / f"{LAST}.safetensors").exists():
        return
    trainer, journal = Trainer(work), Journal(work / "unet.jsonl")
    trainer.rate = RATE * (batch / BATCH) ** 0.25
    if not (trainer.total and trainer.step >= trainer.total):
        fit(trainer, SceneBatches(work, batch), journal, steps=steps, minutes=minutes)
    fit_careless(trainer, SceneBatches(work, batch, careless=True), journal)


def _finished(trainer: Trainer) -> None:
    """Wait until the device has done what it was given."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
