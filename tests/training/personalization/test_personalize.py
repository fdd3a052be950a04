"""Personalisation: what trains, what it learns, what it leaves alone, and what it refuses."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from tastemaker.backbones import Backbone, load_backbone, merge_adapters, stack_adapter
from tastemaker.cli.command_line import main
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.sections import GenerateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.sampling.generate import generate
from tastemaker.storage.images import to_pixels
from tastemaker.storage.photographs import read_photograph
from tastemaker.training.batches import mean_square, pair_index, residual
from tastemaker.training.personalization.data import PersonalData, encode_subject, subject_batch
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.personalization.trainer import PersonalTrainer

LORA = "pytorch_lora_weights.safetensors"
EMBEDDINGS = "learned_embeds.safetensors"
CLASS_PROMPTS = ("a dog", "the dog")
# Short enough for the 16 tokens of the tiny model, to which each letter is one.
PROMPT = "a {}"
TEXT_LORA = {"text_lora": {"r": 2, "learning_rate": 0.05}}
WORD = {"identifier": "<toy>", "token": {"vectors": 2, "learning_rate": 0.05}}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "text": {"method": "frozen", **TEXT_LORA},
    "word": {"method": "frozen", **WORD},
    "all": {**TEXT_LORA, **WORD},
    "full": {"method": "full", "learning_rate": 1e-3},
    "svdiff": {"method": "svdiff", "learning_rate": 0.05},
    "full_text": {"method": "full", "train_text_encoder": True, "learning_rate": 1e-3},
}

Config = Callable[..., PersonalizeConfig]
Trained = Callable[[str], Path]


def photograph(number: int) -> Image.Image:
    """The same red disc on a ground of another colour, upright."""
    image = Image.new("RGB", (48, 40), ("navy", "olive", "teal", "gray")[number])
    ImageDraw.Draw(image).ellipse((14, 8, 34, 28), fill="red")
    return image


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs; read it only."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(3):
        photograph(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def class_images(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A pool of four images of two prompts, drawn by the base."""
    folder = tmp_path_factory.mktemp("class")
    (folder / "prompts.txt").write_text("\n".join(CLASS_PROMPTS), encoding="utf-8")
    config = GenerateConfig(
        model=str(tiny_model),
        prompts=str(folder / "prompts.txt"),
        num_candidates=2,
        num_inference_steps=2,
        device="cpu",
    )
    return generate(config, folder / "pool")


@pytest.fixture(scope="module")
def config(tiny_model: Path, photographs: Path) -> Config:
    """A short training on the CPU, with other options where they are given."""

    def made(**options: Any) -> PersonalizeConfig:
        defaults = {
            "model": str(tiny_model),
            "photographs": str(photographs),
            "class_name": "dog",
            "prompt": PROMPT,
            "max_steps": 2,
            "learning_rate": 0.05,
            "device": "cpu",
        }
        return PersonalizeConfig.model_validate({**defaults, **options})

    return made


