"""The page of a run: whole, offline, the same every time, and honest about what went wrong."""

from __future__ import annotations

import html
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image, ImageDraw

from tastemaker.config.loading import parse
from tastemaker.config.runs import RunConfig, run_class
from tastemaker.config.sections import ReportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.figures import model_colours, moving_average
from tastemaker.reporting.health import warnings
from tastemaker.reporting.images import thumbnail
from tastemaker.reporting.judges import judge_of, training_scorers
from tastemaker.reporting.report import report
from tastemaker.reporting.run_contents import read
from tastemaker.reporting.samples import quantiles, strips
from tastemaker.reporting.summary import verdict
from tastemaker.reporting.svg import COLOURS, PRINT
from tastemaker.storage.files import write_json, write_text
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

HOSTILE = '<script>alert("x")</script> & a "dog"'
SCORERS = ("nano_preference", "nano_judge")


def encoded(key: str, size: int = 64) -> bytes:
    """Draw a small scene that depends on the key alone."""
    draw = random.Random(key)
    image = Image.new("RGB", (size, size), tuple(draw.randrange(120, 250) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, r = (draw.randrange(size // 5, size) for _ in range(3))
        colour = tuple(draw.randrange(256) for _ in range(3))
        pen.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=colour)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def write_pool(
    folder: Path, model: str, prompts: list[str], lift: float, size: int = 64, draws: int = 1
) -> Pool:
    """Write a scored pool; `lift` raises every score, in standard deviations."""
    pool = Pool(folder)
    rows = [(i, prompt, draw) for i, prompt in enumerate(prompts) for draw in range(draws)]
    ids = [f"{model}-{i}-{draw}" for i, _, draw in rows]
    columns: dict[str, Any] = {
        "candidate_id": ids,
        "prompt_id": [f"p{i}" for i, _, _ in rows],
        "prompt": [prompt for _, prompt, _ in rows],
        "seed": pa.array([1000 + i * draws + draw for i, _, draw in rows], pa.int64()),
        "source": ["text-to-image"] * len(rows),
        "source_id": [""] * len(rows),
        "image": [{"bytes": encoded(name, size), "path": None} for name in ids],
    }
    write_table(pool.shard(0), pa.table(columns))
    for scorer in SCORERS:
        drawn = random.Random(f"{model} {scorer}")
        scores = [0.25 + 0.04 * (drawn.gauss(0, 1) + lift) for _ in rows]
        file = pool.score_file(scorer, pool.shard(0))
        write_table(file, pa.table({"candidate_id": ids, scorer: scores}))
        write_json(file.parent / "done.json", {"command": "score", "key": "0"})
    return pool


def metrics_rows(steps: int = 200, chosen: float = -0.01) -> list[dict[str, float]]:
    """Return the metrics of a training whose chosen error drifts to `chosen`."""
    draw = random.Random(7)
    rows = []
    for step in range(1, steps + 1):
        share = step / steps
        error = chosen * share + draw.gauss(0, 0.002)
        margin = 0.8 * share + draw.gauss(0, 0.2)
        rows.append(
            {
                "step": step,
                "loss": math.log1p(math.exp(-margin)),
                "rewards/chosen": -20 * error,
                "rewards/rejected": -20 * error - margin,
                "rewards/accuracies": min(1.0, max(0.0, 0.5 + 0.3 * share + draw.gauss(0, 0.2))),
                "rewards/margins": margin,
                "errors/chosen": error,
                "errors/rejected": error + margin / 20,
                "grad_norm": 0.6 + abs(draw.gauss(0, 0.2)),
                "learning_rate": 1e-5 * min(1.0, step / 20),
            }
        )
    return rows


def measured(**win_rates: tuple[float, float, float]) -> dict[str, Any]:
    """Return a report.json with these win rates of the policy."""
    scores = {
        name: {
            "mean": 0.28,
            "stderr": 0.0042,
            "difference": 0.03,
            "difference_stderr": 0.00099,
            "difference_low": 0.028,
            "difference_high": 0.032,
            "win_rate": rate,
            "win_rate_low": low,
            "win_rate_high": high,
        }
        for name, (rate, low, high) in win_rates.items()
    }
    base = {"scores": {name: {"mean": 0.25, "stderr": 0.0041} for name in win_rates}}
    return {
        "schema": 1,
        "base": "base",
        "prompts": 40,
        "models": {"base": base, "policy": {"scores": scores}},
    }


GOOD = measured(nano_preference=(0.78, 0.68, 0.86), nano_judge=(0.713, 0.63, 0.784))


def write_run(folder: Path, size: int = 64, images: int = 40) -> RunDir:
    """Write a finished run with every part that a page can show."""
    run = RunDir(folder)
    things = ("fox", "teapot", "bicycle", "snail", "lighthouse", "cactus", "whale", "kite")
    colours = ("teal", "amber", "lilac", "sand", "cobalt")
    prompts = [f"a {thing} on a {colour} background" for colour in colours for thing in things]
    prompts = [HOSTILE, *prompts][:images]
    config = {
        "recipe": "diffusion_dpo",
        "name": "demo",
        "model": "nano",
        "generate": {"prompts": "nano_train"},
        "score": {"scorers": ["nano_preference"]},
        "pair": {"rule": {"name": "best_worst", "scorer": "nano_preference"}},
        "train": {"model": "nano", "loss": {"name": "dpo", "beta": 2000.0}},
        "evaluate": {"prompts": "nano_test", "scorers": list(SCORERS)},
    }
    run.open(yaml.safe_dump(config, sort_keys=False), lambda: {"torch": "2.13.0", "device": "cpu"})
    pool = write_pool(run.candidates, "nano", prompts, 0.0, size, draws=2)
    pairs = {
        "pair_id": [f"pair-{i}" for i in range(len(prompts))],
        "prompt_id": [f"p{i}" for i in range(len(prompts))],
        "prompt": prompts,
        "chosen_id": [f"nano-{i}-0" for i in range(len(prompts))],
        "rejected_id": [f"nano-{i}-1" for i in range(len(prompts))],
        "rule": ["best_worst"] * len(prompts),
        "margin": [0.01 + 0.002 * i for i in range(len(prompts))],
    }
    PairSet(run.pairs).write(pa.table(pairs).to_pylist(), [pool])
    write_text(
        run.policy / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics_rows())
    )
    for step in (100, 200):
        sheet = run.policy / "validation" / f"step-{step:05d}.png"
        sheet.parent.mkdir(exist_ok=True)
        sheet.write_bytes(encoded(f"sheet {step}", 192))
    write_pool(run.evaluation / "base", "base", prompts, 0.0, size)
    write_pool(run.evaluation / "policy", "policy", prompts, 0.9, size)
    write_json(run.report_json, GOOD)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return write_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def page(run: RunDir) -> str:
    path = report(ReportConfig(), run)
    assert path == run.report_html
    return path.read_text(encoding="utf-8")


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)">', page)


def test_page_has_every_section(page: str) -> None:
    assert sections(page) == [
        "strips",
        "scores",
        "distributions",
        "training",
        "pairs",
        "validation",
        "configuration",
    ]
    assert "Policy beats base on 1 of 1 independent scorer; win rate by nano_judge 71.3%" in page
    assert "+0.03000 [+0.02800, +0.03200]" in page
    assert "No warnings" in page
    assert page.count("<svg") == 1 + 2 + 7
    assert page.count('class="card strip"') == 8
    assert "rank 1 of 40 (best)" in page
    assert "rank 40 of 40 (worst)" in page


def test_page_needs_no_network_and_no_script(page: str) -> None:
    addresses = re.findall(r'(?:src|href|action|data|url)\s*[=(]\s*"?\s*([^"\s)>]+)', page)
    assert addresses
    assert not [text for text in addresses if not text.startswith(("data:image/", "#"))]
    assert not re.findall(r"https?://", page)
    assert not re.findall(r"<(script|link|iframe|object)\b|@import|@font-face", page)


def test_page_names_each_id_once_and_finds_each_reference(page: str) -> None:
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', page)) <= set(ids)


def test_every_image_has_an_alternative_text(page: str) -> None:
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 2 * 2 * 8 + 2 * 12 + 2  # of the strips also those to enlarge
    assert all(re.search(r' alt="[^"]+"', image) for image in images)


def test_strips_are_compared_by_keyboard_without_a_script(page: str) -> None:
    """Each image opens a popover in which one model is chosen, with the focus on the choice."""
    opened = re.findall(r'<button class="enlarge" popovertarget="([\w-]+)"', page)
    popovers = re.findall(r'<div class="compare" id="([\w-]+)" popover role="dialog"', page)
    assert [opened.count(name) for name in popovers] == [2] * 8
    assert len(opened) == 16
    for name in popovers:
        radios = re.findall(
            rf'<input type="radio" name="{name}" id="([\w-]+)"( checked autofocus)?>', page
        )
        assert [bool(chosen) for _, chosen in radios] == [True, False]
        assert all(f'<label for="{radio}">' in page for radio, _ in radios)


def test_import_is_light() -> None:
    heavy = {"jinja2", "matplotlib", "numpy", "pyarrow", "torch"}
    code = f"import sys, tastemaker.reporting; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_hostile_prompt_stays_text(page: str) -> None:
    assert HOSTILE not in page
    assert html.escape(HOSTILE, quote=True).replace("&quot;", "&#34;") in page


def test_hostile_names_stay_text_in_figures(tmp_path: Path) -> None:
    name = '<script>"$x_1$"'
    run = RunDir(tmp_path)
    write_json(run.report_json, measured(**{name: (0.7, 0.6, 0.8)}))
    text = report(ReportConfig(), run).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_same_run_gives_same_bytes_anywhere(page: str, tmp_path: Path) -> None:
    other = write_run(tmp_path / "elsewhere")
    assert report(ReportConfig(), other).read_text(encoding="utf-8") == page
    assert str(tmp_path) not in page


def test_missing_parts_leave_their_sections_out(run: RunDir, tmp_path: Path) -> None:
    bare = RunDir(tmp_path / "bare")
    write_json(bare.report_json, GOOD)
    text = report(ReportConfig(), bare).read_text(encoding="utf-8")
    assert sections(text) == ["scores"]
    assert "bare" in text

    shutil.copytree(run.folder, tmp_path / "half")
    half = RunDir(tmp_path / "half")
    shutil.rmtree(half.policy)
    shutil.rmtree(half.candidates)
    text = report(ReportConfig(), half).read_text(encoding="utf-8")
    assert sections(text) == ["strips", "scores", "distributions", "pairs", "configuration"]
    assert text.count("not kept</div>") == 24


def test_run_without_measurements_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match=r"report\.json does not exist.*tastemaker run"):
        report(ReportConfig(), RunDir(tmp_path))
    write_json(tmp_path / "report.json", [])
    with pytest.raises(TastemakerError, match="is damaged"):
        report(ReportConfig(), RunDir(tmp_path))


