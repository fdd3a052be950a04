"""Stage `resume`: lay the shipped pipeline out as a work folder, so that its training can go on.

The autoencoder, the text encoder and the U-Net are those of the package; the optimizer starts
afresh. Then `--stage unet --steps N` trains the U-Net for N steps.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from tastemaker.nano import MODEL
from tastemaker.nano.build.averaging import Average
from tastemaker.nano.build.unet import Trainer


def resume(work: Path) -> None:
    """Write `work/unet.pt` from the shipped weights.

    Raises:
        FileExistsError: If a training is already under way in the work folder.
    """
    if (work / "unet.pt").exists():
        raise FileExistsError(f"{work / 'unet.pt'}: a training is under way; choose another folder")
    shipped = UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    trainer = Trainer(work, tuple(shipped.config.block_out_channels))
    trainer.unet.load_state_dict(shipped.state_dict())
    trainer.average = Average(trainer.both, trainer.average.decay)
    trainer.save()
