"""Diffusion-DPO with a LoRA on diffusers and PEFT alone, the way public scripts train.

    python benchmarks/speed/plain.py --model FOLDER --data FOLDER --steps 100 --output FOLDER

`FOLDER/metadata.jsonl` names prompt, chosen and rejected image of each pair. Every step decodes its
images, encodes them by the VAE and the prompts by the text encoder, each in one batch, runs policy
and reference once each on chosen and rejected together, and reads the loss. One text encoder, as in
Stable Diffusion 1 and 2. Nothing here is imported from the library.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RATE, CLIP = 1e-4, 1.0
BETA = 100.0
"""Small, so that losses can be compared: they carry the rounding of errors times half of it."""


class PairImages(Dataset[dict[str, torch.Tensor]]):
    """Pairs as pixels in [-1, 1], [2, 3, height, width], and tokens.

    Args:
        folder: With `metadata.jsonl`.
        tokenizer: Of the model.
    """

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        self.folder, self.rows = folder, [json.loads(line) for line in lines]
        self.tokens = tokenizer(
            [row["prompt"] for row in self.rows],
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )["input_ids"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sides = [self._pixels(self.rows[index][side]) for side in ("chosen", "rejected")]
        return {"pixels": torch.stack(sides), "tokens": self.tokens[index]}

    def _pixels(self, name: str) -> torch.Tensor:
        with Image.open(self.folder / name) as image:
            values = np.asarray(image.convert("RGB"), dtype=np.float32)
        return torch.from_numpy(values).permute(2, 0, 1) / 127.5 - 1


class PlainTraining:
    """A U-Net with a LoRA that trains, and encoders that do not.

    Args:
        pipeline: On its device, in fp32 or bf16.
        rank: Of the LoRA.
    """

    def __init__(self, pipeline: Any, rank: int = 8) -> None:
        self.vae, self.text = pipeline.vae, pipeline.text_encoder
        self.unet, self.device = pipeline.unet, pipeline.device
        self.dtype = self.unet.dtype
        for network in (self.vae, self.text, self.unet):
            network.requires_grad_(False)
        self.unet.add_adapter(
            LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS
            )
        )
        self.weights = [each for each in self.unet.parameters() if each.requires_grad]
        for each in self.weights:
            each.data = each.data.float()
        self.unet.train()
        self.noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.optimizer = torch.optim.AdamW(self.weights, lr=RATE, weight_decay=1e-2)

    def step(
        self,
        batch: dict[str, torch.Tensor],
        draws: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> float:
        """Do one step.

        Args:
            batch: `pixels` [pairs, 2, 3, height, width] and `tokens` [pairs, length].
            draws: Noise [pairs, channels, h, w] and timesteps [pairs], with the posterior's mean in
                place of a sample; None draws all three.

        Returns:
            The loss.
        """
        pairs = len(batch["pixels"])
        pixels = batch["pixels"].transpose(0, 1).flatten(0, 1).to(self.device, self.dtype)
        with torch.no_grad():
            posterior = self.vae.encode(pixels).latent_dist
            latents = posterior.sample() if draws is None else posterior.mean
            latents = latents * self.vae.config.scaling_factor
            states = self.text(batch["tokens"].to(self.device))[0].repeat(2, 1, 1)
        if draws is None:
            draws = torch.randn_like(latents[:pairs]), torch.randint(1000, (pairs,))
        noise, timesteps = draws[0].repeat(2, 1, 1, 1), draws[1].repeat(2).to(self.device)
        noisy = self.noise.add_noise(latents, noise, timesteps)
        target = noise
        if self.noise.config.prediction_type == "v_prediction":
            target = self.noise.get_velocity(latents, noise, timesteps)
        policy = self._errors(noisy, timesteps, states, target)
        self.unet.disable_adapters()
        with torch.no_grad():
            reference = self._errors(noisy, timesteps, states, target)
        self.unet.enable_adapters()
        chosen, rejected = (policy - reference).chunk(2)
        loss = -functional.logsigmoid(-0.5 * BETA * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _errors(self, noisy: Any, timesteps: Any, states: Any, target: Any) -> torch.Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            predicted = self.unet(noisy, timesteps, states).sample
        squares = functional.mse_loss(predicted.float(), target.float(), reduction="none")
        return squares.mean(dim=(1, 2, 3))


def main() -> None:
    """Train and save the LoRA."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a pipeline's folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with metadata.jsonl")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16, help="pairs per step")
    parser.add_argument("--output", type=Path, required=True, help="folder of the LoRA")
    options = parser.parse_args()
    torch.manual_seed(0)
    pipeline = DiffusionPipeline.from_pretrained(options.model, dtype=torch.float32)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    training = PlainTraining(pipeline)
    data = PairImages(options.data, pipeline.tokenizer)
    loader = DataLoader(data, batch_size=options.batch, shuffle=True, drop_last=True)
    done = 0
    with tqdm(total=options.steps) as bar:
        while done < options.steps:
            for batch in loader:
                bar.set_postfix(loss=training.step(batch))
                bar.update()
                done += 1
                if done == options.steps:
                    break
    state = get_peft_model_state_dict(training.unet)
    pipeline.save_lora_weights(options.output, unet_lora_layers=state)


if __name__ == "__main__":
    main()
