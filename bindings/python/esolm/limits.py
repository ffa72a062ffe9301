"""The limits of a context, and the memory that it takes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import arguments, c
from .callbacks import Caught
from .errors import Code, check
from .model import Model, ModelOptions, path_bytes
from .pool import Pool


class KVType(Code):
    """The precision of a context's K/V cache; esolm.h explains them."""

    F16 = c.ESOLM_KV_F16
    F32 = c.ESOLM_KV_F32
    Q8_0 = c.ESOLM_KV_Q8_0


@dataclass
class ContextOptions:
    """A context's limits; 0 means the default, in parentheses."""

    #: The most sequences side by side (1).
    sequences: int = 0
    #: The longest sequence, in tokens (the model's context length, at most 4096).
    length: int = 0
    #: The most rows (tokens) in a batch, which the network computes at once (128).
    batch_rows: int = 0
    #: The most rows of prompts that a step feeds beside others (64; on devices 512); alone, if more, ``batch_rows``.
    prompt_rows: int = 0
    #: CPU threads (one per core that the process may use; as many as the pool has).
    threads: int = 0
    #: How keys and values are stored.
    kv_type: KVType = KVType.F16
    #: Uses ggml's kernels on the CPU instead of esolm's own.
    ggml: bool = False
    #: The threads to use (the context's own).
    pool: Pool | None = None

    @contextmanager
    def _c(self) -> Iterator[Any]:
        """The struct of C, whose pool is not freed meanwhile."""
        params = arguments.initialised(c.esolm_context_params, c.library.esolm_context_params_init)
        for name in ("sequences", "length", "batch_rows", "prompt_rows", "threads"):
            setattr(params, name, arguments.size(getattr(self, name), name))
        params.kv_type = KVType(self.kv_type)
        params.kernels = c.ESOLM_KERNELS_GGML if self.ggml else c.ESOLM_KERNELS_OWN
        if self.pool is None:
            yield params
        else:
            with self.pool._handle.use() as pool:
                params.pool = pool
                yield params


@dataclass(frozen=True)
class MemoryUse:
    """The memory of a model and a context, in bytes."""

    #: Shared by all contexts of the model.
    weights: int
    #: A context's host memory; on the CPU it includes the next two.
    arena: int
    kv_cache: int
    compute: int


def memory_use(model: Model, options: ContextOptions | None = None) -> MemoryUse:
    """The exact memory of a context with these options, without making it."""
    use = arguments.struct(c.esolm_memory_use)
    with (options or ContextOptions())._c() as params, model._handle.use() as pointer:
        check(c.library.esolm_context_memory_use(pointer, ctypes.byref(params), ctypes.byref(use)))
    return MemoryUse(use.weights, use.arena, use.kv_cache, use.compute)


def estimate_memory(
    path: str | bytes | os.PathLike[str],
    model: ModelOptions | None = None,
    context: ContextOptions | None = None,
) -> MemoryUse:
    """The memory that a model file and a context of it would take. It reads the file's header only."""
    name = path_bytes(path)
    use = arguments.struct(c.esolm_memory_use)
    opened = (model or ModelOptions())._c(Caught())
    with (context or ContextOptions())._c() as params:
        check(c.library.esolm_memory_estimate(name, ctypes.byref(opened), ctypes.byref(params), ctypes.byref(use)))
    return MemoryUse(use.weights, use.arena, use.kv_cache, use.compute)
