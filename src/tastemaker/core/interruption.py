"""Ctrl-C and SIGTERM, deferred to a point where work can be kept."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Context in which SIGINT or SIGTERM is only noted, and acts at its end; a second acts at once.

    Signals reach the main thread alone: in any other, nothing is deferred.

    Attributes:
        signal: The signal noted, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.signal and error is None:
            self.act()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.signal:
            self.act()
        self.signal = number

    def act(self) -> None:
        """End as the noted signal asks.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After SIGTERM, with status 143.
        """
        if self.signal == signal.SIGTERM:
            sys.exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
