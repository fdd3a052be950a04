"""Stage `card`: the model card and its sheet of samples, from the journals of the build."""

import json
from pathlib import Path
from typing import Any

from tastemaker.nano import MODEL, WEIGHTS
from tastemaker.nano.build.art import SETS
from tastemaker.nano.build.attribute_figures import NUMBER
from tastemaker.nano.build.attribute_scenes import TAUGHT
from tastemaker.nano.build.captioned_scenes import ART
from tastemaker.nano.build.generated import FASTER
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import MISTAKEN
from tastemaker.nano.build.pipeline import GUIDANCE, STEPS, draw, sheet, snapshot
from tastemaker.nano.build.unet import CARELESS_STEPS
from tastemaker.nano.captions import BACKGROUNDS, CONCEPTS, STYLES, prompts

SAMPLES = 48

HEAD = """# Model card: nano

{status}

A text-conditioned latent diffusion model and two CLIP scorers, small enough to ship inside a
Python package and to train on in minutes on two CPU cores. It exists so that every method of
Tastemaker can be run and checked with nothing to download. It draws sticker scenes, 64x64 pixels.
It is not a general image generator.

All weights are fp16.

| folder | what | loads with |
|---|---|---|
| `pipeline/` | Stable Diffusion 1.x parts, {megabytes:.1f} MB | `StableDiffusionPipeline` |
| `preference/` | scorer to train with | `transformers.CLIPModel` |
| `judge/` | scorer to judge with, fitted on other data | `transformers.CLIPModel` |
| `checker.safetensors` | names what a picture shows: to pair by | `nano.attributes.shipped` |
| `examiner.safetensors` | the same, learned apart: to judge by | `nano.attributes.shipped` |

The network predicts v, as Stable Diffusion 2.x does, and not the noise: the errors of so small a
network, trained for so short a time, are magnified beyond the size of the picture where there is
most noise, if it predicts noise. Parts, parameters and noise schedule are those of 1.x.

Load with `dtype=torch.float32` on a CPU. Best at guidance 2 to 3 and 20 DDIM steps. A score is
`logit_scale.exp()` times the cosine of the image's and the text's embedding.

## Training data

Scenes drawn by `tastemaker.nano.build.scenes` from emoji art: {concepts} concepts, {backgrounds}
backgrounds ({names}), one object large or small at a named place, two or three of a kind, or a pair
in a relation, with random small shifts of place, size, angle and background colour. Captions name
these things, or leave some out. In the last {careless} steps of the U-Net {mistaken:.0%} of them
tell a pair in reverse, the other number or another place (`build/latents.py`), as careless captions
do: the model knows these things better than it draws them, and preferences have something to mend.
Splits are disjoint by combination of concepts, count, relation, background, size and position
(`tastemaker.nano.captions`). The model saw the split "train" alone.
The preference scorer learned scenes of "train" in flat, soft, plain and early art, the judge scenes
of "judge" in flat, soft and bold art, and both the same scenes with one attribute changed, of
either split. Scorers and samples are measured on the split "test", the autoencoder on "validation".

The art is not distributed with this package. Weights are trained on it, and its authors are:

{credits}

## Rebuild

```
make nano     # in a checkout, with npm to fetch the art; the same as:
pip install "tastemaker[nano]" && python -m tastemaker.nano.build --work DIR
```

To train the shipped U-Net on instead: `--stage resume`, then `--stage unet --steps N`.
"""

OBEDIENCE = f"""
## Checker and examiner, held out

Shares of right answers in per cent, {NUMBER} scenes of the split "test" a row: art of the styles
that the model draws, as drawn and as the autoencoder decodes it, then other sets of art, whose
style is not asked. `only`: nothing else is seen; `refused`: prompts with one attribute changed that
are found not to be obeyed. Both learned the split "train", the checker in flat, soft, plain and
early art, the examiner in flat, soft and bold. What a viewer counted in generated pictures, and
what fools both: benchmarks/obedience in the repository.
"""

LIMITS = """
## Known limits

- {concepts} concepts, the words of the grammar and nothing else: any other word falls apart into
  letters the text encoder was never taught.
- Trained for minutes: {blind}
- Small objects, and three of a kind, lose detail; two objects of a pair may blend or trade colours.
- The latent code is linear by construction (`build/code.py`): the encoder imitates it.
- Both scorers know this art alone. They are no judges of anything but these scenes. What
  fools them: benchmarks/obedience in the repository.
- Checker and examiner know the prompts of the grammar alone, and no picture but these scenes.
- The judge's third art style ("bold") was never shown to the model or to the preference scorer.
"""