def test_further_models_stand_beside_the_policy(run: RunDir, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "more")
    more = RunDir(tmp_path / "more")
    prompts = [f"a number {i}" for i in range(40)]
    write_pool(more.evaluation / "another", "another", prompts, 0.4)
    text = report(ReportConfig(strips=2), more).read_text(encoding="utf-8")
    assert read(more).challengers == ["policy", "another"]
    assert text.count('alt="another image for') == 2
    assert text.count('alt="another image, enlarged, for') == 2


def test_strips_are_quantiles_of_the_judges_difference(run: RunDir) -> None:
    contents = read(run)
    assert contents.judge == "nano_judge"
    found, total, _, gained = strips(contents, 5)
    differences = sorted(
        (
            theirs["nano_judge"] - ours["nano_judge"]
            for ours, theirs in contents.shared_rows("policy")
        ),
        reverse=True,
    )
    assert total == 40
    assert gained == sum(difference > 0 for difference in differences)
    assert [strip.rank for strip in found] == [1, 11, 21, 30, 40]
    shown = [strip.drawn[1].differences["nano_judge"] for strip in found]
    assert shown == pytest.approx([differences[strip.rank - 1] for strip in found])


def test_strips_of_a_score_of_0_or_1_are_gains_and_losses_in_proportion(run: RunDir) -> None:
    contents = read(run)
    changes = [1] * 9 + [-1] * 3 + [0] * 28
    for (ours, theirs), change in zip(contents.shared_rows("policy"), changes, strict=True):
        ours["nano_judge"], theirs["nano_judge"] = (0, 1) if change > 0 else (1, 1 + change)
    found, changed, total, gained = strips(contents, 4)
    assert (changed, total, gained) == (12, 40, 9)
    assert [strip.drawn[1].differences["nano_judge"] for strip in found] == [1, 1, 1, -1]


