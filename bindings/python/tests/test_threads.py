import asyncio
import threading
import time

import pytest
from conftest import MANY

import esolm
from esolm import GenerateParams


def test_steps_give_up_the_interpreter(long: esolm.Context) -> None:
    long.begin(*MANY)
    thread = threading.Thread(target=long.step)
    thread.start()
    counted = 0
    while thread.is_alive():
        counted += 1
    assert counted > 1000


def test_cancel(long: esolm.Context) -> None:
    long.begin(*MANY)
    timer = threading.Timer(0.05, long.cancel)
    timer.start()
    with pytest.raises(esolm.CancelledError):
        long.step()
    with pytest.raises(esolm.CancelledError):
        long.step()
    assert long.stop_reason() == esolm.StopReason.CANCELLED
    long.reset_cancel()
    assert long.step() is not None


def test_busy_and_closing(long: esolm.Context) -> None:
    long.begin(*MANY)
    thread = threading.Thread(target=long.step)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(esolm.BusyError):
        long.step()
    assert long.tokens()  # reading is never busy
    long.close()  # frees when the step has ended
    assert thread.is_alive()
    thread.join()
    with pytest.raises(esolm.ClosedError):
        long.step()


def test_pool(model: esolm.Model, prompt: esolm.Prompt) -> None:
    with esolm.Pool(esolm.PoolOptions(threads=2, cpus=[0], nice=1, poll=0)) as pool:
        assert pool.threads == 2
        contexts = [esolm.Context(model, esolm.ContextOptions(length=32, pool=pool)) for _ in range(2)]
    with pytest.raises(esolm.ClosedError):
        esolm.Context(model, esolm.ContextOptions(pool=pool))
    threads = [threading.Thread(target=context.generate, args=([prompt],)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contexts[0].text() == contexts[1].text() != ""
    contexts[0].threads = 1
    assert contexts[0].threads == 1
    with pytest.raises(esolm.InvalidArgumentError):
        contexts[0].threads = 3
    with pytest.raises(esolm.InvalidArgumentError):
        esolm.Pool(esolm.PoolOptions(cpus=[99999]))


def test_async_steps(context: esolm.Context, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(seed=1))
    expected = context.text()

    async def main() -> str:
        count = 0
        async for step in context.async_steps([prompt], GenerateParams(seed=1)):
            assert step.index == count
            count += 1
        async for _ in context.async_steps():
            raise AssertionError("there are no steps left")
        return context.text()

    assert asyncio.run(main()) == expected


def test_the_loop_goes_on_during_a_step(long: esolm.Context) -> None:
    async def main() -> int:
        long.begin(*MANY)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async for _ in long.async_steps():
            pass
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 10


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_task_ends_its_step(long: esolm.Context, times: int) -> None:
    async def main() -> None:
        async def run() -> None:
            async for _ in long.async_steps(*MANY):
                raise AssertionError("the step was to be cancelled")

        task = asyncio.create_task(run())
        await asyncio.sleep(0.05)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert long.step() is not None  # free at once, and not cancelled any more

    asyncio.run(main())


def test_a_task_is_cancelled_whose_context_was_closed(model: esolm.Model) -> None:
    async def main() -> None:
        with esolm.Context(model, esolm.ContextOptions(sequences=16, threads=1)) as context:
            steps = context.async_steps(*MANY)
            task = asyncio.create_task(steps.__anext__())
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(esolm.ClosedError):
            context.cancel()

    asyncio.run(main())


def test_a_signal_handler_may_cancel(context: esolm.Context) -> None:
    def interrupted() -> None:
        with context._handle._lock:  # where a handler may find its own thread
            context.cancel()
            context.reset_cancel()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_aclose_ends_a_running_step(long: esolm.Context) -> None:
    async def main() -> None:
        steps = long.async_steps(*MANY)

        async def run() -> list[int]:
            return [step.index async for step in steps]

        task = asyncio.create_task(run())
        await asyncio.sleep(0.05)
        with pytest.raises(esolm.BusyError):
            await steps.__anext__()
        await steps.aclose()
        assert await task == []
        assert [step.index for step in long.steps()] == [0]

    asyncio.run(main())


def test_leaving_a_loop_leaves_the_context_free(context: esolm.Context, prompt: esolm.Prompt) -> None:
    async def main() -> None:
        async with context.async_steps([prompt]) as steps:
            async for step in steps:
                if step.index == 3:
                    break
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()
        assert next(context.steps()).index == 4

    asyncio.run(main())


def test_errors_come_out_of_async_steps(context: esolm.Context, prompt: esolm.Prompt) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async for _ in context.async_steps([prompt], GenerateParams(logits=lambda row, logits: 1 / 0)):
                pass
        context.cancel()
        with pytest.raises(esolm.CancelledError):
            async for _ in context.async_steps([prompt]):
                pass
        context.reset_cancel()

    asyncio.run(main())
