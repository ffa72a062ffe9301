"""Statuses, and an exception for each."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from . import c


class Code(IntEnum):
    """A number of esolm.h. One that this package does not know yet is a member without a name of its own."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"OTHER_{value}"
        member._value_ = value
        return member


class Status(Code):
    """A kind of error; esolm.h explains them. Later versions may have more."""

    INVALID_ARGUMENT = c.ESOLM_ERR_INVALID_ARGUMENT
    IO = c.ESOLM_ERR_IO
    BAD_FILE = c.ESOLM_ERR_BAD_FILE
    UNSUPPORTED = c.ESOLM_ERR_UNSUPPORTED
    DEVICE = c.ESOLM_ERR_DEVICE
    OUT_OF_MEMORY = c.ESOLM_ERR_OUT_OF_MEMORY
    CANCELLED = c.ESOLM_ERR_CANCELLED
    BUSY = c.ESOLM_ERR_BUSY
    BUFFER_TOO_SMALL = c.ESOLM_ERR_BUFFER_TOO_SMALL
    TOKENIZER = c.ESOLM_ERR_TOKENIZER
    NOT_FINITE = c.ESOLM_ERR_NOT_FINITE
    INTERNAL = c.ESOLM_ERR_INTERNAL

    @property
    def text(self) -> str:
        """The general meaning, such as "out of memory"."""
        return str(c.library.esolm_status_text(self), "utf-8")


class EsolmError(Exception):
    """An error of the library. Each status has a class of its own."""

    status: Status = Status.INTERNAL


class InvalidArgumentError(EsolmError, ValueError):
    """An argument is out of range or malformed. Nothing was changed."""

    status = Status.INVALID_ARGUMENT


class FileError(EsolmError):
    """The operating system could not open, read or map a file."""

    status = Status.IO


class BadFileError(EsolmError):
    """A file is damaged or not in the format that it claims."""

    status = Status.BAD_FILE


class UnsupportedError(EsolmError):
    """A valid request that this version or this build does not support."""

    status = Status.UNSUPPORTED


class DeviceError(EsolmError):
    """The device does not exist, or it failed."""

    status = Status.DEVICE


class OutOfMemoryError(EsolmError, MemoryError):
    """Not enough memory. Nothing was changed."""

    status = Status.OUT_OF_MEMORY


class CancelledError(EsolmError):
    """``Context.cancel`` was called. The tokens written so far can be read."""

    status = Status.CANCELLED


class BusyError(EsolmError):
    """Another call is using the context. Nothing was changed."""

    status = Status.BUSY


class BufferTooSmallError(EsolmError):
    """A buffer is too small; this package makes larger ones."""

    status = Status.BUFFER_TOO_SMALL


class TokenizerError(EsolmError):
    """The model has no tokenizer, or the tokenizer cannot do this."""

    status = Status.TOKENIZER


class NotFiniteError(EsolmError):
    """The network produced NaN or infinity: the model is damaged, or needs ``KVType.F32``."""

    status = Status.NOT_FINITE


class InternalError(EsolmError):
    """A bug in the library; please report it."""

    status = Status.INTERNAL


class ClosedError(EsolmError, ValueError):
    """The model, context or pool has been closed."""

    status = Status.INVALID_ARGUMENT


_CLASSES = {
    error.status: error
    for error in (
        InvalidArgumentError,
        FileError,
        BadFileError,
        UnsupportedError,
        DeviceError,
        OutOfMemoryError,
        CancelledError,
        BusyError,
        BufferTooSmallError,
        TokenizerError,
        NotFiniteError,
        InternalError,
    )
}


def check(status: int) -> None:
    """Raises the error of a failed call. Its message is that of this thread's last failing call."""
    if status == c.ESOLM_OK:
        return
    kind = Status(status)
    error = _CLASSES.get(kind, EsolmError)(c.library.esolm_last_error().decode("utf-8", "replace"))
    error.status = kind
    raise error
