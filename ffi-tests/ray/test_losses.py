"""What examples/ray_generate.py does about actors that are lost, on a cluster that is played: machines with a place each, one of
which loses all that it gets, or a batch that ends each actor. Takes neither Ray nor esolm: python3 -m unittest test_losses.py
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
import unittest
from collections.abc import Callable
from pathlib import Path

KINDS = ["RayActorError", "OutOfMemoryError", "ObjectLostError"]
sys.modules["ray"] = types.ModuleType("ray")
sys.modules["ray"].exceptions = types.SimpleNamespace(**{kind: type(kind, (Exception,), {}) for kind in KINDS})
sys.modules["esolm"] = types.ModuleType("esolm")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import ray_generate  # noqa: E402


class Call:
    """A call of an actor: when it ends, and whether the actor is lost with it."""

    def __init__(self, ends: int, result: list[int] | None) -> None:
        self.ends, self.result = ends, result


class Machines:
    """Stands for the module `ray`. `loses(machine, batch)`: whether the actor ends, where an empty batch means its start. A loss
    takes one unit of time, a batch ten. The ways to be lost take turns."""

    def __init__(self, count: int, loses: Callable[[int, list[int]], bool]) -> None:
        self.free, self.loses = list(range(count)), loses
        self.now = self.begun = self.lost = 0

    def remote(self, **_: object) -> Callable[[type], types.SimpleNamespace]:
        return lambda _: types.SimpleNamespace(remote=lambda _: self.actor())

    def actor(self) -> types.SimpleNamespace:
        machine = self.free.pop()
        self.begun += 1

        def call(batch: list[int]) -> Call:
            if not self.loses(machine, batch):
                return Call(self.now + 10 * bool(batch), batch)
            self.free.append(machine)
            return Call(self.now + 1, None)

        method = types.SimpleNamespace
        return types.SimpleNamespace(ready=method(remote=lambda: call([])), write=method(remote=call))

    def wait(self, calls: list[Call], num_returns: int) -> tuple[list[Call], list[Call]]:
        first = min(calls, key=lambda call: call.ends)
        self.now = first.ends
        return [first], []

    def get(self, call: Call) -> list[int]:
        if call.result is None:
            self.lost += 1
            raise ray_generate.LOST[self.lost % len(ray_generate.LOST)]("it ended")
        return call.result

    def kill(self, _: object) -> None:
        pass


class Losses(unittest.TestCase):
    def run_on(self, machines: Machines, batches: list[list[int]], actors: int) -> tuple[list[int], str, str]:
        """The texts that are written, what was said, and the error at the end."""
        ray_generate.ray = machines
        work = ray_generate.Work("model.gguf", [], 1, 4, 1, None)
        texts, said, error = [], io.StringIO(), ""
        with contextlib.redirect_stderr(said):
            try:
                for lines in ray_generate.written(work, batches, actors):
                    texts += lines
            except SystemExit as exit:
                error = str(exit)
        return sorted(texts), said.getvalue(), error

    def test_a_batch_that_ends_each_actor_is_left_out(self) -> None:
        machines = Machines(3, lambda _, batch: 14 in batch)
        texts, said, error = self.run_on(machines, [[n, n + 1] for n in range(0, 200, 2)], 3)
        self.assertEqual(texts, [n for n in range(200) if n not in (14, 15)])
        self.assertEqual(said.count("its 2 texts go to another"), ray_generate.MOST_LOSSES - 1)
        self.assertEqual(said.count("its 2 texts are left out"), 1)
        self.assertIn("2 texts are not written, the first of them 14, ", error)
        self.assertEqual(machines.begun, 3 + ray_generate.MOST_LOSSES)

    def test_a_bad_machine_does_not_end_a_long_run(self) -> None:
        batches = [[n] for n in range(1000)]
        for machines in [2, 3]:
            for least in [0, 1]:  # as they begin, or with their batch
                bad = Machines(machines, lambda machine, batch: machine == 0 and len(batch) >= least)
                texts, said, error = self.run_on(bad, batches, machines)
                self.assertEqual((texts, error), (list(range(1000)), ""))
                self.assertEqual(said.count("an actor is lost"), ray_generate.MOST_LOSSES)

    def test_a_bad_machine_does_not_lose_the_last_batch_again_and_again(self) -> None:
        for count in [1, 2, 3]:
            bad = Machines(2, lambda machine, batch: machine == 0 and bool(batch))
            texts, _, error = self.run_on(bad, [[n] for n in range(count)], 2)
            self.assertEqual((texts, error), (list(range(count)), ""))

    def test_machines_that_now_and_then_lose_an_actor_write_all(self) -> None:
        calls = iter(range(10**6))
        texts, said, error = self.run_on(
            Machines(2, lambda _, batch: bool(batch) and next(calls) % 10 == 0), [[n] for n in range(1000)], 2
        )
        self.assertEqual((texts, error), (list(range(1000)), ""))
        self.assertGreater(said.count("an actor is lost"), 100)

    def test_actors_that_are_never_ready_end_the_run(self) -> None:
        machines = Machines(2, lambda _, batch: True)
        texts, _, error = self.run_on(machines, [[0, 1], [2]], 2)
        self.assertEqual(texts, [])
        self.assertIn("3 texts are not written", error)
        self.assertIn("it ended", error)
        self.assertEqual(machines.begun, 2 * ray_generate.MOST_LOSSES)


if __name__ == "__main__":
    unittest.main()
