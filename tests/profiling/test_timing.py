"""Seconds of parts and rounds: laws that hold whatever the clock says."""

from __future__ import annotations

import time

import pytest
import torch

from tastemaker.profiling.rows import between, guarded
from tastemaker.profiling.timing import PARTS, PartTimer, interleaved, peak_bytes, ratios
from tastemaker.profiling.training import summary

CPU = torch.device("cpu")


def test_shares_sum_to_one_and_the_rest_is_metrics() -> None:
    timer = PartTimer(CPU)
    network = torch.nn.Linear(2, 2)
    with timer.step():
        with timer.part("data"):
            time.sleep(0.01)
        with timer.forwards(network), torch.no_grad():
            network(torch.ones(1, 2))
        with timer.forwards(network):
            network(torch.ones(1, 2))
        network(torch.ones(1, 2))
        time.sleep(0.01)
    shares = timer.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert {name for name, share in shares.items() if share} == {
        "data",
        "reference",
        "forward",
        "metrics",
    }
    assert tuple(shares) == PARTS
    assert timer.seconds["data"] >= 0.01
    assert timer.seconds["metrics"] >= 0.01


def test_calls_are_timed_inside_alone() -> None:
    class Owner:
        def double(self, number: int) -> int:
            return 2 * number

    timer, owner = PartTimer(CPU), Owner()
    with timer.calls(owner, "double", "backward"):
        assert owner.double(2) == 4
    took = timer.seconds["backward"]
    assert took > 0
    assert owner.double(3) == 6
    assert timer.seconds["backward"] == took


def test_rounds_go_there_and_back() -> None:
    done: list[str] = []
    took = interleaved(CPU, {name: lambda name=name: done.append(name) for name in "abc"}, 3)
    assert "".join(done) == "abccbaabc"
    assert {name: len(values) for name, values in took.items()} == {"a": 3, "b": 3, "c": 3}


def test_summary_by_hand() -> None:
    found = summary(
        {"step": [2.0, 4.0, 1.0], "floor": [1.0, 3.0, 0.5], "plain": [4.0, 4.0, 3.0]}, 8, 100, 50.0
    )
    assert found["pairs_per_second"] == {"median": 4, "min": 2, "max": 8}
    assert found["of_floor"] == {"median": 0.5, "min": 0.5, "max": 0.75}
    assert found["over_plain"] == {"median": 2, "min": 1, "max": 3}
    assert found["utilisation"] == {"median": 1, "min": 0.5, "max": 2}
    assert ratios([1.0, 9.0], [2.0, 3.0]) == {"median": 1.75, "min": 0.5, "max": 3}


def test_a_row_fails_alone() -> None:
    def fails() -> dict[str, int]:
        raise RuntimeError("no\nmemory")

    assert guarded("one", lambda: {"value": 1}) == {"options": "one", "value": 1}
    assert guarded("two", fails) == {"options": "two", "error": "no memory"}


def test_peak_holds_what_work_takes() -> None:
    size = 200_000_000
    before = peak_bytes(CPU, lambda: None)
    assert before is not None
    during = peak_bytes(CPU, lambda: torch.ones(size, dtype=torch.uint8))
    assert during is not None
    assert during > before + 0.9 * size
    after = peak_bytes(CPU, lambda: None)
    assert after is not None
    assert after < during - 0.9 * size


@pytest.mark.parametrize(
    ("median", "written"), [(0.712, "0.71"), (3.14159, "3.14"), (30.56, "30.6"), (512.4, "512")]
)
def test_three_digits(median: float, written: str) -> None:
    text = between({"median": median, "min": median, "max": median})
    assert text == f"{written} [{written}, {written}]"