@pytest.mark.parametrize(("total", "count"), [(0, 3), (1, 1), (2, 8), (9, 1), (128, 8)])
def test_quantiles_increase_and_hold_both_ends(total: int, count: int) -> None:
    places = quantiles(total, count)
    assert places == sorted(set(places))
    assert len(places) == min(total, count)
    if total and count > 1:
        assert (places[0], places[-1]) == (0, total - 1)


def test_training_read_once_a_step_even_when_torn(run: RunDir, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "torn")
    torn = RunDir(tmp_path / "torn")
    rows = (
        '{"step": 2, "loss": 9}\n{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.5}\n{"step": 3, "l'
    )
    (torn.policy / "metrics.jsonl").write_text(rows, encoding="utf-8")
    metrics = read(torn).metrics
    assert [row["step"] for row in metrics] == [1, 2]
    assert metrics[1]["loss"] == 0.5
    assert "training" in sections(report(ReportConfig(), torn).read_text(encoding="utf-8"))


def test_moving_average_passes_over_gaps() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf, 8.0])
    assert moving_average(values, 3).tolist() == [1.0, 2.0, 3.0, 5.5, 8.0]
    assert np.isnan(moving_average(np.array([np.nan]), 1)).all()


def test_large_images_shrink_and_small_ones_stay_lossless() -> None:
    large = thumbnail(encoded("large", 1024))
    assert (large.width, large.height, large.is_small) == (256, 256, False)
    assert len(large.uri) < 40_000
    small = thumbnail(encoded("small", 64))
    assert (small.width, small.is_small) == (64, True)
    assert small.uri.startswith("data:image/png")
    with pytest.raises(TastemakerError, match="cannot be read"):
        thumbnail(b"no image")


