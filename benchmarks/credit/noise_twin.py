"""Where the gradient lies when a model predicts noise: a twin of the embedded model.

    python benchmarks/credit/noise_twin.py --output runs/noise_twin

`nano` predicts v, so that kappa is at most 1. Its twin predicts noise: the same U-Net, distilled
from nano's own predictions (`eps = alpha v + sigma x_t`) on nano's own images. Then the uniform
loss, and DDE's single shot with and without the clip, train on it for some steps, and the diary of
each says which tenth of the timesteps its gradient lies in. Resumable. Writes noise_twin.json and
noise_twin.md beside this file.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler

from tastemaker.backbones import Backbone, load_backbone
from tastemaker.config.loading import load
from tastemaker.core.seeding import keyed_generator
from tastemaker.pairing.pair import pair
from tastemaker.recipes.candidates import scored_candidates
from tastemaker.reporting.credit import read
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.files import atomic, write_json, written_folder
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.encoding import encode
from tastemaker.training.preference.pairs import open_pairs
from tastemaker.training.preference.train import train

HERE = Path(__file__).parent
STEPS, BATCH, RATE = 1200, 32, 1e-3
COMMON = (
    "generate.num_candidates=4",
    "train.max_steps=40",
    "train.save_steps=40",
    "train.report_to=null",
)
SCHEMES = {
    "uniform": "train.credit=uniform",
    "kappa, not clipped": "train.credit={name: dde_single, kappa_max: null}",
    "kappa, clipped at 10": "train.credit={name: dde_single, kappa_max: 10}",
}


def twin(pairs: Path, folder: Path, steps: int = STEPS) -> Path:
    """Distil the twin from nano's images in pairs, or find it made; a killed distillation goes on.

    Args:
        pairs: Of nano's own images.
        folder: Of the twin and of what it is made from.
        steps: Of the optimizer.

    Returns:
        The twin's pipeline; beside it, in `distilled.json`, the mean squared difference of the two
        predictions over the last 50 steps.
    """
    pipeline, made, checkpoint = (folder / n for n in ("twin", "distilled.json", "checkpoint.pt"))
    if made.is_file():
        return pipeline
    teacher = load_backbone("nano", device="auto")
    data = encode(open_pairs(pairs), teacher, folder / "encoded")
    student = copy.deepcopy(teacher.denoiser).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE)
    losses: list[float] = []
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=teacher.device)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        losses = state["losses"]
    for step in range(len(losses), steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / steps))
        loss = difference(teacher, student, data, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 49:
            print(step + 1, np.mean(losses[-50:]), flush=True)
            state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic(checkpoint) as temporary:
                torch.save(state | {"losses": losses}, temporary)
    own = load_backbone("nano", device="cpu").pipeline
    own.unet.load_state_dict(student.state_dict())
    own.scheduler = DDIMScheduler.from_config(own.scheduler.config, prediction_type="epsilon")
    with written_folder(pipeline) as temporary:
        own.save_pretrained(temporary)
    write_json(made, {"mean_squared_difference": float(np.mean(losses[-50:]))})
    checkpoint.unlink(missing_ok=True)
    return pipeline


def difference(
    teacher: Backbone, student: torch.nn.Module, data: Encoded, step: int
) -> torch.Tensor:
    """Mean squared difference of the student's noise and the teacher's, on one keyed batch."""
    generator = keyed_generator(0, "twin", step)
    index = torch.randint(len(data), (BATCH,), generator=generator)
    side = torch.rand(BATCH, generator=generator) < 0.5
    chosen, rejected = data.images(index).chunk(2)
    clean, _ = data.latents.take(torch.where(side, chosen, rejected))
    timesteps = torch.randint(teacher.num_timesteps, (BATCH,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    # The first row is the empty prompt's, by which guidance draws.
    prompt = data.prompts(index) * (torch.rand(BATCH, generator=generator) < 0.8)
    schedule = teacher.noise_schedule
    alpha, sigma = (
        each[timesteps].float()[:, None, None, None].to(teacher.device)
        for each in (schedule.alpha, schedule.sigma)
    )
    # Drawn on the CPU, so that every device sees one batch.
    clean, noise, timesteps = (each.to(teacher.device) for each in (clean, noise, timesteps))
    noisy = teacher.add_noise(clean, noise, timesteps)
    embeddings, _ = data.text(prompt)
    embeddings = {name: value.to(teacher.device) for name, value in embeddings.items()}
    with torch.no_grad():
        v = teacher.predict(teacher.denoiser, noisy, timesteps, embeddings).float()
    predicted = teacher.predict(student, noisy, timesteps, embeddings).float()
    return (predicted - (alpha * v + sigma * noisy)).square().mean()


def shares(folder: Path) -> list[float]:
    """Each tenth's share of the squared gradient over a whole training, in percent."""
    credit = read(folder)
    assert credit is not None
    total = credit.sums["gradient"].sum(0)
    return [round(float(each), 1) for each in 100 * total / total.sum()]


def main() -> None:
    """Make what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    root = parser.parse_args().output
    config = load("demo", COMMON)
    pairs = pair(config.pair, scored_candidates(config, RunDir(root)), root / "pairs")
    model = twin(pairs, root / "twin")
    found = {}
    for name, option in SCHEMES.items():
        options = (*COMMON, option, f"train.model={model}")
        folder = train(load("demo", options).train, pairs, root / name.replace(" ", "-"))
        found[name] = shares(folder)
        print(name, found[name], flush=True)
    write_json(
        HERE / "noise_twin.json",
        {**json.loads((root / "twin" / "distilled.json").read_text()), "shares": found},
    )
    (HERE / "noise_twin.md").write_text(as_table(found), encoding="utf-8")


def as_table(found: dict[str, list[float]]) -> str:
    """Shares of the squared gradient by tenth of the timesteps, in percent."""
    tenths = [f"{low}-{low + 100}" for low in range(0, 1000, 100)]
    lines = ["| scheme | " + " | ".join(tenths) + " |", "|---" * 11 + "|"]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in found.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
