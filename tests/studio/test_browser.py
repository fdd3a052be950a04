"""The studio in a real browser: people vote, reload, lose the server, and hold a phone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
for needed in ("starlette", "uvicorn"):
    pytest.importorskip(needed, reason="of the extra `studio`")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
    pytest.mark.timeout(300),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCRIPT = '<img src=x onerror="document.title=1"><script>document.title=1</script> a fish'
TWO = ("a cat", "two dogs")
SECONDS = 60_000  # milliseconds: a loaded machine is no fault
KEYS = {"1": "left", "2": "right", "3": "tie", "4": "both_bad", "Space": "skip"}


class Studio:
    """A study of a folder of pictures, served by the command in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.pictures = folder / "pictures"
        self.output = folder / "study"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.options = options
        self.address = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tastemaker", "studio", str(self.pictures)]
        command += [f"output={self.output}", f"port={self.port}", "browser=false", *self.options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if found := re.search(rf"http://\S+:{self.port}/\S+/", line):
                self.address = found.group()
                break
        assert self.address, "".join(lines)
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address, timeout=5) as page:
                return page.status == 200
        except urllib.error.URLError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def lines(self) -> list[dict]:
        """Every line on disk, undos too, in the order of each voter's file."""
        files = sorted((self.output / "votes").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]

    def votes(self, voter: str = "Anna") -> list[dict]:
        lines = [line for line in self.lines() if line["voter"] == voter]
        undone = {line["undoes"] for line in lines if "undoes" in line}
        return [line for line in lines if "task_id" in line and line["vote_id"] not in undone]


