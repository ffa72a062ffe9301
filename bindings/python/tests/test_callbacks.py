from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import esolm
from esolm import GenerateParams


class Unusual(BaseException):
    """Neither an Exception nor one of esolm's."""


def test_logits(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    rows: list[esolm.LogitsRow] = []
    king = model.tokenize(" king")[0]

    def edit(row: esolm.LogitsRow, logits: memoryview[float]) -> None:
        assert len(logits) == len(row.model_logits) == model.info.vocab_size
        assert row.model_logits.readonly
        assert context.text().startswith("Once")
        for busy in (context.step, context.save, lambda: context.begin([prompt])):
            with pytest.raises(esolm.BusyError):
                busy()
        logits[king] = 1000.0
        rows.append(row)

    context.generate([prompt], GenerateParams(logits=edit, length=8))
    assert context.tokens()[4:] == [king] * 4
    assert [(row.sequence, row.position, row.slot) for row in rows] == [(0, at, at) for at in range(4, 8)]
    with pytest.raises(ValueError, match="released"):
        rows[0].model_logits[0]


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), Unusual(), SystemExit(3)])
def test_what_callbacks_raise_comes_out(
    context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt, path: str, error: BaseException
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        context.generate([prompt], GenerateParams(logits=fail))
    assert caught.value is error
    with pytest.raises(type(error)):
        esolm.Model.open(path, esolm.ModelOptions(copy=True, progress=fail))
    with pytest.raises(type(error)):
        esolm.Model.open_reader(fail, 1000)
    with pytest.raises(type(error)):
        context.score_text([1, 2], esolm.ScoreParams(progress=fail))
    context.generate([prompt])
    assert context.text()


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration()])
def test_an_end_of_an_iterator_does_not_end_the_steps(context: esolm.Context, prompt: esolm.Prompt, error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
        context.generate([prompt], GenerateParams(logits=fail))
    assert caught.value.__cause__ is error


def test_what_c_may_call_is_kept_when_ctrl_c_comes_first(
    context: esolm.Context, prompt: esolm.Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def interrupted(status: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["esolm.context"], "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        context.begin([prompt], GenerateParams(logits=lambda row, logits: seen.append(row.position)))
    monkeypatch.undo()
    gc.collect()
    assert list(context.steps()) and seen


def test_a_failed_step_goes_on(context: esolm.Context, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(seed=1, logits=lambda row, logits: None))
    expected = context.text()
    failures = iter([None, None, ValueError("once"), None])

    def sometimes(row: esolm.LogitsRow, logits: memoryview[float]) -> None:
        error = next(failures, None)
        if error is not None:
            raise error

    context.begin([prompt], GenerateParams(seed=1, logits=sometimes))
    with pytest.raises(ValueError, match="once"):
        list(context.steps())
    assert context.stop_reason() == esolm.StopReason.CANCELLED
    list(context.steps())
    assert context.text() == expected


def test_reads_are_checked(path: str) -> None:
    with pytest.raises(esolm.InvalidArgumentError, match="at most"):
        esolm.Model.open_reader(lambda offset, size: bytes(size + 1), 1000)
    with pytest.raises(esolm.FileError):
        esolm.Model.open_reader(lambda offset, size: b"", 1000)
    nothing: Any = None
    with pytest.raises(TypeError):
        esolm.Model.open_reader(lambda offset, size: nothing, 1000)


def test_kept_logits_are_an_error(context: esolm.Context, prompt: esolm.Prompt) -> None:
    numpy = pytest.importorskip("numpy")
    kept = []

    def keep(row: esolm.LogitsRow, logits: memoryview[float]) -> None:
        kept.append(numpy.asarray(logits))

    with pytest.raises(esolm.InvalidArgumentError, match="kept"):
        context.generate([prompt], GenerateParams(logits=keep))

    def edit(row: esolm.LogitsRow, logits: memoryview[float]) -> None:
        array = numpy.asarray(logits)
        assert array.dtype == numpy.float32
        array[:] = numpy.asarray(row.model_logits)
        array[7] = 1000

    context.generate([prompt], GenerateParams(logits=edit, length=6))
    assert context.tokens()[4:] == [7, 7]


def test_contexts_whose_callbacks_refer_to_them_are_collected(model: esolm.Model, prompt: esolm.Prompt) -> None:
    def made() -> weakref.ref[esolm.Context]:
        context = esolm.Context(model, esolm.ContextOptions(length=8))
        context.generate([prompt], GenerateParams(logits=lambda row, logits: context.text()))
        return weakref.ref(context)

    gone = made()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "end",
    [
        esolm.Context.reset,
        lambda context: context.restore(context.save()),
        lambda context: context.score([5, 6, 7]),
        lambda context: context.score_order([5, 6, 7]),
        lambda context: context.score_masked([5, 6, 7]),
    ],
)
def test_a_callback_is_released_when_its_generation_ends(
    context: esolm.Context, prompt: esolm.Prompt, end: Callable[[esolm.Context], object]
) -> None:
    class Held:
        def look(self, row: esolm.LogitsRow, logits: memoryview[float]) -> None:
            pass

    held = Held()
    gone = weakref.ref(held)
    context.begin([prompt], GenerateParams(logits=held.look))
    del held
    gc.collect()
    assert gone() is not None and context.step() is not None
    end(context)
    gc.collect()
    assert gone() is None


def test_log(model: esolm.Model) -> None:
    said: list[tuple[esolm.Level, str]] = []
    esolm.set_log(lambda level, message: said.append((level, message)))
    try:
        esolm.Context(model, esolm.ContextOptions(length=8)).close()
        assert said and all(level == esolm.Level.INFO for level, _ in said)
        said.clear()
        esolm.set_log_level(esolm.Level.ERROR)
        esolm.Context(model, esolm.ContextOptions(length=8)).close()
        assert not said
        with pytest.raises(esolm.InvalidArgumentError):
            esolm.set_log_level(esolm.Level(77))
    finally:
        esolm.set_log_level(esolm.Level.INFO)
        esolm.set_log(None)
    esolm.Context(model, esolm.ContextOptions(length=8)).close()
    assert not said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failing_log_handler_fails_nothing(model: esolm.Model) -> None:
    esolm.set_log(lambda level, message: 1 / 0)
    try:
        esolm.Context(model, esolm.ContextOptions(length=8)).close()
    finally:
        esolm.set_log(None)


def test_errors_are_of_their_thread(context: esolm.Context) -> None:
    messages: list[str] = []

    def fail(sequence: int) -> None:
        for _ in range(200):
            try:
                context.text(sequence)
            except esolm.InvalidArgumentError as error:
                messages.append(f"{sequence}: {error}")

    threads = [threading.Thread(target=fail, args=(sequence,)) for sequence in (11, 22)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(messages)) == 2