def card(work: Path) -> None:
    """Draw the samples and write `weights/MODEL_CARD.md` and `weights/samples.png`.

    The blind count is read from `work/blind.json`: what a person saw in the pictures before
    reading the prompts, `{"recognised": int, "of": int, "note": str, "status": str,
    "history": str}`: the note says what is weak, the status whether these weights are final, the
    history how this very build was run.
    """
    blind = json.loads((work / "blind.json").read_text(encoding="utf-8"))
    captions = prompts("test", SAMPLES)
    pictures = draw(snapshot(work), captions, list(range(SAMPLES)))
    sheet(pictures, captions).save(WEIGHTS / "samples.png", optimize=True)
    megabytes = sum(p.stat().st_size for p in MODEL.rglob("*") if p.is_file()) / 1e6
    credits_ = "\n".join(
        f'- style "{style}": {art.credit}; {art.licence}; npm `{art.package}` {art.version}'
        for style, art in SETS.items()
    )
    head = HEAD.format(
        status=blind["status"],
        megabytes=megabytes,
        concepts=len(CONCEPTS),
        backgrounds=len(BACKGROUNDS),
        names=", ".join(BACKGROUNDS),
        credits=credits_,
        careless=CARELESS_STEPS,
        mistaken=MISTAKEN,
    )
    limits = LIMITS.format(concepts=len(CONCEPTS), blind=blind["note"])
    parts = [head, training(work), blind["history"], "\n", scorers(work), obedience(work)]
    text = "".join([*parts, samples(blind), limits])
    (WEIGHTS / "MODEL_CARD.md").write_text(text, encoding="utf-8")


def training(work: Path) -> str:
    """The table of trainings, from their journals. Machine: two CPU cores, without a GPU."""
    rows = [
        "\n## Training log (machine: 2 CPU cores, no GPU)\n",
        "| stage | minutes | steps | result |",
    ]
    rows += ["|---|---|---|---|"]
    for stage, result in (
        ("vae", "held-out PSNR {psnr:.1f} dB"),
        ("unet", "squared error of v {loss:.4f}"),
        ("clip-preference", "contrastive loss and that of patches {loss:.3f}"),
        ("clip-judge", "contrastive loss and that of patches {loss:.3f}"),
        ("scorer-preference", "contrast and Bradley-Terry {loss:.3f}"),
        ("scorer-judge", "contrast and Bradley-Terry {loss:.3f}"),
        ("checker", "sum of cross-entropies {loss:.2f}"),
        ("examiner", "sum of cross-entropies {loss:.2f}"),
    ):
        lines = Journal(work / f"{stage}.jsonl").lines()
        last = lines[-1]
        cells = [stage, f"{minutes(lines):.1f}", str(last["step"]), result.format(**last)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n\nMinutes are wall-clock minutes; other work ran beside them.\n"


def minutes(lines: list[dict[str, Any]]) -> float:
    """Minutes of a stage over all its processes: each begins its seconds anew.

    Example:
        >>> minutes([{"seconds": 30.0}, {"seconds": 60.0}, {"seconds": 30.0}])
        1.5
    """
    seconds = [float(line["seconds"]) for line in lines]
    ends = [a for a, b in zip(seconds, [*seconds[1:], 0.0], strict=True) if b < a]
    return sum(ends) / 60


def scorers(work: Path) -> str:
    """The table of the scorers' held-out figures."""
    found: dict[str, Any] = Journal(work / "measure.jsonl").lines()[-1]
    names = {
        "matched_easy": "matched over mismatched caption, another scene's",
        "matched_one_attribute": "the same, one attribute changed",
        "clean_over_degraded": "clean over degraded",
        "concept_top1_drawn": "concept named right among all, drawn art",
        **{
            f"concept_top1_{style}": f"concept named right among all, art {style!r}"
            for style in SETS
            if style not in STYLES
        },
        "concept_top1_generated": "concept named right among all, generated",
        "mean_generated": "mean score of generated pictures",
        "mean_best_of_8": "mean score of the best of 8 generated",
        "spread_within_prompt": "standard deviation of the scores of one prompt's 8 pictures",
    }
    rows = [
        "\n## Scorers, held out\n",
        f"Drawn art through the autoencoder; generated pictures: {FASTER} DDIM steps.\n",
        "| figure | preference | judge |",
        "|---|---|---|",
    ]
    for key, words in names.items():
        cells = [f"{found[scorer][key]:.3f}{_unseen(key, scorer)}" for scorer in ART]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    rows.append("\nRank correlation among 8 candidates of one prompt, mean over prompts:\n")
    rows += [f"- {pair}: {value:.2f}" for pair, value in found["rank_correlation"].items()]
    return "\n".join(rows) + "\n"


def _unseen(key: str, scorer: str) -> str:
    style = key.removeprefix("concept_top1_")
    return ", unseen" if style in SETS and style not in ART[scorer] else ""


def obedience(work: Path) -> str:
    """Write the tables of the checker's and the examiner's held-out figures."""
    names = ("concept", "count", "only", "place", "size", "background", "style", "all", "refused")
    rows = [OBEDIENCE]
    for name, taught in TAUGHT.items():
        figures = Journal(work / f"{name}-figures.jsonl").lines()[-1]
        rows += [f"\n| {name} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for title in (each for each in figures if each != "seconds"):
            seen = title not in SETS or title in taught
            values = [figures[title].get(each) for each in names]
            cells = ["" if value is None else f"{100 * value:.1f}" for value in values]
            rows.append(f"| {title}{'' if seen else ', unseen'} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def samples(blind: dict[str, Any]) -> str:
    """Write the section on samples: how many were recognised without their captions."""
    return (
        f"\n## Samples\n\n![{SAMPLES} held-out prompts](samples.png)\n\n{SAMPLES} prompts of the"
        f" test split, seeds 0 to {SAMPLES - 1}, none left out; guidance {GUIDANCE}, {STEPS} DDIM"
        f" steps. Blind count, shuffled and without captions: all concepts recognised in"
        f" {blind['recognised']} of {blind['of']}.\n"
    )