def wait_for(happens: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def draw(folder: Path, prompts: list[str], each: int) -> None:
    """Pictures with the prompt in the text that A1111 writes."""
    folder.mkdir()
    for number, prompt in enumerate(prompts):
        for draw_number in range(each):
            image = Image.new("RGB", (64, 64), (40 * number % 256, 30 * draw_number % 256, 120))
            ImageDraw.Draw(image).ellipse((8, 8, 20 + 5 * draw_number, 40), fill="white")
            text = PngInfo()
            text.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler a")
            image.save(folder / f"{number}-{draw_number}.png", pnginfo=text)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Start studios; they end with the test."""
    started = []

    def start(*options: str, prompts: tuple[str, ...] = TWO, each: int = 8) -> Studio:
        draw(tmp_path / "pictures", list(prompts), each)
        started.append(Studio(tmp_path, *options))
        started[-1].start()
        return started[-1]

    yield start
    for studio in started:
        studio.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[api.Browser]:
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)


@contextmanager
def voter(browser: api.Browser, studio: Studio, name: str = "Anna", **screen) -> Iterator[api.Page]:
    """A voter's browser, which has met no error, blocked no content and asked nobody else."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **screen})
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(studio.address)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    ready(page)
    yield page
    assert wrong == []
    assert [url for url in asked if not url.startswith((studio.address, "about:"))] == []
    context.close()


def is_wrong(message: api.ConsoleMessage) -> bool:
    return message.type == "error" and "ERR_CONNECTION_REFUSED" not in message.text


def ready(page: api.Page) -> None:
    """Wait until the pictures are there."""
    wait_for(lambda: page.query_selector(".frame") and not page.query_selector(".frame.loading"))
    time.sleep(0.15)  # longer than what is taken for a slip of the finger


def press(page: api.Page, key: str) -> None:
    """Vote by a key and wait for the next task."""
    ready(page)
    before = page.text_content("#count")
    page.keyboard.press(key)
    wait_for(lambda: page.text_content("#count") != before)


def saved(page: api.Page) -> None:
    wait_for(lambda: page.text_content("#state") == "Saved")


def transforms(page: api.Page) -> list[str]:
    time.sleep(0.3)  # of an eased zoom
    each = "(images) => images.map((image) => getComputedStyle(image).transform)"
    return page.eval_on_selector_all(".frame img", each)


def test_fifty_votes_by_keyboard_with_a_reload_in_the_middle(study, browser) -> None:
    studio = study()
    typed = [list(KEYS)[number % 5] for number in range(50)]
    with voter(browser, studio) as page:
        for number, key in enumerate(typed):
            if number == 25:
                page.reload()
                ready(page)
                assert page.text_content("#count").startswith("25 of ")
            press(page, key)
        wait_for(lambda: len(studio.votes()) == 50)
        assert page.text_content("#count").startswith("50 of ")
    votes = studio.votes()
    assert [vote["answer"] for vote in votes] == [KEYS[key] for key in typed]
    assert len({vote["vote_id"] for vote in votes}) == len(studio.lines()) == 50
    assert all(vote["seconds"] > 0.1 for vote in votes)


def test_two_voters_at_once(study, browser) -> None:
    studio = study()
    with voter(browser, studio, "Anna") as anna, voter(browser, studio, "Ben") as ben:
        for _ in range(6):
            press(anna, "1")
            press(ben, "2")
        wait_for(lambda: len(studio.lines()) == 12)
    assert [vote["answer"] for vote in studio.votes("Anna")] == ["left"] * 6
    assert [vote["answer"] for vote in studio.votes("Ben")] == ["right"] * 6
    assert len(list((studio.output / "votes").glob("*.jsonl"))) == 2


def test_no_vote_is_lost_or_counted_twice_when_the_server_is_killed(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        for _ in range(3):
            press(page, "1")
        wait_for(lambda: len(studio.votes()) == 3)
        studio.kill()
        for _ in range(3):
            press(page, "2")
        page.wait_for_selector("#state.away")
        assert page.text_content("#state") == "Server away, 3 votes are kept here"
        assert page.text_content("#count").startswith("6 of ")
        assert len(studio.votes()) == 3
        studio.start()
        saved(page)
        press(page, "3")
        wait_for(lambda: len(studio.votes()) == 7)
    answers = [vote["answer"] for vote in studio.votes()]
    assert answers == ["left"] * 3 + ["right"] * 3 + ["tie"]
    assert len(studio.lines()) == 7


def test_votes_that_were_not_sent_survive_a_page_that_is_left(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        press(page, "1")
        wait_for(lambda: len(studio.votes()) == 1)
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
        studio.kill()
        press(page, "2")
        page.wait_for_selector("#state.away")
        page.goto("about:blank")  # no page is left that could send it
        studio.start()
        assert len(studio.votes()) == 1
        page.goto(studio.address)
        ready(page)
        saved(page)
        wait_for(lambda: [vote["answer"] for vote in studio.votes()] == ["left", "right"])
        assert page.text_content("#count").startswith("2 of ")


def test_a_vote_whose_answer_was_lost_is_sent_again_and_counts_once(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        sent = []

        def lose_the_answer(route: api.Route) -> None:
            sent.append(route.request.post_data_json["vote_id"])
            if len(sent) == 1:
                route.fetch()
                route.abort("connectionrefused")
            else:
                route.continue_()

        page.route("**/api/votes", lose_the_answer)
        press(page, "1")
        wait_for(lambda: page.wait_for_timeout(50) or len(sent) == 2)
        saved(page)
        press(page, "2")
        wait_for(lambda: page.wait_for_timeout(50) or len(studio.votes()) == 2)
        assert sent[0] == sent[1] != sent[2]
    assert [vote["answer"] for vote in studio.lines()] == ["left", "right"]


def test_undo_goes_back_one_vote_after_another(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        press(page, "1")
        wait_for(lambda: len(studio.votes()) == 1)
        press(page, "4")
        wait_for(lambda: len(studio.votes()) == 2)
        first = studio.votes()[0]["task_id"]
        page.reload()
        press(page, "z")
        press(page, "z")
        assert page.text_content("#count").startswith("0 of ")
        assert page.is_disabled("#undo")
        press(page, "2")
        wait_for(lambda: [vote["answer"] for vote in studio.votes()] == ["right"])
    assert studio.votes()[0]["task_id"] == first
    assert len(studio.lines()) == 5


def test_a_phone_shows_both_pictures_and_takes_taps(study, browser) -> None:
    studio = study()
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with voter(browser, studio, **phone, device_scale_factor=2) as page:
        boxes = [frame.bounding_box() for frame in page.query_selector_all(".frame")]
        assert len(boxes) == 2
        assert min(box["width"] for box in boxes) >= 140
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        buttons = [page.locator(f"#answers button >> nth={number}") for number in range(4)]
        for box in [*boxes, *(button.bounding_box() for button in buttons)]:
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert box["y"] + box["height"] <= 740
        assert min(button.bounding_box()["height"] for button in buttons) >= 40
        page.tap("#answers [data-value=tie]")
        wait_for(lambda: len(studio.votes()) == 1)
        ready(page)
        page.locator(".frame").nth(1).tap()
        wait_for(lambda: len(studio.votes()) == 2)
    assert [vote["answer"] for vote in studio.votes()] == ["tie", "right"]


def test_script_in_prompts_and_names_is_inert(study, browser) -> None:
    studio = study(prompts=(SCRIPT,))
    with voter(browser, studio, name="<b>Bobby</b>") as page:
        assert page.text_content("#prompt") == SCRIPT
        assert page.text_content("#who") == "<b>Bobby</b>"
        assert page.query_selector_all("main img:not(.frame img)") == []
        assert page.title() != "1"
        press(page, "1")
        page.click("#who")
        page.wait_for_selector("#known-names button")
        assert page.text_content("#known-names span") == "<b>Bobby</b>"
        assert page.query_selector_all("b") == []


def test_zoom_moves_all_pictures_together(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        box = page.locator(".frame").nth(0).bounding_box()
        whole = transforms(page)
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.wheel(0, -400)
        left, right = transforms(page)
        assert left == right != whole[0]
        page.mouse.down()
        page.mouse.move(box["x"] + 20, box["y"] + 10, steps=3)
        page.mouse.up()
        left, right = transforms(page)
        assert left == right
        page.keyboard.press("0")
        assert transforms(page) == whole
        page.keyboard.press("+")
        assert transforms(page) != whole
        page.keyboard.press("-")
        assert transforms(page) == whole
        page.mouse.dblclick(box["x"] + 40, box["y"] + 40)
        assert transforms(page) != whole
        assert page.text_content("#count").startswith("0 of ")
    assert studio.lines() == []


@pytest.mark.slow
def test_votes_faster_than_the_line_never_wait(study, browser) -> None:
    """Task, images and vote take half a second each: they overlap, and are fetched ahead."""
    studio = study()
    with voter(browser, studio) as page:
        line = page.context.new_cdp_session(page)
        slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
        line.send("Network.enable")
        line.send("Network.emulateNetworkConditions", slow)
        time.sleep(3)
        for number in range(10):
            page.keyboard.press("1")
            assert page.text_content("#count").startswith(f"{number + 1} of ")
            assert len(page.query_selector_all(".frame:not(.loading)")) == 2
            time.sleep(0.7)
        wait_for(lambda: len(studio.votes()) == 10)


def test_the_keyboard_reaches_every_button_and_shows_where_it_is(study, browser) -> None:
    studio = study()
    with voter(browser, studio) as page:
        reached = {}
        for _ in range(12):
            page.keyboard.press("Tab")
            at = page.evaluate(
                """() => {
                    const { id, dataset, textContent, ariaLabel } = document.activeElement;
                    const { outlineStyle } = getComputedStyle(document.activeElement);
                    return [id || dataset.value, ariaLabel || textContent, outlineStyle];
                }"""
            )
            reached[at[0]] = at[1:]
        buttons = {"who", "help-open", "left", "tie", "both_bad", "right", "skip"}
        assert buttons <= set(reached)
        assert all(reached[button][0].strip() for button in buttons)
        assert {reached[button][1] for button in buttons} == {"solid"}
        page.focus("[data-value=tie]")
        press(page, "Space")  # presses the button, and does not skip
        page.keyboard.press("?")
        page.wait_for_selector("#help[open]")
        page.keyboard.press("1")
        page.keyboard.press("Escape")
        assert page.query_selector("#help[open]") is None
        wait_for(lambda: [vote["answer"] for vote in studio.votes()] == ["tie"])


def test_best_and_worst_by_keys_and_by_clicks(study, browser) -> None:
    studio = study("kind=best_worst", "images=4")
    with voter(browser, studio) as page:
        assert len(page.query_selector_all(".frame")) == 4
        page.keyboard.press("3")
        page.wait_for_selector("[data-mark=best]")
        page.keyboard.press("z")
        assert page.query_selector("[data-mark=best]") is None
        page.keyboard.press("3")
        press(page, "1")
        ready(page)
        page.click(".frame >> nth=0")
        page.click(".frame >> nth=3")
        wait_for(lambda: len(studio.votes()) == 2)
        press(page, "Space")
        wait_for(lambda: len(studio.votes()) == 3)
    answers = [vote["answer"] for vote in studio.votes()]
    assert answers == [{"best": 2, "worst": 0}, {"best": 0, "worst": 3}, "skip"]


def test_ratings_to_the_end(study, browser) -> None:
    studio = study("kind=rating", "repeats=0", prompts=("a cat",), each=4)
    with voter(browser, studio) as page:
        for key in "543":
            press(page, key)
        ready(page)
        page.keyboard.press("2")
        page.wait_for_selector("#end:not([hidden])")
        assert page.text_content("#thanks") == "Thank you, Anna."
        assert "4 of 4" in page.text_content("#counts")
        page.keyboard.press("z")
        page.wait_for_selector("#judging:not([hidden])")
        ready(page)
        page.keyboard.press("1")
        page.wait_for_selector("#end:not([hidden])")
    assert [vote["answer"] for vote in studio.votes()] == [5, 4, 3, 1]
