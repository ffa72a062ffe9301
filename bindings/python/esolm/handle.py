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
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False
        self._free = weakref.finalize(self, free, pointer)
        setattr(self._free, "atexit", False)  # noqa: B010 (older mypy knows no such field); another thread may use it then

    @contextmanager
    def use(self) -> Iterator[int]:
        """The object, which is not freed meanwhile."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"the {self._kind} is closed")
            self._users += 1
        try:
            yield self._pointer
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and self._users == 0
            if last:
                self._free()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            unused = self._users == 0
        if unused:
            self._free()
