"""Peak memory of each step of a run, computed on networks without weights.

The commands' own code runs on torch's device `meta`, where operations have shapes and no numbers,
and live tensors are added up. About half a gigabyte of the libraries themselves is not counted.
"""

from __future__ import annotations

from dataclasses import replace

from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import SamplingConfig, Section, sections_of
from tastemaker.config.training import RewardTrainConfig, TrainConfig
from tastemaker.core.hardware import memory
from tastemaker.doctor.disk import encodings
from tastemaker.doctor.peak_memory import Need, Size, personalisation, reward, sampling, training

SAMPLED = ("model", "base", "batch_size", "guidance_scale", "height", "width", "dtype")
"""Options that the memory of sampling depends on."""

LIBRARIES = 500_000_000
"""Bytes of a process that has imported torch, diffusers and transformers."""


def needs(config: Section) -> list[Need]:
    """Compute the memory of every section of a run that samples images or trains.

    Args:
        config: The run. Models that it makes itself count as their base.

    Returns:
        One need per section, in the order of the configuration.

    Raises:
        TastemakerError: A model is missing or of an unknown family.
    """
    found, sampled = list[Need](), dict[tuple[str, ...], Need]()
    size = drawn_size(config)
    for path, section in sections_of(config):
        if isinstance(section, TrainConfig):
            found.append(training(path, section, size))
        elif isinstance(section, PersonalizeConfig):
            found.append(personalisation(path, section))
        elif isinstance(section, RewardTrainConfig):
            found.append(reward(path, section))
        elif isinstance(section, SamplingConfig):
            # What samples alike, as `generate` and `evaluate` mostly do, is looked at once.
            alike = tuple(str(getattr(section, each)) for each in SAMPLED if hasattr(section, each))
            if alike not in sampled:
                sampled[alike] = sampling(path, section)
            found.append(replace(sampled[alike], section=path))
    return found


def table(config: RunConfig) -> str:
    """Write what a run needs as text, and whether it can work on this machine.

    Args:
        config: The run.

    Returns:
        One line per section, then the verdict.
    """
    found = needs(config)
    lines = [f"{'section':<24}{'model':<28}{'trains':>14}{'weights':>10}{'peak':>10}"]
    for each in found:
        trains = f"{each.trains:,}" if each.trains else ""
        sizes = f"{_gigabytes(each.weights):>10}{_gigabytes(each.peak):>10}"
        lines.append(f"{each.section:<24}{each.pipeline:<28}{trains:>14}{sizes}")
    lines += ["", *encodings(config, drawn_size(config))]
    most = max(found, key=lambda each: each.peak)
    there = memory(config.device)
    lines.append(f"Without what the libraries take, about {_gigabytes(LIBRARIES)}, and scorers.")
    if there is None:
        lines.append("The memory of this machine is not known.")
    elif most.peak + LIBRARIES <= there:
        lines.append(f"It fits: this machine has {_gigabytes(there)}.")
    else:
        lines.append(
            f"It does not fit: {most.section} needs {_gigabytes(most.peak)}, this machine has"
            f" {_gigabytes(there)}. Lower {most.section}.batch_size, or set dtype=bf16,"
            " gradient_checkpointing=true, method=lora."
        )
    return "\n".join(lines)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def drawn_size(config: Section) -> Size:
    """Height and width of the training images, if the run samples them itself."""
    for _, section in sections_of(config):
        if isinstance(section, SamplingConfig) and not isinstance(section, EvaluateConfig):
            return section.height, section.width
    return None, None
