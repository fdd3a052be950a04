"""The plane of two scores: front, clouds, window, images, and what is said in their place."""

from __future__ import annotations

import html
import io
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Wedge
from PIL import Image

from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import ReportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.evaluation.comparison import compare, score_table
from tastemaker.pairing.pair import pair
from tastemaker.reporting.figures import model_colours
from tastemaker.reporting.images import thumbnail
from tastemaker.reporting.plane import AngleWindow, Plane, figures
from tastemaker.reporting.plane.axes import planes_of
from tastemaker.reporting.plane.clouds import Cloud, cloud
from tastemaker.reporting.plane.models import Position, moves, panel, pareto
from tastemaker.reporting.plane.pairs import MOST_DOTS, panels
from tastemaker.reporting.plane.report import plane_report
from tastemaker.reporting.report import report
from tastemaker.reporting.run_contents import read
from tastemaker.reporting.samples import pair_sets
from tastemaker.reporting.svg import Panel
from tastemaker.storage.files import write_json
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

IS, TS = "image_similarity", "text_similarity"
RULE = {"name": "angle", "fidelity": IS, "prompt": TS, "low": 20.0, "high": 70.0, "threshold": 0.0}

# One prompt's candidates (IS, TS). From the first, the others lie at 45, 0, 90 and -45 degrees.
CANDIDATES = ((0.5, 0.2), (0.6, 0.3), (0.6, 0.2), (0.5, 0.3), (0.6, 0.1))

COLOURS = model_colours("base", ["faithful", "obedient", "timid"])

Point = tuple[int, int]
Points = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=12)


def encoded(key: str, size: int = 16) -> bytes:
    draw = random.Random(key)
    file = io.BytesIO()
    Image.new("RGB", (size, size), tuple(draw.randrange(256) for _ in range(3))).save(file, "png")
    return file.getvalue()


def write_pool(
    folder: Path, model: str, scores: Sequence[Sequence[tuple[float, float]]], by: Sequence[str]
) -> Pool:
    """Write a pool of one prompt a row of `scores`, an image a pair of scores by each of `by`."""
    pool = Pool(folder)
    rows = [(i, k, values) for i, row in enumerate(scores) for k, values in enumerate(row)]
    ids = [f"{model}-{i}-{k}" for i, k, _ in rows]
    columns = {
        "candidate_id": ids,
        "prompt_id": [f"p{i}" for i, _, _ in rows],
        "prompt": [f"a sks dog {i}" for i, _, _ in rows],
        "seed": pa.array([100 * i + k for i, k, _ in rows], pa.int64()),
        "source": ["text-to-image"] * len(rows),
        "source_id": [""] * len(rows),
        "image": [{"bytes": encoded(name), "path": None} for name in ids],
    }
    write_table(pool.shard(0), pa.table(columns))
    for place_, scorer in enumerate(by):
        file = pool.score_file(scorer, pool.shard(0))
        values = [each[place_ % 2] for _, _, each in rows]
        write_table(file, pa.table({"candidate_id": ids, scorer: values}))
        write_json(file.parent / "done.json", {"command": "score", "key": "0"})
    write_json(folder / "done.json", {"command": "generate", "key": "0"})
    return pool


def config_of(photographs: Path, rule: dict[str, Any], labels: Sequence[str] = ("",)) -> Any:
    """A run's configuration: candidates scored by both, models by one or more of each."""

    def scorers(image: str, text: str) -> list[dict[str, Any]]:
        model = {"model": "nano_preference"}
        images = {"name": IS, "images": str(photographs), "label": image, **model}
        return [images, {"name": TS, "subject": "sks dog", "label": text, **model}]

    return {
        "recipe": "dreambooth_dpo",
        "name": "subject",
        "model": "nano",
        "personalize": {"photographs": str(photographs), "class_name": "dog"},
        "generate": {"prompts": "templates"},
        "score": {"scorers": scorers(rule.get("fidelity", IS), rule.get("prompt", TS))},
        "pair": {"rule": rule},
        "train": {},
        "evaluate": {
            "prompts": "templates",
            "scorers": [
                each for label in labels for each in scorers(f"{label}{IS}", f"{label}{TS}")
            ],
        },
    }


