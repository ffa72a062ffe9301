"""Python's values as C takes them. ctypes cuts integers to their width without a word, so their range is checked here."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from . import c
from .errors import InvalidArgumentError, check

Struct = TypeVar("Struct", bound=ctypes.Structure)


def struct(kind: type[Struct]) -> Struct:
    """A struct that says its size, as C asks for."""
    return kind(struct_size=ctypes.sizeof(kind))


def initialised(kind: type[Struct], init: Callable[..., int]) -> Struct:
    """A struct with the defaults that its function of C sets."""
    made = kind()
    check(init(ctypes.byref(made), ctypes.sizeof(kind)))
    return made


def _unsigned(value: int, bits: int, name: str) -> int:
    if not 0 <= value < 1 << bits:
        raise InvalidArgumentError(f"{name} is {value}, not between 0 and 2^{bits} - 1")
    return value


def size(value: int, name: str) -> int:
    return _unsigned(value, 8 * ctypes.sizeof(ctypes.c_size_t), name)


def uint64(value: int, name: str) -> int:
    return _unsigned(value, 64, name)


def uint32(value: int, name: str) -> int:
    return _unsigned(value, 32, name)


def int32(value: int, name: str) -> int:
    if not -(1 << 31) <= value < 1 << 31:
        raise InvalidArgumentError(f"{name} is {value}, beyond 32 bits")
    return value


def data(value: bytes | bytearray | memoryview, name: str) -> bytes:
    """Bytes. (Of a number, ``bytes`` makes so many zeros.)"""
    if isinstance(value, int):
        raise InvalidArgumentError(f"{name} is a number, not bytes")
    return bytes(value)


def uint32s(values: Iterable[int], name: str) -> Any:
    """An array of C."""
    try:
        numbers = array("I", iter(values))  # of bytes, array would take four as one number
    except OverflowError:
        raise InvalidArgumentError(f"{name} has a number that is not between 0 and 2^32 - 1") from None
    return (ctypes.c_uint32 * len(numbers)).from_buffer_copy(numbers)


def pointer_to(values: Any, kind: Any) -> Any:
    """What a struct's field takes for an array of C, NULL for an empty one. The array must be kept."""
    return ctypes.cast(values, ctypes.POINTER(kind)) if len(values) > 0 else None


def text(value: str, name: str) -> bytes:
    """A text that ends with a NUL in C."""
    if "\0" in value:
        raise InvalidArgumentError(f"{name} has a NUL")
    return value.encode("utf-8")


def optional_text(value: str | None, name: str) -> bytes | None:
    return None if value is None else text(value, name)


def filled(kind: Any, guess: int, fill: Callable[[Any, int, Any], int], spare: int = 0) -> Any:
    """The array that `fill` fills, made again if C says that it has to be larger. ``spare`` is what the number that C
    says leaves out: the NUL of a text."""
    capacity = guess
    count = ctypes.c_size_t()
    while True:
        buffer = (kind * capacity)()
        status = fill(buffer, capacity, ctypes.byref(count))
        if status != c.ESOLM_ERR_BUFFER_TOO_SMALL:
            check(status)
            return buffer[: count.value]
        capacity = count.value + spare


def filled_text(guess: int, fill: Callable[[Any, int, Any], int]) -> str:
    copied: bytes = filled(ctypes.c_char, guess, fill, spare=1)
    return copied.decode("utf-8")