CLIP = {"name": "clip", "model": "x"}
JUDGES = ["nano_preference", {**CLIP, "label": "judge"}]
BOTH = {"name": "mean", "label": "both", "of": ["clip", "sharpness"]}


def run_config(recipe: str = "diffusion_dpo", **sections: Any) -> RunConfig:
    """Return a configuration whose evaluation is by `nano_preference` and a CLIP, `judge`."""
    judging = {"prompts": "nano_test", "scorers": JUDGES, **sections.pop("evaluate", {})}
    data = {"recipe": recipe, "name": "a", "model": "nano", "evaluate": judging, **sections}
    return parse(run_class(recipe), data, "test")


def paired(*scorers: Any, rule: dict[str, Any], **evaluate: Any) -> RunConfig:
    """Return a run that pairs its own candidates."""
    candidates = {"generate": {"prompts": "nano_train"}, "score": {"scorers": scorers}}
    return run_config(pair={"rule": rule}, train={}, evaluate=evaluate, **candidates)


@pytest.mark.parametrize(
    ("config", "learned", "judge"),
    [
        (
            paired("sharpness", rule={"name": "best_worst", "scorer": "sharpness"}),
            ["sharpness"],
            "nano_preference",
        ),
        (
            paired(
                "nano_judge", "sharpness", rule={"name": "weighted", "weights": {"sharpness": 1}}
            ),
            ["sharpness"],
            "nano_preference",
        ),
        (
            paired(
                "nano_preference",
                "sharpness",
                rule={"name": "angle", "fidelity": "nano_preference", "prompt": "sharpness"},
            ),
            ["nano_preference", "sharpness"],
            "judge",
        ),
        (
            run_config("align_prop", train={"prompts": "nano_train", "scorer": "nano_preference"}),
            ["nano_preference"],
            "judge",
        ),
        # The same scorer under another label, also inside an ensemble.
        (
            paired(CLIP, "sharpness", BOTH, rule={"name": "best_worst", "scorer": "both"}),
            ["both", "clip", "sharpness", "judge"],
            "nano_preference",
        ),
        # No judge is left but where one is named.
        (
            paired(CLIP, rule={"name": "best_worst", "scorer": "clip"}, scorers=[CLIP], judge=None),
            ["clip"],
            None,
        ),
        (
            paired(CLIP, rule={"name": "best_worst", "scorer": "clip"}, judge="judge"),
            ["clip", "judge"],
            "judge",
        ),
    ],
)
def test_scorers_of_training_and_judge(
    config: RunConfig, learned: list[str], judge: str | None
) -> None:
    assert training_scorers(config) == learned
    assert judge_of(config) == judge


