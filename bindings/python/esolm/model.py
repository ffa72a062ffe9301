"""Models."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from . import arguments, c
from .callbacks import Caught, Progress, Read, progress_callback, read_callback
from .chat import ChatOptions, Message, messages_for_c, params_for_c
from .errors import BadFileError, Code, check
from .handle import Handle
from .request import Prompt


@dataclass
class ModelOptions:
    """How to open a model."""

    #: "cpu", "cuda:0"; None is the first GPU, or the CPU if there is none.
    device: str | None = None
    #: Reads the file into memory instead of mapping it.
    copy: bool = False
    #: Reads quantized matrices that are plain in the file into memory in panels.
    repack: bool = False
    #: Called with the fraction of the file that is loaded.
    progress: Progress | None = None
    #: Locks the weights in main memory; if the system refuses, a warning in the log says why.
    mlock: bool = False
    #: Reads a mapped file's pages in now, and not when they are first used.
    prefetch: bool = False
    #: The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, which makes it WeDLM.
    mask_token: int | None = None

    def _c(self, caught: Caught) -> c.esolm_model_params:
        params = arguments.initialised(c.esolm_model_params, c.library.esolm_model_params_init)
        params.device = arguments.optional_text(self.device, "device")
        params.mode = c.ESOLM_MODE_REPACK if self.repack else c.ESOLM_MODE_COPY if self.copy else c.ESOLM_MODE_MAP
        params.progress_callback = progress_callback(caught, self.progress)  # progress_user_data: it is a closure
        params.use_mlock = self.mlock
        params.prefetch = self.prefetch
        if self.mask_token is not None:
            params.mask_token = arguments.uint32(self.mask_token, "mask_token")
            params.has_mask_token = True
        return params


class Feature(Code):
    """Something that some models, or some builds of the library, can do and others cannot. esolm.h explains them."""

    DIFFUSION = c.ESOLM_FEATURE_DIFFUSION
    SEQUENTIAL = c.ESOLM_FEATURE_SEQUENTIAL
    ORDERS = c.ESOLM_FEATURE_ORDERS
    ADAPTIVE = c.ESOLM_FEATURE_ADAPTIVE
    HOLES = c.ESOLM_FEATURE_HOLES
    EXTEND = c.ESOLM_FEATURE_EXTEND
    STATES = c.ESOLM_FEATURE_STATES
    SCORE_ORDER = c.ESOLM_FEATURE_SCORE_ORDER
    SCORE_DIFFUSION = c.ESOLM_FEATURE_SCORE_DIFFUSION
    TEXT = c.ESOLM_FEATURE_TEXT
    STEP_TEXT = c.ESOLM_FEATURE_STEP_TEXT
    GRAMMAR = c.ESOLM_FEATURE_GRAMMAR
    LOOKAHEAD = c.ESOLM_FEATURE_LOOKAHEAD
    CHAT = c.ESOLM_FEATURE_CHAT


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model."""

    context_length: int
    vocab_size: int
    mask_token: int
    #: None if there is none.
    eos_token: int | None
    parameters: int
    tensor_bytes: int
    file_bytes: int
    #: How long opening took, in seconds.
    load_time: float
    #: The device that the weights are on, as in ``Device.name``.
    device: str
    #: The token that begins a text; None if there is none.
    bos_token: int | None
    #: The token that the library puts before each text by itself; None if there is none.
    prepended_token: int | None


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Its file descriptor."""


class Model:
    """An open model, made by ``Model.open``, ``open_bytes``, ``open_reader`` or ``open_file``. Immutable: any number of
    threads may use it at once. It is freed when it is closed, or collected, and no ``Context`` uses it any more."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @classmethod
    def open(cls, path: str | bytes | os.PathLike[str], options: ModelOptions | None = None) -> Model:
        """Opens a GGUF file."""
        name = path_bytes(path)
        return cls._open(options, lambda params, out: int(c.library.esolm_model_open(name, params, out)))

    @classmethod
    def open_bytes(cls, file: bytes | bytearray | memoryview, options: ModelOptions | None = None) -> Model:
        """Opens a model from the bytes of a GGUF file, which are copied."""
        data = arguments.data(file, "file")
        if not data:
            raise BadFileError("the file is empty")

        def how(params: Any, out: Any) -> int:
            if params.mode == c.ESOLM_MODE_MAP:
                params.mode = c.ESOLM_MODE_COPY
            return int(c.library.esolm_model_open_memory(data, len(data), params, out))

        return cls._open(options, how)

    @classmethod
    def open_reader(cls, read: Read, size: int, options: ModelOptions | None = None, name: str | None = None) -> Model:
        """Opens a model of ``size`` bytes that a function reads: an entry of an archive, an encrypted file. It is called from
        the file's beginning to its end, before this returns. ``name`` is what messages call it. (The field close of C is left
        out: a file is closed by who has opened it.)"""
        caught = Caught()
        reader = arguments.struct(c.esolm_model_reader)
        reader.size = arguments.uint64(size, "size")
        reader.read = read_callback(caught, read)  # user_data: it is a closure
        reader.name = arguments.optional_text(name, "name")

        def how(params: Any, out: Any) -> int:
            return int(c.library.esolm_model_open_reader(ctypes.byref(reader), params, out))

        with caught:
            return cls._open(options, how)

    @classmethod
    def open_file(cls, file: int | HasFileno, offset: int = 0, length: int = 0, options: ModelOptions | None = None) -> Model:
        """Opens a model that is in an open file: ``length`` bytes from ``offset`` on, 0 being all up to its end. The file may
        be closed afterwards."""
        descriptor = arguments.int32(file if isinstance(file, int) else file.fileno(), "file")
        first, count = arguments.uint64(offset, "offset"), arguments.uint64(length, "length")
        return cls._open(options, lambda params, out: int(c.library.esolm_model_open_fd(descriptor, first, count, params, out)))

    @classmethod
    def _open(cls, options: ModelOptions | None, how: Callable[[Any, Any], int]) -> Model:
        caught = Caught()
        params = (options or ModelOptions())._c(caught)
        out = ctypes.c_void_p()
        with caught:
            check(how(params, ctypes.byref(out)))
        return cls(Handle("model", out.value or 0, c.library.esolm_model_free))

    def close(self) -> None:
        """Frees the model once no call and no ``Context`` uses it. A second time does nothing."""
        self._handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        info = arguments.struct(c.esolm_model_info)
        with self._handle.use() as model:
            check(c.library.esolm_model_info_get(model, ctypes.byref(info)))

        def token(number: int) -> int | None:
            return None if number == c.ESOLM_NO_TOKEN else number

        return ModelInfo(
            context_length=info.context_length,
            vocab_size=info.vocab_size,
            mask_token=info.mask_token,
            eos_token=token(info.eos_token),
            parameters=info.parameters,
            tensor_bytes=info.tensor_bytes,
            file_bytes=info.file_bytes,
            load_time=info.load_time_us / 1e6,
            device=info.device.decode("utf-8", "replace"),
            bos_token=token(info.bos_token),
            prepended_token=token(info.prepended_token),
        )

    def supports(self, feature: Feature) -> bool:
        """Whether the model, in this build of the library, can do something."""
        with self._handle.use() as model:
            return bool(c.library.esolm_model_supports(model, feature))

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file, each value as text, in the file's order."""
        count = ctypes.c_size_t()
        with self._handle.use() as model:
            check(c.library.esolm_model_metadata_count(model, ctypes.byref(count)))
            keys = [
                arguments.filled_text(64, lambda *to, at=at: c.library.esolm_model_metadata_key(model, at, *to))
                for at in range(count.value)
            ]
            return {
                key: arguments.filled_text(
                    128, lambda *to, key=key: c.library.esolm_model_metadata_get(model, key.encode("utf-8"), *to)
                )
                for key in keys
            }

    def tokenize(self, text: str, parse_special: bool = False, continues: bool = False) -> list[int]:
        """Converts text to tokens. With ``parse_special``, special tokens that are written out in it, and "[MASK]", are these
        tokens instead of characters. ``continues`` says that it goes on from another text: tokenizers that put a space before
        a text then put none."""
        data, params = text.encode("utf-8"), _tokenize_params(parse_special, continues)
        with self._handle.use() as model:
            tokens: list[int] = arguments.filled(
                ctypes.c_uint32,
                len(data) // 2 + 8,
                lambda *to: c.library.esolm_tokenize_with_params(model, data, len(data), ctypes.byref(params), *to),
            )
        return tokens

    def template(self, text: str, parse_special: bool = False, continues: bool = False) -> tuple[Prompt, int]:
        """Converts a text with holes, such as "Once upon a time {{mask 12}} happily ever after.", to a prompt and the whole
        text's number of tokens, including the holes. A space before a hole belongs to what is written there.
        ``parse_special`` is for all of the text, ``continues`` for its beginning."""
        data, params = text.encode("utf-8"), _tokenize_params(parse_special, continues)
        length = ctypes.c_size_t()
        positions: Any = None

        def fill(tokens: Any, capacity: int, count: Any) -> int:
            nonlocal positions
            positions = (ctypes.c_uint32 * capacity)()
            status = c.library.esolm_tokenize_template_with_params(
                model, data, len(data), ctypes.byref(params), tokens, positions, capacity, count, ctypes.byref(length)
            )
            return int(status)

        with self._handle.use() as model:
            tokens = arguments.filled(ctypes.c_uint32, len(data) // 2 + 8, fill)
        return Prompt(tokens, positions[: len(tokens)]), length.value

    def chat_text(self, messages: Iterable[Message], options: ChatOptions | None = None) -> str:
        """The text of a conversation."""
        own, params = messages_for_c(messages), params_for_c(options)
        with self._handle.use() as model:
            return arguments.filled_text(1024, lambda *to: c.library.esolm_chat_apply(model, own, len(own), params, *to))

    def chat_tokens(self, messages: Iterable[Message], options: ChatOptions | None = None) -> list[int]:
        """The tokens of a conversation up to the model's next answer, or of what follows an answer (``ChatOptions.behind``), for
        ``Context.append_sequence``. If those begin with the token that ended the answer, which the sequence has, leave it out."""
        own, params = messages_for_c(messages), params_for_c(options)
        with self._handle.use() as model:
            tokens: list[int] = arguments.filled(
                ctypes.c_uint32, 512, lambda *to: c.library.esolm_chat_tokenize(model, own, len(own), params, *to)
            )
        return tokens

    def chat_answer_end(self, options: ChatOptions | None = None) -> str:
        """What the template writes behind an answer, such as "<|im_end|>": a stop string, and where it is the name of a special
        token, that is a stop token."""
        params = params_for_c(options)
        with self._handle.use() as model:
            return arguments.filled_text(32, lambda *to: c.library.esolm_chat_answer_end(model, params, *to))

    def detokenize(self, tokens: Iterable[int]) -> str:
        """Converts tokens to text."""
        numbers = arguments.uint32s(tokens, "tokens")
        with self._handle.use() as model:
            return arguments.filled_text(
                4 * len(numbers) + 1, lambda *to: c.library.esolm_detokenize(model, numbers, len(numbers), *to)
            )

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, which may be a part of a character."""
        number = arguments.uint32(token, "token")
        with self._handle.use() as model:
            return bytes(arguments.filled(ctypes.c_uint8, 32, lambda *to: c.library.esolm_token_bytes(model, number, *to)))

    def token_is_end(self, token: int) -> bool:
        """Whether a token ends a text: ``info.eos_token``, or another, as a chat model has one for the end of an answer."""
        number = arguments.uint32(token, "token")
        with self._handle.use() as model:
            return bool(c.library.esolm_token_is_end(model, number))

    def token_is_special(self, token: int) -> bool:
        """Whether a token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers outside
        the vocabulary; False without a tokenizer."""
        number = arguments.uint32(token, "token")
        with self._handle.use() as model:
            return bool(c.library.esolm_token_is_special(model, number))


def path_bytes(path: str | bytes | os.PathLike[str]) -> bytes:
    """A path as C takes it."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("the path has a NUL")
    return name


def _tokenize_params(parse_special: bool, continues: bool) -> c.esolm_tokenize_params:
    params = arguments.initialised(c.esolm_tokenize_params, c.library.esolm_tokenize_params_init)
    params.parse_special = parse_special
    params.continues = continues
    return params
