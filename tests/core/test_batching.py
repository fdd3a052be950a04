"""Work in threads while the next is made: order, bounds, errors and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tastemaker.core.batching import overlapped


def test_results_come_in_order_whatever_each_takes() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(overlapped(work, range(20))) == [number * number for number in range(20)]


def test_the_next_item_is_made_while_one_is_in_work() -> None:
    """The first item's work waits until the second item is made."""
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    def work(number: int) -> bool:
        return second.wait(10)

    assert all(overlapped(work, items()))


def test_few_items_are_made_ahead() -> None:
    made = []
    results = overlapped(lambda number: number, (made.append(i) or i for i in range(100)))
    assert next(results) == 0
    assert len(made) <= 3


def test_an_error_comes_once_and_in_its_turn() -> None:
    def work(number: int) -> float:
        return 6 / number

    results = overlapped(work, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_was_made_before_a_stop_is_kept(stop: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise stop

    kept: list[int] = []
    with pytest.raises(stop):
        kept.extend(overlapped(lambda number: number, items()))
    assert kept == list(range(5))
