"""Python functions that C calls. No exception may pass through C: it is kept, C is told to stop, and when the call has
returned, it is raised."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Union

from . import arguments, c
from .errors import InvalidArgumentError

#: Called with the fraction of a long operation that is done, from 0 to 1 and never decreasing. What it raises ends the
#: operation, and comes out of it.
Progress = Callable[[float], object]

#: Returns bytes of a file, at most ``size`` from ``offset`` on; none at its end. What it raises comes out of
#: ``Model.open_reader``.
Read = Callable[[int, int], Union[bytes, bytearray, memoryview]]


class Caught:
    """What the functions of one call have raised. Around the call of C it is a context manager, which raises it."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        self._error = error

    def run(self, function: Callable[[], object]) -> int:
        """Calls a function, and returns to C whether to stop."""
        if self._error is not None:
            return 1
        try:
            function()
        except BaseException as error:  # also KeyboardInterrupt
            self._error = error
            return 1
        return 0

    def __enter__(self) -> Caught:
        self._error = None
        if _is_main_thread():
            _Ignored.listen()
            _Ignored.running.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if _is_main_thread() and self in _Ignored.running:
            _Ignored.running.remove(self)
        caught, self._error = self._error, None
        if isinstance(caught, (StopIteration, StopAsyncIteration)):
            # Out of an iterator's step it would be the iterator's end.
            raise RuntimeError(f"a function that C called raised {type(caught).__name__}") from caught
        if caught is not None:
            raise caught from None


def _is_main_thread() -> bool:
    """Signals are handled in the main thread alone."""
    return threading.current_thread() is threading.main_thread()


class _Ignored:
    """What the handler of a signal raises as one of the functions below begins, before anything can catch it, ctypes tells and ignores; it
    returns to C whatever was in the place of the result. Here it is kept for the call of C that is under way."""

    #: Those of the main thread.
    running: list[Caught] = []
    _before: Callable[[Any], object] = sys.__unraisablehook__
    _inside = False

    @classmethod
    def listen(cls) -> None:
        """The hook stays: a signal may come at any time. What is not of these functions goes to the one before."""
        if sys.unraisablehook != cls._hook:
            cls._before = sys.unraisablehook
            sys.unraisablehook = cls._hook

    @classmethod
    def _hook(cls, ignored: Any) -> None:
        # The message names the function, or the object is it, by the version of Python.
        own = "_callback.<locals>.call" in f"{ignored.err_msg} {ignored.object!r}"
        if own and cls.running and _is_main_thread():
            cls.running[-1].keep(ignored.exc_value)
            return
        # One that was put in later may call this one.
        inside, cls._inside = cls._inside, True
        try:
            (sys.__unraisablehook__ if inside else cls._before)(ignored)
        finally:
            cls._inside = inside


def progress_callback(caught: Caught, progress: Progress | None) -> Any:
    """C always gets one: between its calls, Python sees Ctrl-C."""

    def call(fraction: float, _: Any) -> int:
        return caught.run(lambda: None if progress is None else progress(fraction))

    return c.esolm_progress_callback(call)


def read_callback(caught: Caught, read: Read) -> Any:
    def call(offset: int, buffer: int, size: int, _: Any) -> int:
        count = -1

        def copy() -> None:
            nonlocal count
            data = arguments.data(read(offset, size), "what read returned")
            if len(data) > size:
                raise InvalidArgumentError(f"read returned {len(data)} bytes; at most {size} were asked for")
            ctypes.memmove(buffer, data, len(data))
            count = len(data)

        caught.run(copy)
        return count

    return c.esolm_read_callback(call)


@dataclass(frozen=True)
class LogitsRow:
    """A row of logits, from which the token of one position is about to be drawn."""

    #: The index of its prompt, or the number that ``Context.add_sequence`` returned.
    sequence: int
    #: Its index in the text.
    position: int
    #: Its index in generation order.
    slot: int
    #: The network's own output, before constraints; read-only, valid during the call.
    model_logits: memoryview[float]


#: Reads and changes the logits that a token is drawn from, one for each token of the vocabulary, after the constraints and
#: before temperature and filters. Minus infinity excludes a token. The memoryview (of floats, ``numpy.asarray`` takes it
#: without a copy) is valid during the call: keeping it, or an array of it, is an error. What the function raises undoes the
#: step and comes out of it. Calls that compute on the context are refused meanwhile; texts can be read.
LogitsCallback = Callable[[LogitsRow, "memoryview[float]"], object]


def logits_callback(caught: Caught, callback: LogitsCallback) -> Any:
    def call(row: Any, logits: Any, _: Any) -> int:
        return caught.run(lambda: _edit(callback, row.contents, logits))

    return c.esolm_logits_callback(call)


def _edit(callback: LogitsCallback, row: Any, logits: Any) -> None:
    arrays = [_floats(pointer, row.n_logits) for pointer in (logits, row.model_logits)]
    changed: memoryview[float] = memoryview(arrays[0]).cast("B").cast("f")
    given: Any = memoryview(arrays[1]).cast("B").cast("f").toreadonly()
    kept = [weakref.ref(array) for array in arrays]
    del arrays
    try:
        callback(LogitsRow(row.sequence, row.position, row.slot, given), changed)
    finally:
        changed.release()
        given.release()
    # Slices and NumPy's arrays of a memoryview keep what it is of. (A traceback may keep them, too, so not after an error.)
    if any(array() is not None for array in kept):
        raise InvalidArgumentError("a logits callback has kept a part of its logits; copy it")


def _floats(pointer: Any, count: int) -> Any:
    return (ctypes.c_float * count).from_address(ctypes.addressof(pointer.contents))
