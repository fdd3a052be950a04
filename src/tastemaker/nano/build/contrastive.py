"""Stage `clip`: the two CLIP scorers learn scenes and their captions, apart."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPModel

from tastemaker.nano import JUDGE, PREFERENCE
from tastemaker.nano.build.averaging import Average, cosine, set_rate
from tastemaker.nano.build.captioned_scenes import Captioned, CaptionedScenes
from tastemaker.nano.build.clip import contrast, image_and_patches, update
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.captions import CONCEPTS
from tastemaker.storage.files import atomic

BATCH = 64
STEPS = 1200
RATE = 1e-3
SAVED_EVERY = 50
SEEDS = {"preference": 1, "judge": 2}
SHIPPED = {"preference": PREFERENCE, "judge": JUDGE}


class Trainer:
    """State of the training of one scorer: weights and their average, optimizer, step.

    Beside the model a linear layer names the concept that each patch shows: 64 labels per picture
    to learn shapes from, where a caption is one. It is not exported.

    Args:
        file: The training goes on from it where it exists.
        model: The weights to start from otherwise.
        rate: Highest learning rate.
        more: What else has a state.
    """

    def __init__(self, file: Path, model: CLIPModel, rate: float, **more: nn.Module) -> None:
        self.file, self.model, self.rate, self.step = file, model, rate, 0
        width = model.config.vision_config.hidden_size
        self.both = nn.ModuleDict({"model": model, "cells": nn.Linear(width, 1 + len(CONCEPTS))})
        self.optimizer = torch.optim.AdamW(
            self.both.parameters(), lr=rate, weight_decay=0.05, foreach=True
        )
        self.average = Average(model, 0.99)
        self.parts: dict[str, Any] = {"both": self.both, "optimizer": self.optimizer, **more}
        if file.exists():
            state: dict[str, Any] = torch.load(file, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.average.weights, self.step = state["average"], state["step"]
            self.average.steps = self.step

    def update(self, loss: Tensor, steps: int) -> None:
        """Take one step of so many."""
        set_rate(self.optimizer, self.rate * cosine(self.step / steps))
        update(self.model, self.optimizer, loss)
        self.average.update(self.model)
        self.step += 1

    def save(self) -> None:
        """Write the state so that a torn file is never read."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic(self.file) as temporary:
            torch.save({**state, "average": self.average.weights, "step": self.step}, temporary)

    def finish(self, file: Path) -> None:
        """Write the averaged weights."""
        self.average.copy_to(self.model)
        with atomic(file) as temporary:
            torch.save(self.model.state_dict(), temporary)


def loss_of(trainer: Trainer, batch: Captioned) -> Tensor:
    """Contrast of pictures and captions, and the cross-entropy of the patches' concepts."""
    pictures, ids, wrong, cells = batch
    image, patches = image_and_patches(trainer.model, pictures)
    named = trainer.both["cells"](patches)
    loss = contrast(trainer.model, image, ids, wrong)
    return loss + cross_entropy(named.flatten(0, 1), cells.flatten())


def train(work: Path, scorer: str) -> None:
    """Train one scorer, starting from its shipped weights; writes `work/clip-<scorer>.pt`."""
    path = work / f"clip-{scorer}.pt"
    if path.exists():
        return
    torch.manual_seed(SEEDS[scorer])
    shipped = CLIPModel.from_pretrained(SHIPPED[scorer], dtype=torch.float32)
    trainer = Trainer(work / f"clip-{scorer}-training.pt", shipped, RATE)
    journal = Journal(work / f"clip-{scorer}.jsonl")
    batches = CaptionedScenes(work, scorer, BATCH)
    trainer.both.train()
    while trainer.step < STEPS:
        loss = loss_of(trainer, batches[trainer.step])
        trainer.update(loss, STEPS)
        if trainer.step % 25 == 0:
            scale = trainer.model.logit_scale.exp().item()
            journal.write(step=trainer.step, loss=loss.item(), scale=scale)
        if trainer.step % SAVED_EVERY == 0 or trainer.step == STEPS:
            trainer.save()
    trainer.finish(path)
