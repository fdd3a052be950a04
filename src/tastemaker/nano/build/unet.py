"""Stage `unet`: the denoising U-Net, and late in its training the text encoder along with it."""

import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tastemaker.nano import MODEL
from tastemaker.nano.build.averaging import Average, cosine
from tastemaker.nano.build.clip import clip_model, text_state
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import SPREAD, encoded
from tastemaker.nano.build.pipeline import CHANNELS, assemble, draw, scheduler, sheet, unet
from tastemaker.nano.build.text import text_encoder, tokenize, tokenizer
from tastemaker.nano.build.vae import load
from tastemaker.nano.captions import prompts

BATCH = 32
RATE = 1e-3
# The text encoder is frozen for a third of the time, then trains at a fraction of the rate.
TEXT_FROM = 0.35
TEXT_RATE = 0.2
DROPOUT = 0.1
SNAPSHOTS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)


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
    """State of the training: both networks, their average, the optimizer and the clock."""

    def __init__(self, work: Path, channels: tuple[int, int, int] = CHANNELS) -> None:
        """Build everything afresh, then go on from `work/unet.pt` where it exists."""
        torch.manual_seed(0)
        self.work = work
        self.words: CLIPTokenizer = tokenizer(work)
        self.unet: UNet2DConditionModel = unet(channels)
        self.text: CLIPTextModel = taught_text(work, self.words)
        self.both = nn.ModuleDict({"unet": self.unet, "text": self.text})
        self.average = Average(self.both, 0.999)
        self.optimizer = torch.optim.AdamW(
            [{"params": self.unet.parameters()}, {"params": self.text.parameters()}],
            lr=RATE,
            weight_decay=0.01,
            foreach=True,
        )
        self.abar: Tensor = scheduler().alphas_cumprod
        self.scale = float(load(work).config.scaling_factor)
        self.empty = tokenize(self.words, [""])
        self.step, self.spent = 0, 0.0
        if (work / "unet.pt").exists():
            self.restore(torch.load(work / "unet.pt", weights_only=True))
        self.generator = torch.Generator().manual_seed(self.step)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.both.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.weights, self.average.steps = state["average"], state["step"]
        self.step, self.spent = state["step"], state["spent"]

    def save(self) -> None:
        """Write the state so that a torn file is never read."""
        state = {
            "model": self.both.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
            "step": self.step,
            "spent": self.spent,
        }
        torch.save(state, self.work / "unet.tmp")
        (self.work / "unet.tmp").replace(self.work / "unet.pt")

    def loss(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Mean squared error of v = sqrt(abar) noise - sqrt(1 - abar) latents on one batch.

        Predicting v instead of the noise is what makes minutes suffice: where there is most noise
        the network answers with the picture that the caption asks for. A small network's errors of
        the noise would be magnified there beyond the size of the picture.
        Timesteps are stratified: one from each of `BATCH` equal intervals.
        """
        size = len(latents)
        share = (torch.arange(size) + torch.rand(size, generator=self.generator)) / size
        timesteps = (share * 1000).long()
        dropped = torch.rand(size, 1, generator=self.generator) < DROPOUT
        hidden = self.text(torch.where(dropped, self.empty, ids)).last_hidden_state
        noise = torch.randn(latents.shape, generator=self.generator)
        abar = self.abar[timesteps].view(-1, 1, 1, 1)
        clean = self.scale * latents
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        v = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        return (self.unet(noisy, timesteps, hidden).sample - v).square().mean()

    def update(self, loss: Tensor, progress: float) -> None:
        """One optimizer step at the rate of this moment."""
        rate = RATE * cosine(progress, floor=0.01)
        pictures, words = self.optimizer.param_groups
        pictures["lr"], words["lr"] = rate, TEXT_RATE * rate * (progress >= TEXT_FROM)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.both)
        self.step += 1

    def snapshot(self, name: str) -> None:
        """Save the averaged weights in fp16 and a sheet of held-out prompts drawn with them."""
        (self.work / "snapshots").mkdir(exist_ok=True)
        half = {key: value.half() for key, value in self.average.weights.items()}
        save_file(half, self.work / "snapshots" / f"{name}.safetensors")
        if not (self.work / "vae" / "config.json").exists():
            return
        copy = nn.ModuleDict({"unet": unet(), "text": text_encoder(self.words)})
        self.average.copy_to(copy)
        pipe = assemble(load(self.work), self.words, copy["text"], copy["unet"])
        captions = prompts("validation", 32)
        pictures = draw(pipe, captions, list(range(len(captions))))
        sheet(pictures, captions).save(self.work / "snapshots" / f"{name}.png")


def train(work: Path, minutes: float) -> None:
    """Train until the minutes are over; the cosine follows the clock, not the step count."""
    if (work / "snapshots" / "100.safetensors").exists():
        return
    data, trainer, journal = encoded(work), Trainer(work), Journal(work / "unet.jsonl")
    total, began = 60 * minutes, time.monotonic() - trainer.spent
    left = [share for share in SNAPSHOTS if share > trainer.spent / total]
    losses: list[float] = []
    while left:
        trainer.spent = time.monotonic() - began
        progress = min(1.0, trainer.spent / total)
        index = torch.randint(len(data["ids"]), (BATCH,), generator=trainer.generator)
        mean = data["mean"][index].float()
        latents = mean + SPREAD * torch.randn(mean.shape, generator=trainer.generator)
        loss = trainer.loss(latents, data["ids"][index].long())
        trainer.update(loss, progress)
        losses.append(loss.item())
        if trainer.step % 100 == 0:
            journal.write(step=trainer.step, progress=progress, loss=sum(losses[-100:]) / 100)
        if trainer.step % 1000 == 0:
            trainer.save()
        if progress >= left[0]:
            trainer.save()
            trainer.snapshot(f"{round(100 * left.pop(0)):03}")
