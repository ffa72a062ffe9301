"""Objects of C, and when they are freed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ClosedError


class Handle:
    """An object of C. It is freed when it is closed, or collected, and no call uses it any more: so closing waits for nobody,
    not even inside a callback of a call that uses it."""

    def __init__(self, kind: str, pointer: int, free: Callable[[int], None]) -> None:
        self._kind = kind
        self._pointer = pointer
        # A signal's handler may interrupt this thread within it, and cancel or close.
        self._lock = threading.RLock()
        self._users = 0
        self._closed = False
        self._freed = False
        self._free = weakref.finalize(self, free, pointer)
        setattr(self._free, "atexit", False)  # noqa: B010 (older mypy knows no such field); another thread may use it then

    @contextmanager
    def use(self, while_closing: bool = False) -> Iterator[int]:
        """The object, which is not freed meanwhile. ``while_closing``: also one that was closed, as long as another call uses
        it."""
        with self._lock:
            # Counted first: what a signal's handler closes now is still there.
            self._users += 1
            usable = not self._closed or while_closing and not self._freed
        try:
            if not usable:
                raise ClosedError(f"the {self._kind} is closed")
            yield self._pointer
        finally:
            with self._lock:
                self._users -= 1
            self._free_unused()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._free_unused()

    def _free_unused(self) -> None:
        with self._lock:
            last = self._closed and not self._freed and self._users == 0
            self._freed |= last
        if last:
            self._free()