def write_run(folder: Path, rule: dict[str, Any] = RULE, labels: Sequence[str] = ("",)) -> RunDir:
    """Write a finished run of two rounds, whose policy is better than the base on both axes."""
    run = RunDir(folder / "run")
    photographs = folder / "photographs"
    photographs.mkdir(parents=True)
    for i in range(2):
        (photographs / f"{i}.png").write_bytes(encoded(f"photograph {i}", 300))
    run.open(yaml.safe_dump(config_of(photographs, rule, labels)), dict)
    for name in ("round_1", "round_2"):
        scores = [CANDIDATES, tuple((x + 0.1, y) for x, y in CANDIDATES)]
        pool = write_pool(run.candidates / name, name, scores, (IS, TS))
        pair(PairConfig(rule=rule), pool.folder, run.stage_pairs(name))
    by = [f"{label}{scorer}" for label in labels for scorer in (IS, TS)]
    pools = {
        model: write_pool(
            run.evaluation / model,
            model,
            [((0.5 + x, 0.2 + y + i / 100), (0.6 + x, 0.3 + y)) for i in range(5)],
            by,
        )
        for model, (x, y) in {"base": (0, 0), "round_1": (0.1, -0.05), "policy": (0.1, 0.1)}.items()
    }
    write_json(run.report_json, compare(score_table(pools, by, dict.fromkeys(pools))))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return write_run(tmp_path_factory.mktemp("plane"))


@pytest.fixture(scope="module")
def page(run: RunDir) -> str:
    return report(ReportConfig(strips=3), run).read_text(encoding="utf-8")


def words(each: Panel) -> list[str]:
    """Every text of a figure, as the page shows it."""
    assert each.svg is not None
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", each.svg)]


def beats(p: Point, q: Point) -> bool:
    return p != q and p[0] >= q[0] and p[1] >= q[1]


class TestPareto:
    """The front is what no point beats, whatever the order and the scales."""

    @given(Points)
    def test_nothing_beats_the_front_and_the_front_beats_the_rest(
        self, points: list[Point]
    ) -> None:
        front = pareto(points)
        assert bool(front) == bool(points)
        for i, point in enumerate(points):
            beaten = [j for j in front if beats(points[j], point)]
            assert (i in front) == (not beaten)

    @given(Points, st.randoms())
    def test_order_does_not_matter(self, points: list[Point], draw: random.Random) -> None:
        mixed = draw.sample(points, len(points))
        assert [mixed[i] for i in pareto(mixed)] == [points[i] for i in pareto(points)]

    @given(Points)
    def test_scales_do_not_matter(self, points: list[Point]) -> None:
        scaled = [(x**3 + 7 * x, 10 * y - 3) for x, y in points]
        assert pareto(scaled) == pareto(points)

    @given(Points)
    def test_the_first_axis_rises_and_the_second_falls(self, points: list[Point]) -> None:
        along = [points[i] for i in pareto(points)]
        assert along == sorted(along, key=lambda point: (point[0], -point[1]))
        assert [y for _, y in along] == sorted((y for _, y in along), reverse=True)

    def test_equal_points_are_all_on_it(self) -> None:
        assert sorted(pareto([(1, 1), (0, 2), (1, 1), (0, 1)])) == [0, 1, 2]