def test_a_judge_is_one_of_the_scorers() -> None:
    with pytest.raises(TastemakerError, match=r"no scorer gives 'jugde'. Did you mean judge"):
        paired(CLIP, rule={"name": "best_worst", "scorer": "clip"}, judge="jugde")


def test_a_run_without_an_independent_judge_says_so(run: RunDir, tmp_path: Path) -> None:
    own = RunDir(Path(shutil.copytree(run.folder, tmp_path / "own")))
    config = yaml.safe_load(own.config.read_text(encoding="utf-8"))
    config["evaluate"]["scorers"] = ["nano_preference"]
    write_text(own.config, yaml.safe_dump(config))
    write_json(own.report_json, measured(nano_preference=(0.78, 0.68, 0.86)))
    text = report(ReportConfig(), own).read_text(encoding="utf-8")
    assert "on 1 of 1 scorer, and training learned from all of them: no independent judge." in text


class TestWarnings:
    """Each warning comes when it should, and only then."""

    def test_no_judge_but_the_training_scorers(self) -> None:
        (warning,) = warnings([], GOOD, SCORERS, 40)
        assert "Add another to evaluate.scorers" in warning

    def test_fewer_images_than_dimensions(self) -> None:
        frechet = {"clip": {"value": 1.0, "images": 512, "dimension": 512}}
        base = {**GOOD["models"]["base"], "frechet": frechet}
        report = {**GOOD, "models": {**GOOD["models"], "base": base}}
        (warning,) = warnings([], report, ["nano_preference"], 40)
        assert "512 images in 512 dimensions" in warning

    def test_prompts_trained_on(self) -> None:
        (warning,) = warnings([], GOOD | {"prompts_trained_on": 3}, ["nano_preference"], 40)
        assert warning.startswith("3 of 40 prompts")
        assert warnings([], GOOD | {"prompts_trained_on": 0}, ["nano_preference"], 40) == []

    def test_healthy_run_has_none(self) -> None:
        assert warnings(metrics_rows(), GOOD, ["nano_preference"], 40) == []

    def test_chosen_error_grew(self) -> None:
        (warning,) = warnings(metrics_rows(chosen=0.02), GOOD, ["nano_preference"], 40)
        assert "rejected images got worse faster" in warning
        assert "raise beta" in warning

    def test_chosen_error_within_noise_is_fine(self) -> None:
        assert warnings(metrics_rows(chosen=0.0), GOOD, ["nano_preference"], 40) == []

    def test_chosen_error_without_growing_margin_is_another_matter(self) -> None:
        rows = [{**row, "rewards/margins": -row["step"]} for row in metrics_rows(chosen=0.02)]
        assert warnings(rows, GOOD, ["nano_preference"], 40) == []

    def test_short_training_is_not_judged(self) -> None:
        assert warnings(metrics_rows(steps=10, chosen=0.02), GOOD, [], 40) == []

    def test_lost(self) -> None:
        lost = measured(nano_judge=(0.4, 0.35, 0.45))
        (warning,) = warnings([], lost, ["nano_preference"], 40)
        assert "loses against the base by nano_judge" in warning

    def test_interval_that_holds_one_half_is_no_loss(self) -> None:
        assert warnings([], measured(nano_judge=(0.45, 0.39, 0.51)), [], 40) == []

    def test_reward_hacking(self) -> None:
        hacked = measured(nano_preference=(0.9, 0.8, 0.95), nano_judge=(0.4, 0.35, 0.45))
        hacking, lost = warnings([], hacked, ["nano_preference"], 40)
        assert "please the training scorer" in hacking
        assert "loses against" in lost

    def test_both_scorers_lost_is_no_hacking(self) -> None:
        lost = measured(nano_preference=(0.3, 0.2, 0.4), nano_judge=(0.4, 0.35, 0.45))
        (warning,) = warnings([], lost, ["nano_preference"], 40)
        assert "nano_preference and nano_judge" in warning

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_gradient_norm_not_finite(self, value: float) -> None:
        rows = metrics_rows()
        rows[30]["grad_norm"] = value
        (warning,) = warnings(rows, GOOD, [], 40)
        assert "not finite in one step, first at step 31" in warning

    def test_few_images(self) -> None:
        (warning,) = warnings([], GOOD, [], 31)
        assert "Only 31 images" in warning
        assert warnings([], GOOD, [], 32) == []
        assert len(warnings([], {**GOOD, "prompts": 8})) == 1

    def test_page_shows_them(self, run: RunDir, tmp_path: Path) -> None:
        shutil.copytree(run.folder, tmp_path / "sick")
        sick = RunDir(tmp_path / "sick")
        hacked = measured(nano_preference=(0.9, 0.8, 0.95), nano_judge=(0.4, 0.35, 0.45))
        write_json(sick.report_json, hacked)
        text = report(ReportConfig(), sick).read_text(encoding="utf-8")
        assert "<strong>2 warnings</strong>" in text


