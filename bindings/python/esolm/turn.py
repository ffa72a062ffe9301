"""Whose turn it is."""

from __future__ import annotations

import sys
import threading
from types import FrameType


class Turn:
    """Lets in one call at a time. The handler of a signal may end a call anywhere, also where it is in and has not come to the block
    that lets it out: so what is noted is the call itself, and one that does not run any more is in no more."""

    def __init__(self) -> None:
        self._inside: tuple[int, FrameType] | None = None
        # A signal's handler may compute, too.
        self._lock = threading.RLock()

    def take(self, call: FrameType) -> bool:
        """Whether ``call``, which runs in this thread, may go in."""
        own = (threading.get_ident(), call)
        with self._lock:
            if self._inside is not None and _runs(*self._inside):
                return False
            # One that is noted is in: nothing can come between.
            self._inside = own
            return True

    def leave(self, call: FrameType) -> None:
        """Lets it out, if it is still the one that is in."""
        with self._lock:
            if self._inside is not None and self._inside[1] is call:
                self._inside = None


def _runs(thread: int, call: FrameType) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None
