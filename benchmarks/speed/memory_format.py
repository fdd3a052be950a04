"""U-Net in `channels_last` beside the usual memory format: one forward, one forward and backward.

    python benchmarks/speed/memory_format.py --rounds 9

Both formats are timed in turn on the same inputs; printed is the time of the usual one over that of
`channels_last`, median [min, max], above 1 where `channels_last` is faster, and whether both give
the same bytes.
"""

import argparse
import copy
from functools import partial
from typing import Any

import torch
from models import portraits

from tastemaker.backbones import Backbone, load_backbone, wrap_pipeline
from tastemaker.core.hardware import fix_arithmetic
from tastemaker.profiling.rows import between
from tastemaker.profiling.timing import interleaved, ratios

FORMATS = {"usual": torch.contiguous_format, "channels_last": torch.channels_last}
IMAGES = 8


def draw(network: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Run a network without a graph."""
    with torch.no_grad():
        prediction: torch.Tensor = network(**inputs, return_dict=False)[0]
    return prediction


def train(network: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Run a network and back; weights of attention get a gradient."""
    network(**inputs, return_dict=False)[0].square().mean().backward()
    network.zero_grad()


def measured(backbone: Backbone, rounds: int) -> dict[str, str]:
    """Time a model's U-Net in both formats.

    Args:
        backbone: The model, on its device.
        rounds: Times that each is timed, after one that is not.

    Returns:
        Cells of the table.
    """
    for name, parameter in backbone.denoiser.named_parameters():
        parameter.requires_grad_("to_q" in name)
    networks = {
        name: copy.deepcopy(backbone.denoiser).to(memory_format=layout)
        for name, layout in FORMATS.items()
    }
    inputs = {
        "sample": torch.randn(IMAGES, *backbone.latent_shape(None, None)),
        "timestep": torch.full((IMAGES,), 500),
        "encoder_hidden_states": backbone.encode_prompts(["red"] * IMAGES)["prompt_embeds"],
    }
    usual, other = (draw(each, inputs) for each in networks.values())
    cells = {}
    for work in (draw, train):
        works = {name: partial(work, each, inputs) for name, each in networks.items()}
        interleaved(backbone.device, works, 1)
        took = interleaved(backbone.device, works, rounds)
        cells[work.__name__] = between(ratios(took["usual"], took["channels_last"]))
    return cells | {"same bytes": str(torch.equal(usual, other)).lower()}


def main() -> None:
    """Measure nano and a model of 128 pixels on the CPU, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds per model and work")
    rounds = parser.parse_args().rounds
    fix_arithmetic()
    torch.manual_seed(0)
    print("| model | draw | train | same bytes |\n|---|---:|---:|---|")
    models = {"nano": load_backbone("nano", device="cpu"), "portraits": wrap_pipeline(portraits())}
    for name, backbone in models.items():
        print(f"| {' | '.join([name, *measured(backbone, rounds).values()])} |", flush=True)


if __name__ == "__main__":
    main()
