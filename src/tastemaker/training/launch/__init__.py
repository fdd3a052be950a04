"""Configurations for `accelerate launch --config_file`."""

from pathlib import Path

FSDP2 = Path(__file__).parent / "fsdp2.yaml"
"""Every process holds a part of the denoiser; set `num_processes` to the GPUs that are there."""