class TestPlanes:
    """Which scores are axes, as the configuration says it."""

    def planes(self, tmp_path: Path, config: dict[str, Any]) -> list[Plane]:
        run = RunDir(tmp_path)
        run.open(yaml.safe_dump(config), dict)
        write_json(
            run.report_json, {"base": "base", "prompts": 0, "models": {"base": {"scores": {}}}}
        )
        return planes_of(read(run))

    def test_axes_and_window_are_the_rules(self, tmp_path: Path) -> None:
        rule = {**RULE, "fidelity": "a", "prompt": "b", "low": -5.0, "threshold": -0.1}
        config = config_of(tmp_path, {**rule, "zscored": True}, ("judge_",))
        own, judge = self.planes(tmp_path, config)
        assert own == Plane("a", "b", AngleWindow(-5.0, 70.0, -0.1), zscored=True)
        assert judge == Plane("judge_image_similarity", "judge_text_similarity", None)

    def test_axes_of_the_rule_come_once(self, tmp_path: Path) -> None:
        found = self.planes(tmp_path, config_of(tmp_path, RULE, ("", "judge_")))
        assert [plane.fidelity for plane in found] == [IS, "judge_image_similarity"]

    def test_another_rule_has_no_window_but_its_own_sum(self, tmp_path: Path) -> None:
        rule = {"name": "weighted", "weights": {IS: 0.6, TS: 0.2}}
        (plane,) = self.planes(tmp_path, config_of(tmp_path, rule))
        assert plane == Plane(IS, TS, None, share=0.25)

    @pytest.mark.parametrize("kept", [0, 1])
    def test_one_score_spans_no_plane(self, tmp_path: Path, kept: int) -> None:
        config = config_of(tmp_path, {"name": "best_worst", "scorer": IS})
        scorers = config["evaluate"]["scorers"]
        config["evaluate"]["scorers"] = [scorers[kept], "nano_judge"]
        assert self.planes(tmp_path, config) == []


class TestModels:
    """Crosses, names and front."""

    found = (
        Position("base", 0.5, 0.2, 0.05, 0.02),
        Position("faithful", 0.7, 0.19, 0.05, 0.02),
        Position("obedient", 0.52, 0.3, 0.05, 0.02),
        Position("timid", 0.51, 0.2, 0.05, 0.02),
    )

    def test_names_and_axes_are_written(self) -> None:
        held = words(panel(self.found, Plane(), COLOURS))
        assert {"base", "faithful", "obedient", "timid"} <= set(held)
        assert f"{IS} (closer to the subject →)" in held
        assert f"{TS} (closer to the prompt →)" in held

    def test_alternative_text_tells_the_numbers_and_the_front(self) -> None:
        alt = panel(self.found, Plane(), COLOURS).alt
        assert "faithful at (0.700 ± 0.050, 0.190 ± 0.020)" in alt
        assert alt.endswith("On the Pareto front: obedient, faithful.")

    def test_points_on_the_front_are_filled_and_others_hollow(self) -> None:
        figure = panel(self.found, Plane(), COLOURS).figure
        assert figure is not None
        dots = {
            round(float(line.get_xdata()[0]), 3): line.get_markerfacecolor()
            for line in figure.axes[0].lines
            if line.get_marker() == "o"
        }
        hollow = [x for x, colour in dots.items() if colour == "none"]
        assert sorted(dots) == [0.5, 0.51, 0.52, 0.7]
        assert sorted(hollow) == [0.5, 0.51]

    def test_bars_reach_as_far_as_the_interval(self) -> None:
        figure = panel(self.found, Plane(), COLOURS).figure
        assert figure is not None
        ends = [tuple(map(float, line.get_xdata())) for line in figure.axes[0].lines]
        assert any(end == pytest.approx((0.65, 0.75)) for end in ends)

    def test_one_model_or_none_gives_a_sentence(self) -> None:
        none = panel([], Plane(), {})
        assert none.svg is None
        assert "No model was measured by both image_similarity and text_similarity" in none.meaning
        one = panel(self.found[:1], Plane(), COLOURS)
        assert one.svg is None
        assert "Only one model" in one.meaning
        assert "base at (0.500" in one.meaning
        assert moves(self.found[:1]) == []

    def test_moves_are_from_the_base(self) -> None:
        here, right, up, diagonal = moves(
            [Position("base", 1, 1), Position("a", 3, 1), Position("b", 1, 3), Position("c", 2, 2)]
        )
        assert (here.d_is, here.d_ts) == (0, 0)
        assert [right.angle, up.angle, diagonal.angle] == pytest.approx([0, 90, 45])
        assert [each.leads for each in (here, right, up, diagonal)] == [False, True, True, True]