@pytest.fixture(scope="module")
def model(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A personalised model of one kind; read it only: tests share what is trained once."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def trained(kind: str) -> Path:
        return personalize(config(**KINDS[kind]), folder / kind)

    return trained


def state_of(model: Path) -> dict[str, torch.Tensor]:
    """Every weight of a pipeline, under the name of its network."""
    pipeline = load_backbone(str(model), device="cpu").pipeline
    return {
        f"{name}.{key}": value
        for name in ("unet", "text_encoder", "vae")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


def moved_parts(before: Path, after: Path) -> dict[str, float]:
    """For each network, the share of its tensors that changed."""
    old, new = state_of(before), state_of(after)
    assert old.keys() == new.keys()
    shares = {}
    for name in ("unet", "text_encoder", "vae"):
        keys = [key for key in old if key.startswith(f"{name}.")]
        shares[name] = sum(not torch.equal(old[key], new[key]) for key in keys) / len(keys)
    return shares


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def parts_of(folder: Path) -> set[str]:
    """Which networks a LoRA adapts."""
    return {key.partition(".")[0] for key in load_file(folder / LORA)}


def data_of(config: PersonalizeConfig, backbone: Backbone) -> PersonalData:
    files = sorted(Path(config.photographs).glob("*.png"))
    return encode_subject(config, files, backbone, text_trains=False)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def embedding(model: Path | str, prompt: str) -> torch.Tensor:
    return load_backbone(str(model), device="cpu").encode_prompts([prompt])["prompt_embeds"]


def test_error_falls_on_the_photographs(config: Config, tmp_path: Path) -> None:
    """Measured on draws of noise and timestep that training did not see."""
    given = config(max_steps=12, batch_size=2)
    out = personalize(given, tmp_path / "out")
    errors = []
    for model in (given.model, str(out)):
        backbone = load_backbone(model, device="cpu")
        batch = subject_batch(data_of(given, backbone), backbone, range(32), seed=1000)
        with torch.no_grad():
            errors.append(mean_square(residual(backbone, backbone.denoiser, batch)).mean())
    assert errors[1] < 0.95 * errors[0]


class TestWhatTrains:
    def test_lora_adapts_the_denoiser_alone(self, config: Config, model: Trained) -> None:
        assert parts_of(model("lora")) == {"unet"}
        assert json.loads((model("lora") / "model.json").read_text()) == {"base": config().model}
        assert not (model("lora") / EMBEDDINGS).exists()

    def test_text_lora_adapts_the_text_encoder(self, model: Trained, tiny_model: Path) -> None:
        assert parts_of(model("text")) == {"text_encoder"}
        assert parts_of(model("all")) == {"unet", "text_encoder"}
        assert not torch.allclose(embedding(model("text"), "a cat"), embedding(tiny_model, "a cat"))

    @pytest.mark.parametrize("kind", ["full", "full_text"])
    def test_all_weights(self, model: Trained, tiny_model: Path, kind: str) -> None:
        moved = moved_parts(tiny_model, model(kind))
        assert moved["unet"] > 0.9
        assert moved["vae"] == 0
        if kind == "full":
            assert moved["text_encoder"] == 0
        else:
            assert moved["text_encoder"] > 0.9

    def test_a_new_word_alone(self, model: Trained, tiny_model: Path) -> None:
        assert not (model("word") / LORA).exists()
        (learned,) = load_file(model("word") / EMBEDDINGS).values()
        base = load_backbone(str(tiny_model), device="cpu").pipeline
        tokens = base.tokenizer("dog", add_special_tokens=False)["input_ids"]
        start = base.text_encoder.get_input_embeddings().weight[tokens].mean(0)
        assert learned.shape == (2, 16)
        assert ((learned - start).abs().amax(1) > 0.01).all()
        # Other prompts mean what they meant.
        assert torch.equal(embedding(model("word"), "a cat"), embedding(tiny_model, "a cat"))

    def test_each_part_has_its_rate(self, config: Config, tiny_model: Path, tmp_path: Path) -> None:
        """At a rate of 1e-9 text encoder and new word stay where they began."""
        word = {"initializer": "x", "vectors": 2, "learning_rate": 1e-9}
        text = {"r": 2, "learning_rate": 1e-9}
        given = config(max_steps=1, text_lora=text, identifier="<toy>", token=word)
        out = personalize(given, tmp_path / "out")
        # B starts at zero: what it holds was learned.
        learned = {
            part: max(
                value.abs().max()
                for key, value in load_file(out / LORA).items()
                if key.startswith(part) and (".lora_B." in key or ".up." in key)
            )
            for part in ("unet", "text_encoder")
        }
        assert learned["unet"] > 1e-2
        assert 0 < learned["text_encoder"] < 1e-8
        # The word starts as its initializer: one word, and two tokens, "a x x".
        assert torch.allclose(embedding(out, "a <toy>"), embedding(tiny_model, "a x x"), atol=1e-5)


def test_one_photograph_may_be_a_file(config: Config, photographs: Path, tmp_path: Path) -> None:
    file = photographs / "0.png"
    with pytest.raises(TastemakerError, match="holds 1 photograph, fewer than min_photographs=2"):
        personalize(config(photographs=str(file)), tmp_path / "out")
    out = personalize(config(photographs=str(file), min_photographs=1), tmp_path / "out")
    assert json.loads((out / "done.json").read_text())["photographs"] == 1


class TestPrior:
    @pytest.fixture
    def backbone(self, tiny_model: Path) -> Backbone:
        return load_backbone(str(tiny_model), device="cpu")

    def test_class_images_come_with_their_own_prompts(
        self, config: Config, backbone: Backbone, class_images: Path
    ) -> None:
        data = data_of(config(prior={"pool": str(class_images)}), backbone)
        assert (data.photographs, data.class_images) == (3, 4)
        batch = subject_batch(data, backbone, range(5), seed=3)
        prompts = ["a sks dog"] * 5
        prompts += [CLASS_PROMPTS[pair_index(draw, 4, 3) // 2] for draw in range(5)]
        assert set(prompts[5:]) == set(CLASS_PROMPTS)
        for row, prompt in enumerate(prompts):
            wanted = backbone.encode_prompts([prompt])["prompt_embeds"]
            found = batch.conditioning["prompt_embeds"][row : row + 1]
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)

    def test_a_photograph_may_have_a_caption(
        self, config: Config, backbone: Backbone, photographs: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(photographs, tmp_path / "captioned")
        given = config(photographs=str(folder))
        files = sorted(Path(given.photographs).glob("*.png"))
        files[0].with_suffix(".txt").write_text("a red {}\n on grass\n")
        files[2].with_suffix(".txt").write_text("two of sks dog")
        encoded = data_of(given, backbone).encoded
        found = encoded.text(encoded.prompts(torch.arange(3)))[0]["prompt_embeds"]
        prompts = ["a red sks dog on grass", given.instance_prompt, "two of sks dog"]
        for row, prompt in enumerate(prompts):
            wanted = backbone.encode_prompts([prompt])["prompt_embeds"]
            torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-6, atol=1e-6)

    def test_text_encoders_that_train_read_the_same(
        self, config: Config, backbone: Backbone, class_images: Path
    ) -> None:
        given = config(prior={"pool": str(class_images)})
        files = sorted(Path(given.photographs).glob("*.png"))
        data = encode_subject(given, files, backbone, text_trains=True)
        batch = subject_batch(data, backbone, range(3), seed=3)
        assert batch.tokens is not None
        cached = batch.conditioning
        read = backbone.embed(backbone.text_encoders, batch.tokens, cached)["prompt_embeds"]
        assert torch.allclose(read, cached["prompt_embeds"], atol=1e-5)

    def test_each_draw_is_its_own(
        self, config: Config, backbone: Backbone, class_images: Path
    ) -> None:
        data = data_of(config(prior={"pool": str(class_images)}), backbone)
        batch = subject_batch(data, backbone, range(8), seed=0)
        assert len(set(batch.timesteps.tolist())) > 12
        assert len({float(noise.sum()) for noise in batch.target}) == 16
        again = subject_batch(data, backbone, range(2, 4), seed=0)
        assert torch.equal(again.noisy_latents, batch.noisy_latents[[2, 3, 10, 11]])
        other = subject_batch(data, backbone, range(8), seed=1)
        assert not torch.equal(other.timesteps, batch.timesteps)

    def test_the_loss_is_the_weighted_sum(
        self, config: Config, model: Trained, class_images: Path, tmp_path: Path
    ) -> None:
        given = config(prior={"pool": str(class_images), "weight": 0.25})
        out = personalize(given, tmp_path / "out")
        for row in rows(out):
            wanted = row["errors/photographs"] + 0.25 * row["errors/class_images"]
            assert row["loss"] == pytest.approx(wanted, rel=1e-5)
        without = rows(model("lora"))
        assert "errors/class_images" not in without[0]
        # The same draws of the photographs; another model from the first step on.
        first, second = (pytest.approx(row["errors/photographs"], rel=1e-5) for row in rows(out))
        assert first == without[0]["errors/photographs"]
        assert second != without[1]["errors/photographs"]


@pytest.mark.parametrize("kind", ["all", "full_text", "svdiff"])
def test_killed_it_ends_as_undisturbed(
    config: Config,
    class_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    options = {
        "gradient_accumulation_steps": 2,
        "prior": {"pool": str(class_images)},
        **KINDS[kind],
    }
    if "text_lora" in options:
        options["text_lora"] = {**options["text_lora"], "dropout": 0.5}
    given = config(max_steps=4, save_steps=2, logging_steps=1, **options)
    personalize(given, tmp_path / "undisturbed")
    record = PersonalTrainer.record

    def killed(self: PersonalTrainer, step: int, row: dict[str, float]) -> None:
        record(self, step, row)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PersonalTrainer, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            personalize(given, tmp_path / "killed")
    assert len(rows(tmp_path / "killed")) == 3
    personalize(given, tmp_path / "killed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "undisturbed")


def test_accumulated_batches_equal_one(config: Config, class_images: Path, tmp_path: Path) -> None:
    models = []
    for size, parts in ((4, 1), (1, 4)):
        # With a large epsilon AdamW's step is proportional to the gradient, not its sign.
        given = config(
            batch_size=size,
            gradient_accumulation_steps=parts,
            prior={"pool": str(class_images)},
            adam_epsilon=10.0,
            learning_rate=10.0,
        )
        models.append(load_file(personalize(given, tmp_path / str(size)) / LORA))
    one, four = models
    assert all(torch.allclose(one[key], four[key], atol=1e-5) for key in one)


def test_bf16_and_gradient_checkpointing(config: Config, tmp_path: Path) -> None:
    out = personalize(
        config(dtype="bf16", gradient_checkpointing=True, **KINDS["all"]), tmp_path / "out"
    )
    assert all(row["loss"] > 0 for row in rows(out))
    (learned,) = load_file(out / EMBEDDINGS).values()
    # What trains stays in fp32: a step of 0.05 is not rounded.
    assert learned.dtype == torch.float32
    assert not torch.equal(learned, learned.bfloat16().float())


class TestInDiffusers:
    """A plain script gets what `model=` gets."""

    def test_lora(self, model: Trained, tiny_model: Path) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
        base = drawn(pipeline, "a sks dog")
        pipeline.load_lora_weights(model("lora"))
        ours = load_backbone(str(model("lora")), device="cpu").pipeline
        assert torch.allclose(drawn(pipeline, "a sks dog"), drawn(ours, "a sks dog"), atol=1e-5)
        assert not torch.allclose(drawn(pipeline, "a sks dog"), base, rtol=1e-2)

    def test_lora_and_word(self, model: Trained, tiny_model: Path) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
        pipeline.load_textual_inversion(model("all"))
        pipeline.load_lora_weights(model("all"))
        ours = load_backbone(str(model("all")), device="cpu").pipeline
        prompts = ("a <toy> dog", "a dog")
        word, without = (drawn(pipeline, prompt) for prompt in prompts)
        assert torch.allclose(word, drawn(ours, prompts[0]), atol=1e-5)
        assert not torch.allclose(word, without, rtol=1e-3)

    def test_all_weights(self, model: Trained) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(model("full_text"))
        ours = load_backbone(str(model("full_text")), device="cpu").pipeline
        assert torch.equal(drawn(pipeline, "a sks dog"), drawn(ours, "a sks dog"))


def drawn(pipeline: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "output_type": "latent", "generator": generator}
    latents: torch.Tensor = pipeline(prompt, **options).images
    return latents


class TestOnTop:
    """A personalised model as the base of another."""

    def test_lora_on_a_lora_and_a_word(
        self, config: Config, model: Trained, tmp_path: Path
    ) -> None:
        given = config(model=str(model("all")), identifier="<toy>")
        second = personalize(given, tmp_path / "second")
        assert parts_of(second) == {"unet"}
        prompt = "a <toy> dog"
        # The first LoRA is fused: equal up to rounding.
        assert torch.allclose(embedding(second, prompt), embedding(model("all"), prompt), atol=1e-5)

    def test_a_word_is_not_dropped_unseen(self, model: Trained, tmp_path: Path) -> None:
        word, text = model("all"), model("text")
        with pytest.raises(TastemakerError, match="learned word"):
            merge_adapters([word, text], tmp_path / "merged")
        with pytest.raises(TastemakerError, match="learned word"):
            stack_adapter(word, text, tmp_path / "stacked")

    def test_lora_stacks_on_a_word(self, model: Trained, tmp_path: Path) -> None:
        stacked = stack_adapter(model("text"), model("word"), tmp_path / "stacked")
        both, word, text = (
            embedding(each, "a <toy> dog") for each in (stacked, model("word"), model("text"))
        )
        assert not torch.allclose(both, word, atol=1e-3)
        assert not torch.allclose(both, text, atol=1e-3)

    def test_a_word_is_learned_once(self, config: Config, model: Trained, tmp_path: Path) -> None:
        given = config(model=str(model("word")), **KINDS["word"])
        with pytest.raises(TastemakerError, match="'<toy>' is a word of .* choose another"):
            personalize(given, tmp_path / "second")


class TestPhotographs:
    @pytest.fixture
    def latents(self, config: Config, tiny_model: Path) -> Callable[[Path], torch.Tensor]:
        """Means of the latents of a folder's photographs."""

        def encoded(folder: Path) -> torch.Tensor:
            backbone = load_backbone(str(tiny_model), device="cpu")
            files = sorted(folder.iterdir())
            encoded = encode_subject(config(), files, backbone, text_trains=False).encoded
            return encoded.latents.take(torch.arange(len(files)))[0]

        return encoded

    def test_turned_and_cropped(
        self, tiny_model: Path, tmp_path: Path, latents: Callable[[Path], torch.Tensor]
    ) -> None:
        """A photograph that its EXIF data turn gives the latents of the upright middle square."""
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = photograph(0).transpose(Image.Transpose.ROTATE_90)
        lying.save(tmp_path / "lying.png", exif=exif)
        assert read_photograph((tmp_path / "lying.png").read_bytes()).image.size == (48, 40)
        middle = photograph(0).crop((4, 0, 44, 40)).resize((32, 32), Image.Resampling.LANCZOS)
        backbone = load_backbone(str(tiny_model), device="cpu")
        wanted, _ = backbone.vae.encode(to_pixels([middle]))
        # Pillow crops and scales in one go: half a level of rounding apart.
        assert torch.allclose(latents(tmp_path), wanted, atol=0.02)

    def test_small_ones_are_enlarged_and_named(
        self,
        tmp_path: Path,
        latents: Callable[[Path], torch.Tensor],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        photograph(0).resize((24, 20)).save(tmp_path / "small.png")
        assert latents(tmp_path).shape == (1, 4, 16, 16)
        assert "enlarged: small.png has 24 x 20 pixels" in capsys.readouterr().out

    def test_copies_are_named_and_left_out(
        self, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "photographs"
        folder.mkdir()
        for number in range(2):
            photograph(number).save(folder / f"{number}.png")
        photograph(0).save(folder / "copy.webp", lossless=True)
        (folder / "notes.txt").write_text("no photograph")
        personalize(config(photographs=str(folder)), tmp_path / "out")
        printed = capsys.readouterr().out
        assert "left out: copy.webp: the same picture as 0.png" in printed
        assert "notes.txt" not in printed
        done = json.loads((tmp_path / "out" / "done.json").read_text())
        assert done["photographs"] == 2

    def test_one_photograph_trains_where_it_is_asked_for(
        self, config: Config, tmp_path: Path
    ) -> None:
        (tmp_path / "one").mkdir()
        photograph(0).save(tmp_path / "one" / "0.png")
        given = config(photographs=str(tmp_path / "one"), min_photographs=1)
        assert len(rows(personalize(given, tmp_path / "out"))) == 2


Refuses = Callable[..., str]


class TestBadInput:
    """One clear error through the command line, and nothing lost."""

    @pytest.fixture
    def refuses(
        self, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> Refuses:
        def refused(*words: str) -> str:
            given = config()
            held = {word.partition("=")[0] for word in words}
            for key in (
                "model",
                "photographs",
                "class_name",
                "prompt",
                "device",
                "max_steps",
                "learning_rate",
            ):
                if key not in held:
                    words = (*words, f"{key}={json.dumps(getattr(given, key))}")
            assert main(["personalize", str(tmp_path / "out"), *words]) == 2
            message = capsys.readouterr().err
            assert "Traceback" not in message
            assert not (tmp_path / "out" / LORA).exists()
            return message[message.index("tastemaker: ") :]

        return refused

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["photographs=nowhere"], ["'nowhere' does not exist", "check the path"]),
            (["model=nowhere"], ["nowhere", "does not exist"]),
            (["prompt=a dog"], ["prompt: 'a dog' has no slot", "write {}"]),
            (["prompt=a {} and a {}"], ["has 2 slots"]),
            (["class_name="], ["class_name"]),
            (["identifier=an"], ["'an dog' cannot fill", "without an article"]),
            (["identifier=a b"], ["identifier"]),
            (["token.vectors=1"], ["'sks'", "identifier='<toy>'"]),
            (["token.vectors=1", "identifier=<Toy>"], ["'<Toy>'", "small letters"]),
            (["method=frozen"], ["leaves nothing to train", "text_lora or token"]),
            (["method=full", "text_lora.r=2"], ["train_text_encoder=true"]),
            (["train_text_encoder=true"], ["method=full", "text_lora instead"]),
            (["prior.weight=1"], ["'prior.pool' is required"]),
            (["prior.pool=nowhere"], ["nowhere does not exist", "run the command"]),
            (["resolution=33"], ["resolution", "multiple of 8"]),
            (["lora.target_modules=[to_z]"], ["to_z"]),
            (["dtype=fp16"], ["fp16", "CUDA"]),
            (["clas_name=dog"], ["clas_name", "Did you mean class_name"]),
        ],
        ids=lambda value: value[0] if "=" in value[0] else "",
    )
    def test_wrong_words(self, refuses: Refuses, words: list[str], said: list[str]) -> None:
        message = refuses(*words)
        for word in said:
            assert word in message

    def test_no_photograph(self, refuses: Refuses, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "notes.txt").write_text("no photograph")
        message = refuses(f"photographs={tmp_path / 'empty'}")
        assert "holds no photograph (looked for" in message

    def test_a_broken_photograph(self, refuses: Refuses, tmp_path: Path) -> None:
        (tmp_path / "broken").mkdir()
        photograph(0).save(tmp_path / "broken" / "a.png")
        (tmp_path / "broken" / "b.jpg").write_bytes(b"no image")
        message = refuses(f"photographs={tmp_path / 'broken'}")
        assert "b.jpg" in message
        assert "repair it or remove it" in message
        # The folder is not claimed: with mended photographs the same command works.
        assert not (tmp_path / "out").exists()

    def test_a_caption_without_the_subject(self, refuses: Refuses, tmp_path: Path) -> None:
        (tmp_path / "told").mkdir()
        for number in range(2):
            photograph(number).save(tmp_path / "told" / f"{number}.png")
        (tmp_path / "told" / "1.txt").write_text("a dog")
        message = refuses(f"photographs={tmp_path / 'told'}")
        assert "1.txt' does not name the subject; write {} or 'sks dog'" in message
        assert not (tmp_path / "out").exists()

    def test_one_photograph(self, refuses: Refuses, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        for name in ("a.png", "copy.png"):
            photograph(0).save(tmp_path / "one" / name)
        message = refuses(f"photographs={tmp_path / 'one'}")
        assert "holds 1 photograph, fewer than min_photographs=2" in message
        assert "set min_photographs=1" in message
        assert not (tmp_path / "out").exists()

    def test_class_images_of_another_size(self, refuses: Refuses, class_images: Path) -> None:
        message = refuses("resolution=48", f"prior.pool={class_images}")
        assert "(4, 16, 16), the photographs (4, 24, 24)" in message
        assert "height=48 width=48" in message

    def test_loss_that_is_not_finite(self, refuses: Refuses, tmp_path: Path) -> None:
        words = ("max_steps=400", "learning_rate=1e30", "save_steps=1", "max_grad_norm=1e30")
        assert "The last good checkpoint is" in refuses(*words)
        assert not (tmp_path / "out" / "done.json").exists()

    def test_folder_of_another_configuration(
        self, model: Trained, refuses: Refuses, tmp_path: Path
    ) -> None:
        shutil.copytree(model("lora"), tmp_path / "out")
        (tmp_path / "out" / LORA).unlink()
        assert "another configuration (max_steps: 2 there, 3 now)" in refuses("max_steps=3")


class TestConfig:
    def test_rates(self, config: Config) -> None:
        def rate(**options: Any) -> float:
            given = config().model_dump(exclude={"learning_rate", "method"})
            return PersonalizeConfig.model_validate({**given, **options}).learning_rate

        assert rate() == 1e-4
        assert rate(method="full") == 2e-6
        assert rate(method="full", learning_rate=1e-5) == 1e-5

    def test_subject_and_prompt(self, config: Config) -> None:
        given = config(class_name=" owl ", identifier="ohwx", prompt="a photo of a {} ")
        assert given.subject == "ohwx owl"
        assert given.instance_prompt == "a photo of an ohwx owl"