@pytest.mark.parametrize(
    ("held", "sentence", "tone"),
    [
        (
            measured(a=(0.5, 0.4, 0.6)),
            "No clear difference between Policy and base on 1 scorer;",
            "unclear",
        ),
        (
            measured(a=(0.52, 0.51, 0.53)) | {"shares": ["a"]},
            "Share of images by a: base 25.0 % \u2192 policy 28.0 % (+3.0 [+2.8, +3.2] points).",
            "better",
        ),
        (measured(a=(0.3, 0.2, 0.4)), "Policy loses against base on 1 of 1 scorer;", "worse"),
        (
            measured(a=(0.7, 0.6, 0.8), b=(0.3, 0.2, 0.4)),
            "Policy beats base on 1 of 2 scorers and loses on 1; win rate by b 30.0% [20.0, 40.0].",
            "worse",
        ),
        (
            {
                "base": "base",
                "prompts": 1,
                "models": {"base": {"scores": {}}, "policy": {"scores": {}}},
            },
            "No win rate of Policy",
            "unclear",
        ),
        (
            {"base": "base", "prompts": 1, "models": {"base": {"scores": {}}}},
            "Only the base was measured",
            "unclear",
        ),
    ],
)
def test_verdict(held: dict[str, Any], sentence: str, tone: str, tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", held)
    said, sounded = verdict(read(RunDir(tmp_path)))
    assert said.startswith(sentence)
    assert sounded == tone


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def screenshot(page: Path, picture: Path, profile: Path, size: tuple[int, int]) -> Image.Image:
    """Open a page in headless Chromium and return what it shows."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}"]
    command += [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return Image.open(picture).convert("RGB")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_browser_shows_the_page(run: RunDir, page: str, tmp_path: Path) -> None:
    shown = screenshot(run.report_html, tmp_path / "page.png", tmp_path / "profile", (1200, 1600))
    assert shown.size == (1200, 1600)
    assert len(shown.getcolors(maxcolors=1200 * 1600) or ()) > 100
    lightness = np.asarray(shown.convert("L"), dtype=np.float64)
    rows_with_ink = (lightness.std(axis=1) > 5).mean()
    assert rows_with_ink > 0.4


def test_seven_challengers_have_colours_of_their_own_that_the_page_defines() -> None:
    names = [f"model {i}" for i in range(9)]
    given = model_colours("base", names)
    assert len({given[name] for name in ("base", *names[:7])}) == 8
    assert given[names[7]] == given[names[0]]
    style = resources.files("tastemaker.reporting").joinpath("style.css").read_text()
    for role in set(given.values()):
        assert style.count(f"--{role}:") == 2  # by day and by night
        assert {role} <= set(PRINT) & set(COLOURS)
