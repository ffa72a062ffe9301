"""Threads that contexts share."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from . import arguments, c
from .errors import check
from .handle import Handle


@dataclass
class PoolOptions:
    """How to make a ``Pool``."""

    #: Threads, that of the computing context included; 0: one per core that the process may use.
    threads: int = 0
    #: The processors that the pool's own threads may run on; empty: those of the process. Linux only.
    cpus: Sequence[int] = ()
    #: Added to the nice value of the pool's own threads. Linux only.
    nice: int = 0
    #: How long a thread waits for work before it sleeps, 0 to 100; 50 is about a millisecond.
    poll: int = 50


class Pool:
    """Threads that several contexts share (``ContextOptions.pool``). They help one context at a time; one that finds them in
    use computes alone. The fields run and run_user_data of C, for threads of the caller's, are left out: threads of Python
    would take turns at the interpreter's lock for each task."""

    def __init__(self, options: PoolOptions | None = None) -> None:
        options = options or PoolOptions()
        params = arguments.initialised(c.esolm_pool_params, c.library.esolm_pool_params_init)
        params.threads = arguments.size(options.threads, "threads")
        params.nice = arguments.int32(options.nice, "nice")
        params.poll = arguments.uint32(options.poll, "poll")
        cpus = (ctypes.c_size_t * len(options.cpus))(*[arguments.size(cpu, "a processor") for cpu in options.cpus])
        params.cpus, params.n_cpus = arguments.pointer_to(cpus, ctypes.c_size_t), len(cpus)
        out = ctypes.c_void_p()
        check(c.library.esolm_pool_new(ctypes.byref(params), ctypes.byref(out)))
        self._handle = Handle("pool", out.value or 0, c.library.esolm_pool_free)

    @property
    def threads(self) -> int:
        """The number of threads, that of the computing context included."""
        with self._handle.use() as pool:
            return int(c.library.esolm_pool_threads(pool))

    def close(self) -> None:
        """Ends the threads once no ``Context`` uses them. A second time does nothing."""
        self._handle.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
