"""Signals that come while C computes, and at any other time."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import esolm

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")


random.seed(1)


class Alarm(Exception):
    """What the handler raises."""


@pytest.fixture(params=[KeyboardInterrupt, Alarm])
def kind(request: pytest.FixtureRequest) -> Iterator[type[BaseException]]:
    raised: type[BaseException] = request.param

    def handler(number: int, frame: FrameType | None) -> None:
        raise raised

    before = signal.signal(signal.SIGALRM, handler)
    yield raised
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupted(kind: type[BaseException], within: float, work: Callable[[], object]) -> bool:
    """Does some work that a signal may end, and says whether one did."""
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, within))
        work()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except kind:
        return True
    return False


def interrupt(kind: type[BaseException], wanted: int, work: Callable[[], object]) -> None:
    """Does some work again and again until signals have ended it so many times. It may take longer at one time than at another, so
    that what was seen last says within what time a signal comes, at any place of the work."""
    started = time.monotonic()
    work()
    within = 2 * (time.monotonic() - started)
    ended = 0
    for _ in range(100 * wanted):
        hit = interrupted(kind, within, work)
        ended += hit
        within *= 1.1 if hit else 0.9
        if ended == wanted:
            return
    raise AssertionError(f"{ended} of {wanted} signals")


def test_an_interrupt_comes_out_of_a_call_with_callbacks(model: esolm.Model, kind: type[BaseException]) -> None:
    with esolm.Context(model, esolm.ContextOptions(length=64, threads=1)) as context:
        tokens = [5 + i % 50 for i in range(64)] * 40
        calls: list[Callable[[], object]] = [
            lambda: context.score_text(tokens),
            lambda: context.score_text(tokens, esolm.ScoreParams(progress=lambda fraction: None)),
            lambda: context.generate([esolm.Prompt([5])], esolm.GenerateParams(logits=lambda row, logits: None, ignore_eos=True)),
        ]
        for call in calls:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(kind):
                for _ in range(1000):
                    call()


def test_a_context_is_of_use_after_any_interrupt(model: esolm.Model, kind: type[BaseException]) -> None:
    params = esolm.GenerateParams(seed=3, ignore_eos=True, max_tokens=8)
    with esolm.Context(model, esolm.ContextOptions(length=16, threads=1)) as context:
        prompts = [esolm.Prompt([5, 6])]
        context.generate(prompts, params)
        whole = context.tokens()
        interrupt(kind, 150, lambda: context.generate(prompts, params))
        context.reset()
        context.generate(prompts, params)
        assert context.tokens() == whole


def test_a_model_is_read_whole_or_not_at_all(path: str, kind: type[BaseException]) -> None:
    data = Path(path).read_bytes()
    seen = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal seen
        part = data[offset : offset + min(size, 4096)]
        seen += len(part)
        return part

    def open_model() -> None:
        nonlocal seen
        seen = 0
        with esolm.Model.open_reader(read, len(data)):
            # Only where no signal came before.
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert seen == len(data)

    interrupt(kind, 30, open_model)