class TestPairs:
    """All ordered pairs, those that the rule kept, and the window drawn as it is."""

    def held(self, run: RunDir) -> Cloud:
        return cloud(PairSet(run.stage_pairs("round_1")), Plane())

    def test_all_ordered_pairs_are_there_and_the_rules_are_marked(self, run: RunDir) -> None:
        held = self.held(run)
        assert len(held.kept) == 2 * 5 * 4
        kept = PairSet(run.stage_pairs("round_1")).table().num_rows
        assert held.kept.sum() == kept > 0
        assert held.d_is.sum() == pytest.approx(0)
        inside = (held.angle > 20) & (held.angle < 70)
        assert (held.kept == inside).all()

    def test_cloud_names_its_window(self, run: RunDir) -> None:
        plane = Plane(window=AngleWindow(-10.0, 55.0, 0.05))
        drawn = panels(self.held(run), plane)[0]
        text = words(drawn)
        assert {"−10°", "55°", "dTS > 0.05", f"dIS ({IS})", f"dTS ({TS})"} <= set(text)
        assert "the window is −10° to 55° with dTS > 0.05" in drawn.alt
        assert drawn.figure is not None
        axes = drawn.figure.axes[0]
        (wedge,) = [patch for patch in axes.patches if isinstance(patch, Wedge)]
        assert (wedge.theta1, wedge.theta2) == (-10.0, 55.0)
        assert axes.get_aspect() == 1.0

    def test_cloud_draws_every_pair_of_a_small_set(self, run: RunDir) -> None:
        held = self.held(run)
        drawn = panels(held, Plane())[0]
        assert {f"kept ({held.kept.sum()})", f"dropped ({(~held.kept).sum()})"} <= set(words(drawn))
        assert drawn.figure is not None
        dots = [line for line in drawn.figure.axes[0].lines if line.get_marker() == "o"]
        assert [len(line.get_xdata()) for line in dots] == [(~held.kept).sum(), held.kept.sum()]

    def test_cloud_of_many_shows_an_even_choice_with_the_longest(self) -> None:
        many = 5 * MOST_DOTS
        x = np.arange(1.0, many + 1)
        held = Cloud("pairs", x, np.zeros(many), np.zeros(many, dtype=bool))
        figure = panels(held, Plane())[0].figure
        assert figure is not None
        dropped = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
        assert len(dropped.get_xdata()) == MOST_DOTS
        assert (min(dropped.get_xdata()), max(dropped.get_xdata())) == (1, many)

    def test_without_a_window_none_is_drawn(self, run: RunDir) -> None:
        drawn = panels(self.held(run), Plane(window=None))
        assert not any("°" in text for each in drawn for text in words(each))
        assert not any("window" in each.meaning or "window" in each.alt for each in drawn)

    def test_angles_are_counted_where_they_point(self, run: RunDir) -> None:
        held = self.held(run)
        drawn = panels(held, Plane())[2]
        assert {"20°", "70°"} <= set(words(drawn))
        assert drawn.figure is not None
        kept, _ = drawn.figure.axes[0].containers
        bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in kept}
        assert {middle for middle, height in bars.items() if height} <= set(range(20, 71))
        assert sum(bars.values()) == held.kept.sum()

    def test_weighted_score_is_the_rules_sum(self) -> None:
        held = Cloud("pairs", np.array([1.0, -1.0]), np.array([3.0, 1.0]), np.array([True, False]))
        assert held.weighted(0.25).tolist() == [1.5, -0.5]
        drawn = panels(held, Plane(share=0.25))[1]
        assert "0.25 dTS + 0.75 dIS" in words(drawn)

    def test_zscores_are_named_and_drawn_as_the_rule_saw_them(self, tmp_path: Path) -> None:
        rule = {**RULE, "zscored": True}
        run = write_run(tmp_path, rule)
        held = cloud(PairSet(run.stage_pairs("round_1")), Plane(zscored=True))
        assert (held.kept == ((held.angle > 20) & (held.angle < 70))).all()
        assert f"dIS ({IS}, standard deviations)" in words(panels(held, Plane(zscored=True))[0])

    def test_nothing_to_draw_gives_a_sentence(self) -> None:
        nothing = np.empty(0)
        (gone,) = panels(Cloud("pairs", nothing, nothing, nothing.astype(bool)), Plane())
        assert gone.svg is None
        assert "candidates are gone, or lack image_similarity or text_similarity" in gone.meaning
        (equal,) = panels(Cloud("pairs", np.zeros(2), np.zeros(2), np.zeros(2, bool)), Plane())
        assert equal.svg is None
        assert "no two candidates of a prompt differ" in equal.meaning


