#!/usr/bin/env python3
"""Writes many texts with Ray: the lines of `esolm generate --count N --seed S`, by actors on all nodes of a cluster.

    ray_generate.py model.gguf --count 10000 --seed 1 -p "Once upon a time" -o texts.jsonl

A text depends on the seed and its number only. So a batch whose actor is lost is given to another one, and a run that was ended
goes on with the texts that its file lacks, once some that it has came out the same again. Each actor maps the model's file, which
has to be on its node: those of a node share its memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray

import esolm


def seed_of(seed: int, index: int) -> int:
    """The seed of text `index`, as the command has it: the upper 53 bits of SplitMix64's number `index`."""
    mask = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return (z ^ (z >> 31)) >> 11


@dataclasses.dataclass
class Work:
    """What to write, and with what."""

    model: str
    prompts: list[str]
    seed: int
    side_by_side: int
    threads: int
    params: esolm.GenerateParams


class Writer:
    """Writes texts on one node. (Ray makes an actor of it.)"""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.model = esolm.Model.open(work.model)
        self.context = esolm.Context(self.model, esolm.ContextOptions(sequences=work.side_by_side, threads=work.threads))
        self.prompts = [esolm.Prompt(self.model.tokenize(text)) for text in work.prompts] or [esolm.Prompt()]

    def ready(self) -> list[str]:
        """Returns when the model is open."""
        return []

    def write(self, indices: list[int]) -> list[str]:
        """The lines of some texts. As many as the context holds are written side by side; the next joins when one is finished."""
        lines, waiting, running = [], deque(indices), {}
        while waiting or running:
            while waiting and len(running) < self.work.side_by_side:
                index = waiting.popleft()
                params = dataclasses.replace(self.work.params, seed=seed_of(self.work.seed, index))
                running[self.context.add_sequence(self.prompts[index % len(self.prompts)], params)] = index
            self.context.step()
            for sequence in [sequence for sequence in running if self.context.stop_reason(sequence)]:
                lines.append(self.line(running.pop(sequence), sequence))
                self.context.remove_sequence(sequence)
        return lines

    def line(self, index: int, sequence: int) -> str:
        """What the command prints for a text."""
        return json.dumps(
            {
                "schema": 1,
                "index": index,
                "seed": seed_of(self.work.seed, index),
                "text": self.context.text(sequence),
                "tokens": self.context.tokens(sequence),
                "stop_reason": self.context.stop_reason(sequence).name.lower(),
            },
            ensure_ascii=False,
        )


# So many actors a batch may lose, and a place in a row.
MOST_LOSSES = 5
# What tells of an actor that is lost. (The second is what Ray says where it ended one to free memory.)
LOST = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.ObjectLostError)


@dataclasses.dataclass(eq=False)
class Place:
    """A place for an actor, and how many it has lost in a row."""

    actor: Any = None
    losses: int = 0


def written(work: Work, batches: Iterable[list[int]], actors: int) -> Iterator[list[str]]:
    """The lines of all batches, as they are finished. An actor that is lost is replaced as soon as the cluster has room, and its
    batch comes last. A batch that has lost `MOST_LOSSES` is left out, and a place that has lost as many with no batch finished
    between is given up: neither a text that ends each actor nor a machine that does keeps the others from being written. Where
    texts are not written, the process ends with an error that says so."""
    actor = ray.remote(num_cpus=work.threads, max_restarts=0)(Writer)
    waiting, left_out = deque(batches), list[list[int]]()
    idle, running = list[Place](), dict[Any, tuple[Place, list[int]]]()
    losses, cause = Counter[int](), ""

    def begin(place: Place) -> None:
        place.actor = actor.remote(work)
        running[place.actor.ready.remote()] = (place, [])

    for _ in range(actors):
        begin(Place())
    while waiting or any(batch for _, batch in running.values()):
        while waiting and idle:
            place = min(idle, key=lambda place: place.losses)
            # A batch that was lost waits while one works that has lost none: a bad machine would lose it again.
            if place.losses and losses[waiting[0][0]] and any(batch and not of.losses for of, batch in running.values()):
                break
            batch = waiting.popleft()
            idle.remove(place)
            running[place.actor.write.remote(batch)] = (place, batch)
        if not running:
            break  # all places are given up
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        place, batch = running.pop(done)
        try:
            lines = ray.get(done)
        except LOST as error:
            cause = str(error)
            place.losses += 1
            if not batch:
                print("an actor is lost before it was ready", file=sys.stderr)
            else:
                losses[batch[0]] += 1
                is_tried = losses[batch[0]] < MOST_LOSSES
                (waiting if is_tried else left_out).append(batch)
                to = "go to another" if is_tried else "are left out"
                print(f"an actor is lost; its {len(batch)} texts {to}", file=sys.stderr)
            if place.losses < MOST_LOSSES:
                begin(place)
            continue
        idle.append(place)
        if batch:
            place.losses = 0
            yield lines
    for place, _ in running.values():  # replacements for which there was no room
        ray.kill(place.actor)
    missing = sorted(index for batch in [*left_out, *waiting] for index in batch)
    if missing:
        what = f"{len(missing)} texts are not written, the first of them {missing[0]}, as actors were lost"
        sys.exit(f"{what}; the same command tries them again. The last was lost so: {cause}")


