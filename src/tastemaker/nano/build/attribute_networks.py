"""Stages `checker` and `examiner`: train a network to name what a picture shows, and measure it."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tastemaker.nano.attributes import NETWORKS, Attributes
from tastemaker.nano.build.attribute_figures import measure
from tastemaker.nano.build.attribute_scenes import LabelledScenes, Labels
from tastemaker.nano.build.averaging import cosine, set_rate
from tastemaker.nano.build.journal import Journal
from tastemaker.storage.files import atomic

BATCH = 64
STEPS = {"checker": 1400, "examiner": 3000}
RATE = 2e-3
SAVED_EVERY = 100
SEEDS = {"checker": 21, "examiner": 22}


def loss_of(seen: Attributes, known: Labels) -> Tensor:
    """Cross-entropy of every attribute, a mean over the pictures that have it; counts are summed.

    Args:
        seen: Logits of the pictures.
        known: Their classes; -1 is left out.
    """
    counts, places, *rest = known
    total = cross_entropy(seen.counts.flatten(0, 1), counts.flatten()) * counts.shape[1]
    logits = (seen.places.flatten(0, 1), seen.sizes, seen.backgrounds, seen.styles)
    for each, classes in zip(logits, (places.flatten(), *rest), strict=True):
        total = total + cross_entropy(each, classes, ignore_index=-1)
    return total


class Trainer:
    """State of the training of one network: weights, optimizer, step.

    Args:
        work: Folder of the build; the training goes on from its `<name>.pt` where there is one.
        name: Key of `NETWORKS`.
    """

    def __init__(self, work: Path, name: str) -> None:
        torch.manual_seed(SEEDS[name])
        self.file = work / f"{name}.pt"
        self.network: nn.Module = NETWORKS[name][0]()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=RATE, weight_decay=0.02, foreach=True
        )
        self.step = 0
        if self.file.exists():
            state: dict[str, Any] = torch.load(self.file, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def update(self, pictures: Tensor, known: Labels, steps: int) -> float:
        """One step of so many; return its loss."""
        set_rate(self.optimizer, RATE * cosine(self.step / steps))
        loss = loss_of(self.network(pictures), known)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write the state so that a torn file is never read."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        with atomic(self.file) as temporary:
            torch.save(state, temporary)


def train(work: Path, name: str) -> None:
    """Train one network on fresh scenes; writes `<name>.safetensors`, fp16, and its figures."""
    file = work / f"{name}.safetensors"
    if file.exists():
        return
    trainer, journal = Trainer(work, name), Journal(work / f"{name}.jsonl")
    steps = STEPS[name]
    batches = LabelledScenes(work, name, BATCH)
    trainer.network.train()
    while trainer.step < steps:
        loss = trainer.update(*batches[trainer.step], steps)
        if trainer.step % 50 == 0:
            journal.write(step=trainer.step, loss=loss)
        if trainer.step % SAVED_EVERY == 0 or trainer.step == steps:
            trainer.save()
    halves = {
        key: value.half() if value.is_floating_point() else value
        for key, value in trainer.network.state_dict().items()
    }
    save_file(halves, file)
    measure(work, name)
