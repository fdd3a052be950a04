"""Tiny models, random weights in the real architectures, loaded as users do; and what they made."""

import gc
import json
import os
import shutil
import signal
import string
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, settings

# Set before any test imports the libraries that read them: no test may touch the network, and
# plots need no display.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Equal bytes are a CPU's promise; CUDA_VISIBLE_DEVICES=0 tests on a card what holds there too.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Nor the user's cache of content hashes.
CACHE = tempfile.TemporaryDirectory(prefix="tastemaker-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE.name

# A slow machine is no fault.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")

# A shell starts what runs in the background with Ctrl-C ignored, and tests interrupt commands.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Half a million objects of imported libraries are searched for garbage every time: more rarely.
gc.set_threshold(20_000, 10, 100)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Keep the denormals that a command flushes: hypothesis draws them in the next test."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


START, END = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 16
PROMPTS = ("a cat", "a red dog", "two trees", "the sun")


def write_vocabulary(folder: Path) -> dict[str, int]:
    """A CLIP vocabulary of letters and digits: every character is a token, so any word encodes."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*characters, *(f"{character}</w>" for character in characters), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return vocabulary


def text_options(vocabulary: dict[str, int]) -> dict[str, int]:
    """What the text towers of both tiny models have in common."""
    return {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": vocabulary[START],
        "eos_token_id": vocabulary[END],
        "pad_token_id": vocabulary[END],
    }


@contextmanager
def restored_tables() -> Iterator[None]:
    """Undo what is registered inside; entries that the package loads meanwhile stay."""
    from tastemaker.core.registry import TABLES

    before = [dict(table._entries) for table in TABLES]
    yield
    for table, entries in zip(TABLES, before, strict=True):
        table._entries = entries | {n: e for n, e in table._entries.items() if built_in(e)}


def built_in(entry: object) -> bool:
    return str(getattr(entry, "__module__", "")).startswith("tastemaker.")


@pytest.fixture(scope="module", autouse=True)
def own_entries(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide what other test files registered as they were imported."""
    from tastemaker.core.registry import TABLES

    own = request.node.obj.__name__
    with restored_tables():
        for table in TABLES:
            table._entries = {
                name: entry
                for name, entry in table._entries.items()
                if built_in(entry) or getattr(entry, "__module__", "") == own
            }
        yield


@pytest.fixture(autouse=True)
def same_entries(own_entries: None) -> Iterator[None]:
    """Undo what a test registers."""
    with restored_tables():
        yield


@pytest.fixture(autouse=True)
def own_arithmetic() -> None:
    """Undo what commands set for their process: hypothesis refuses to work without denormals."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """A machine without a C++ compiler."""
    import torch
    import torch._inductor.config

    from tastemaker.backbones.compilation import _check_compiler

    torch._dynamo.reset()
    _check_compiler.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `StableDiffusionPipeline` of 32x32 pixels, 16x16 latents, random weights.

    Read it only: all tests share it.
    """
    import torch
    from transformers import CLIPTokenizer

    from stable_diffusion import stable_diffusion

    folder = tmp_path_factory.mktemp("tiny-model")
    vocabulary = write_vocabulary(folder / "vocabulary")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=POSITIONS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = stable_diffusion(tokenizer, text_options(vocabulary))
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `CLIPModel` of 32x32 pixels, its tokenizer and image processor.

    Read it only: all tests share it.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-clip")
    vocabulary = write_vocabulary(folder / "vocabulary")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIPModel(
            CLIPConfig(
                text_config=text_options(vocabulary),
                vision_config={
                    "hidden_size": 16,
                    "intermediate_size": 32,
                    "projection_dim": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "image_size": 32,
                    "patch_size": 8,
                },
                projection_dim=16,
            )
        )
    model.save_pretrained(folder / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=POSITIONS)
    tokenizer.save_pretrained(folder / "clip")
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder / "clip")
    return folder / "clip"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of every family. Read them only: all tests share them."""
    from families import FAMILIES, save_family

    return {name: save_family(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """Eight pairs whose images must be encoded: the pool keeps no latents.

    Read them only: all tests share them.
    """
    from tastemaker.config.datasets import PairConfig
    from tastemaker.config.sections import GenerateConfig, ScoreConfig
    from tastemaker.evaluation.score import score
    from tastemaker.pairing.pair import pair
    from tastemaker.sampling.generate import generate

    folder = tmp_path_factory.mktemp("pairs")
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(f"prompt {i}" for i in range(8)), encoding="utf-8")
    sampling = {"num_inference_steps": 2, "num_candidates": 2, "keep_latents": False}
    config = GenerateConfig(model=str(tiny_model), prompts=str(prompts), **sampling)
    pool = generate(config, folder / "pool")
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    score(ScoreConfig(scorers=(scorer,)), pool)
    return pair(PairConfig(rule={"scorer": "tiny"}), pool, folder / "pairs")


def write_run(folder: Path, model: Path, clip: Path) -> Path:
    """A complete run on the tiny model, small enough for seconds."""
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    (folder / "held_out.txt").write_text("a moon\na fish\na bird\n", encoding="utf-8")
    sampling = {"num_inference_steps": 2, "guidance_scale": 2.0, "batch_size": 3}
    scorer = {"name": "clip", "label": "tiny", "model": str(clip)}
    data = {
        "name": "small",
        "output": str(folder / "runs"),
        "model": str(model),
        "device": "cpu",
        "generate": {
            **sampling,
            "prompts": str(folder / "prompts.txt"),
            "num_candidates": 3,
            "shard_size": 5,
        },
        "score": {"scorers": [scorer]},
        "pair": {"rule": {"name": "best_worst", "scorer": "tiny"}},
        "train": {
            "max_steps": 4,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "save_steps": 2,
            "lora": {"r": 2},
            "report_to": None,
            "validation": {"steps": 2, "prompts": ["a cat"], "num_inference_steps": 2},
        },
        "evaluate": {**sampling, "prompts": str(folder / "held_out.txt"), "scorers": [scorer]},
    }
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return file


@pytest.fixture
def run_file(tmp_path: Path, tiny_model: Path, tiny_clip: Path) -> Path:
    """A complete run on the tiny model."""
    return write_run(tmp_path, tiny_model, tiny_clip)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to build the embedded model in, with discs for art."""
    from PIL import Image, ImageDraw

    from tastemaker.nano.build.art import SETS
    from tastemaker.nano.build.latents import SceneBatches
    from tastemaker.nano.captions import CONCEPTS

    folder = tmp_path_factory.mktemp("begun")
    for number, concept in enumerate(CONCEPTS):
        disc = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(disc).ellipse((4, 4, 60, 60), (6 * number, 255 - 6 * number, 90, 255))
        for style in SETS:
            file = folder / "art" / style / f"{concept}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            disc.save(file)
    SceneBatches(folder, 1)  # fits the latent code
    return folder


@pytest.fixture
def work(begun: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(begun, tmp_path / "work"))
