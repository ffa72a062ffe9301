"""Steps for asyncio."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

from .errors import BusyError, CancelledError, ClosedError

T = TypeVar("T")


class AsyncSteps(Generic[T]):
    """An asynchronous iterator of the steps of a generation, and an asynchronous context manager that closes it.

    A step runs in a thread of the event loop's executor. When the task that waits for it is cancelled, or ``aclose`` is called,
    the step is cancelled, too, and has ended before the one or the other returns: the context is then free, and
    ``Context.steps`` goes on from where it was."""

    def __init__(self, step: Callable[[], T | None], cancel: Callable[[], None], reset_cancel: Callable[[], None]) -> None:
        self._step = step
        self._cancel = cancel
        self._reset_cancel = reset_cancel
        self._running: asyncio.Future[T | None] | None = None
        self._closed = False

    def __aiter__(self) -> AsyncSteps[T]:
        return self

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        if self._running is not None:
            raise BusyError("another task waits for a step")
        surroundings = contextvars.copy_context()  # as asyncio.to_thread does
        # Not a task: the end of the event loop would cancel that, and the thread would run on.
        running = asyncio.get_running_loop().run_in_executor(None, surroundings.run, self._step)
        self._running = running
        try:
            step = await asyncio.shield(running)
        except asyncio.CancelledError:
            self._closed = True
            await self._stop(running)
            raise
        except CancelledError:
            if self._closed:  # by aclose, in another task
                raise StopAsyncIteration from None
            raise
        finally:
            self._running = None
        if step is None or self._closed:
            self._closed = True
            raise StopAsyncIteration
        return step

    async def aclose(self) -> None:
        """Ends the iteration: cancels the step that is running, and waits for its end."""
        self._closed = True
        if self._running is not None:
            await self._stop(self._running)

    async def _stop(self, running: asyncio.Future[T | None]) -> None:
        if running.done():
            return
        # Of a context that was closed meanwhile, the running step is the last use.
        with suppress(ClosedError):
            self._cancel()
        cancelled = False
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:  # once more: the step ends all the same, within the time of a few products
                cancelled = True
        with suppress(ClosedError):
            self._reset_cancel()  # it was for this step only
        if not running.cancelled():
            running.exception()  # has been seen
        if cancelled:
            raise asyncio.CancelledError

    async def __aenter__(self) -> AsyncSteps[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
