"""The examples run as they are, at small size."""

import runpy
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import tastemaker as tm
from tastemaker.backbones.places import LORA_FILE

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def nano_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pairs of the demo."""
    folder = tmp_path_factory.mktemp("nano")
    small = ("generate.prompts.number=4", "generate.num_candidates=2")
    config = tm.load("demo", (*small, "generate.num_inference_steps=2"))
    pool = tm.score(config.score, tm.generate(config.generate, folder / "pool"))
    return tm.pair(config.pair, pool, folder / "pairs")


@pytest.mark.parametrize("name", ["own_loss", "own_loop"])
def test_example_on_pairs(name: str, nano_pairs: Path, tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    main(pairs=str(nano_pairs), output=str(tmp_path / name), max_steps=2)
    pipeline = DiffusionPipeline.from_pretrained(tm.MODELS.entry("nano")())
    pipeline.load_lora_weights(tmp_path / name)
    assert pipeline.get_list_adapters()["unet"]


def test_example_of_an_own_pipeline(tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "own_pipeline.py"))["main"]
    main(output=str(tmp_path / "out"), max_steps=2)
    assert (tmp_path / "out" / LORA_FILE).is_file()
    assert (tmp_path / "out" / "sample.png").is_file()
