"""The library itself: version, devices, log."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import arguments, c
from .errors import Code, check


def version() -> str:
    """The library's version, such as "0.1.0"."""
    return str(c.library.esolm_version(), "utf-8")


def system_info() -> str:
    """A line about the library and this machine, for reports of bugs: version, kernels, instruction sets, threads, ggml."""
    return str(c.library.esolm_system_info(), "utf-8")


class DeviceKind(Code):
    """A kind of device."""

    CPU = c.ESOLM_DEVICE_CPU
    GPU = c.ESOLM_DEVICE_GPU
    OTHER = c.ESOLM_DEVICE_OTHER


@dataclass(frozen=True)
class Device:
    """A device that can run models."""

    name: str
    description: str
    kind: DeviceKind
    memory_free: int
    memory_total: int


def devices() -> list[Device]:
    """The devices of this machine, including the CPU."""
    count = ctypes.c_size_t()
    check(c.library.esolm_device_count(ctypes.byref(count)))
    return [_device(index) for index in range(count.value)]


def _device(index: int) -> Device:
    info = arguments.struct(c.esolm_device_info)
    check(c.library.esolm_device_info_get(index, ctypes.byref(info)))
    return Device(
        name=info.name.decode("utf-8", "replace"),
        description=info.description.decode("utf-8", "replace"),
        kind=DeviceKind(info.kind),
        memory_free=info.memory_free,
        memory_total=info.memory_total,
    )


class Level(Code):
    """The severity of a message."""

    ERROR = c.ESOLM_LOG_ERROR
    WARN = c.ESOLM_LOG_WARN
    INFO = c.ESOLM_LOG_INFO
    DEBUG = c.ESOLM_LOG_DEBUG


# Kept for good: another thread may be sending a message to the previous one.
_handlers: list[Any] = []


def set_log(handler: Callable[[Level, str], object] | None) -> None:
    """Has ``handler`` called with the library's messages, from any thread and possibly several at once; None turns them off.
    It should not raise: Python reports that as an exception that it ignores."""
    if handler is None:
        c.library.esolm_set_log_callback(c.esolm_log_callback(), None)
        return
    called = handler

    def call(level: int, message: bytes, _: Any) -> None:
        called(Level(level), message.decode("utf-8", "replace"))

    callback = c.esolm_log_callback(call)
    _handlers.append(callback)
    c.library.esolm_set_log_callback(callback, None)


def set_log_level(level: Level) -> None:
    """Has messages of this level and of more severe ones sent; ``Level.INFO`` at first."""
    check(c.library.esolm_set_log_level(level))