class Found:
    """What a file has: the numbers of its texts, the bytes of its complete lines, and the last line of each prompt, of which the
    last sixteen and no fewer than four of all are kept to be compared. Another file is refused."""

    def __init__(self, path: Path, work: Work) -> None:
        self.path, self.indices, self.complete = path, set[int](), 0
        of_prompt, last = dict[int, Any](), deque[Any](maxlen=4)
        try:
            with path.open("rb") as file:
                for text in file:
                    if not text.endswith(b"\n"):
                        if not b'{"schema": '.startswith(text[:11]):
                            raise ValueError("its end is no beginning of a line")
                        break
                    line = json.loads(text)
                    index = line["index"]
                    if line["seed"] != seed_of(work.seed, index):
                        raise ValueError("a line has another seed")
                    if index in self.indices:
                        raise ValueError("a text is there twice")
                    self.indices.add(index)
                    self.complete += len(text)
                    prompt = index % max(1, len(work.prompts))
                    of_prompt.pop(prompt, None)
                    of_prompt[prompt] = line
                    last.append(line)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path} is another file, or of another seed: {error}")
        self.compared = {line["index"]: line for line in [*list(of_prompt.values())[-16:], *last]}

    def check(self, work: Work) -> None:
        """Writes some of the texts once more: a file of other options, prompts or another model is refused."""
        for lines in written(work, [list(self.compared)] if self.compared else [], 1):
            for line in map(json.loads, lines):
                if line != self.compared[line["index"]]:
                    what = "it is of other options, prompts, or another model or version"
                    sys.exit(f"{self.path} has another text {line['index']}: {what}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, required=True, help="number of texts")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("-p", "--prompt", action="append", default=[], help="may be repeated: prompts take turns")
    parser.add_argument("-n", "--max-tokens", type=int, default=0, help="most tokens behind the prompt")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of JSON lines, to go on with if it exists")
    parser.add_argument("--actors", type=int, help="default: as many as the cluster has processors for")
    parser.add_argument("--threads", type=int, default=1, help="of each actor")
    parser.add_argument("--side-by-side", type=int, default=8, help="texts that an actor writes at a time")
    args = parser.parse_args(arguments)

    params = esolm.GenerateParams(max_tokens=args.max_tokens)
    work = Work(args.model, args.prompt, args.seed, args.side_by_side, args.threads, params)
    there = Found(args.output, work)
    indices = [index for index in range(args.count) if index not in there.indices]
    # Some times as many as fit side by side, so that few places are empty while the last of a batch are written.
    size = 4 * args.side_by_side
    batches = [indices[first : first + size] for first in range(0, len(indices), size)]
    if not ray.is_initialized():
        ray.init()
    there.check(work)
    actors = args.actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // args.threads)
    with args.output.open("a", encoding="utf-8") as file:
        # A line that was cut off is written again.
        file.truncate(there.complete)
        for lines in written(work, batches, min(actors, len(batches))):
            file.write("".join(line + "\n" for line in lines))
            file.flush()
    print(f"{args.count} texts, {len(there.indices)} of them there before", file=sys.stderr)


if __name__ == "__main__":
    main()
