"""examples/ray_generate.py on a cluster of two workers, of which one is killed in the middle and one joins: nothing is lost,
nothing twice, and the texts are those of one process: lost_worker ESOLM MODEL
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray
import ray_generate
from ray.cluster_utils import Cluster

COUNT = 480
TEXTS = ["--count", str(COUNT), "--seed", "7", "-p", "Once upon a time", "-p", "The king"]


class Ended(ray_generate.Writer):
    """Is ready, and ends with text 0."""

    def __init__(self, work: ray_generate.Work) -> None:
        self.work = work

    def write(self, indices: list[int]) -> list[str]:
        if 0 in indices:
            os._exit(1)
        return [str(index) for index in indices]


def main(esolm: str, model: str) -> None:
    command = [esolm, "generate", "-m", model, "-q", "--batch", "4", *TEXTS]
    expected = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    folder = tempfile.TemporaryDirectory()
    output = Path(folder.name, "texts.jsonl")

    def lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    killed_at = []

    def kill() -> None:
        while lines() < COUNT // 4:
            time.sleep(0.01)
        killed_at.append(lines())
        cluster.remove_node(workers[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)

    killer = threading.Thread(target=kill)
    killer.start()
    said = io.StringIO()
    arguments = [model, *TEXTS, "--side-by-side", "4", "-o", str(output)]
    with contextlib.redirect_stderr(said):
        ray_generate.main(arguments)
    killer.join()
    assert COUNT // 4 <= killed_at[0] < COUNT, killed_at
    assert re.search("an actor is lost; its [1-9][0-9]* texts", said.getvalue()), said.getvalue()

    got = sorted(map(json.loads, output.read_text().splitlines()), key=lambda line: line["index"])
    assert [line["index"] for line in got] == list(range(COUNT)), "lost or twice"
    assert got == list(map(json.loads, expected)), "other texts than those of one process"

    # What is there is not written again, a cut line is.
    data = output.read_bytes()
    ray_generate.main(arguments)
    assert output.read_bytes() == data
    output.write_bytes(data[:-100])
    ray_generate.main(arguments)
    assert sorted(output.read_bytes().splitlines()) == sorted(data.splitlines())
    # Files that are not its own stay as they are.
    first = data.splitlines(keepends=True)[0]
    for other, why, change in [
        (data.replace(b'"seed": ', b'"seed": 1', 1), "is another file", []),
        (data + b"notes", "is another file", []),
        (b"notes", "is another file", []),
        (data + first, "is there twice", []),
        (data[:-100], "has another text", ["-n", "9"]),
        (data[:-100], "has another text", ["-p", "A third prompt"]),
    ]:
        output.write_bytes(other)
        try:
            ray_generate.main(arguments + change)
        except SystemExit as refused:
            assert why in str(refused), refused
        else:
            raise AssertionError(f"another file was taken: {why}")
        assert output.read_bytes() == other
    # A batch that ends every actor is not tried for ever, and the others are written.
    ray_generate.Writer = Ended
    work = ray_generate.Work(model, [], 7, 4, 1, None)
    said, texts = io.StringIO(), []
    try:
        with contextlib.redirect_stderr(said):
            for batch in ray_generate.written(work, [[0, 1], [2], [3]], 1):
                texts += batch
    except SystemExit as ended:
        assert "2 texts are not written, the first of them 0, " in str(ended), ended
        assert said.getvalue().count("an actor is lost; its 2 texts") == ray_generate.MOST_LOSSES, said.getvalue()
        assert texts == ["2", "3"], texts
    else:
        raise AssertionError("actors that all end have written a batch")
    print(f"{COUNT} texts, a worker killed after {killed_at[0]}: each once, and as one process writes it")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:3])