class TestPage:
    """The section as a whole, from one call."""

    def test_section_holds_planes_rounds_and_images(self, page: str) -> None:
        assert '<section id="plane">' in page
        assert '<a href="#plane">' in page
        assert page.count("Pair differences</h3>") == 2
        for name in ("round_1", "round_2"):
            assert f"Possible pairs and those kept: {name}" in page
        assert "Photographs and images of sks dog" in page
        assert page.count('alt="photograph of sks dog"') == 3
        assert page.count('alt="policy image for: a sks dog') >= 3

    def test_pairs_shown_are_those_of_the_last_round(self, run: RunDir, page: str) -> None:
        assert '<section id="pairs">' in page
        assert thumbnail(encoded("round_2-0-1")).uri in page
        assert thumbnail(encoded("round_1-0-1")).uri not in page

    def test_sets_of_pairs_come_in_the_order_of_training(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path)
        names = ["easy", "normal", "hard", "mixed", "round_2", "round_10"]
        for name in sorted(names):
            write_table(PairSet(run.stage_pairs(name)).file, pa.table({"pair_id": [name]}))
        assert [pairs.folder.name for pairs in pair_sets(run)] == names

    def test_table_says_where_models_went(self, page: str) -> None:
        rows = re.findall(r"<tr><th scope=\"row\"><span class=\"dot\"[^>]*></span>(.*?)</tr>", page)
        assert any(row.startswith("policy") and "<td>45°</td><td>on it" in row for row in rows)
        assert any(row.startswith("round_1") and "<td>−27°</td><td></td>" in row for row in rows)

    def test_every_figure_has_an_alternative_and_a_reading(self, page: str) -> None:
        inside = page[page.index('<section id="plane">') :]
        inside = inside[: inside.index("</section>")]
        labels = re.findall(r'role="img" aria-label="([^"]*)"', inside)
        assert len(labels) == inside.count("<svg") == 1 + 2 * 3
        assert all(len(label) > 40 for label in labels)
        assert len(re.findall(r"<figcaption>[^<]{40,}</figcaption>", inside)) == len(labels)

    def test_ids_are_unique_and_found(self, page: str) -> None:
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r"url\(#([\w-]+)", page)) <= set(ids)

    def test_same_run_gives_same_bytes(self, run: RunDir, page: str) -> None:
        again = report(ReportConfig(strips=3), run).read_text(encoding="utf-8")
        assert again == page

    def test_a_further_judge_has_a_plane_of_its_own(self, tmp_path: Path) -> None:
        judged = write_run(tmp_path, labels=("", "judge_"))
        found = plane_report(read(judged), 2)
        assert found is not None
        assert [each.panel.title for each in found.models] == [
            f"By {IS} and {TS}",
            f"By judge_{IS} and judge_{TS}",
        ]
        assert all(len(each.moves) == 3 for each in found.models)

    def test_lost_photographs_and_candidates_cost_only_themselves(
        self, run: RunDir, tmp_path: Path
    ) -> None:
        half = write_run(tmp_path)
        shutil.rmtree(tmp_path / "photographs")
        shutil.rmtree(half.candidates)
        text = report(ReportConfig(strips=2), half).read_text(encoding="utf-8")
        assert text.count('aria-label="photograph of sks dog: not kept"') == 2
        assert text.count("Nothing to draw: the candidates are gone") == 2
        assert f"By {IS} and {TS}</h3>" in text

    def test_a_run_without_the_scores_has_no_section(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path)
        write_json(
            run.report_json, {"base": "base", "prompts": 0, "models": {"base": {"scores": {}}}}
        )
        assert plane_report(read(run), 2) is None
        with pytest.raises(TastemakerError, match="has no plane.*name image_similarity"):
            figures(tmp_path)

    def test_figures_can_be_saved(self, run: RunDir, tmp_path: Path) -> None:
        drawn = figures(run.folder)
        rounds = [f"round_{i}-{name}" for i in (1, 2) for name in ("cloud", "weighted", "angle")]
        assert list(drawn) == [IS, *rounds]
        drawn[IS].savefig(tmp_path / "plane.png")
        with Image.open(tmp_path / "plane.png") as picture:
            assert picture.getpixel((1, 1))[:3] == (255, 255, 255)
