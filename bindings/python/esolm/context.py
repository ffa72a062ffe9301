"""Contexts."""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from . import arguments, c
from .asynchronous import AsyncSteps
from .callbacks import Caught, logits_callback
from .errors import BusyError, EsolmError, InvalidArgumentError, check
from .handle import Handle
from .limits import ContextOptions
from .model import Model
from .request import GenerateParams, Prompt, Request
from .score import ScoreParams, TextScore, score_text, scores
from .steps import Step, StopReason, step_of
from .turn import Turn


@dataclass(frozen=True)
class Profile:
    """The time of a generation's steps so far, in seconds, by kind of work."""

    #: Matrix products of the transformer blocks.
    blocks: float
    #: Attention over the cache.
    attention: float
    #: Product with the output matrix.
    vocabulary: float
    #: From logits to tokens.
    sampling: float
    #: Everything else in the steps.
    rest: float


class Context:
    """Holds the memory and the threads for generating from a model. One call at a time computes; another one that overlaps
    with it raises ``BusyError``. What the last step left can be read at any time, from any thread: with ``tokens``, ``order``,
    ``text``, ``stop_reason`` and ``profile``. It keeps the model alive, also when that is closed."""

    def __init__(self, model: Model, options: ContextOptions | None = None) -> None:
        out = ctypes.c_void_p()
        with (options or ContextOptions())._c() as params, model._handle.use() as pointer:
            check(c.library.esolm_context_new(pointer, ctypes.byref(params), ctypes.byref(out)))
        self._handle = Handle("context", out.value or 0, c.library.esolm_context_free)
        self._turn = Turn()
        self._caught = Caught()
        # What C does not keep of the sequences: the functions that it calls, and GenerateParams.top_log_probs.
        self._logits: dict[int, Any] = {}
        # Of a call that Ctrl-C may have ended behind C: until the next generation.
        self._lent: list[Any] = []
        self._top: dict[int, int] = {}

    def close(self) -> None:
        """Frees the context, when a call that uses it has ended. A second time does nothing."""
        self._handle.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _compute(self) -> AbstractContextManager[int]:
        """The context, for the only call that computes: the one that calls this."""
        return self._in_turn(sys._getframe(1))

    @contextmanager
    def _in_turn(self, call: FrameType) -> Iterator[int]:
        if not self._turn.take(call):
            raise BusyError("the context is in use by another call")
        try:
            with self._handle.use() as context:
                yield context
        finally:
            self._turn.leave(call)

    @contextmanager
    def _lending(self, logits: Any) -> Iterator[None]:
        """Keeps what C may call from now on, also where another exception than C's error comes before it is noted."""
        self._lent.append(logits)
        try:
            yield
        except EsolmError:
            self._lent.remove(logits)
            raise
        self._lent.remove(logits)

    def _forget(self) -> None:
        """After a call that ended the generation: C calls its functions no more."""
        self._logits, self._top = {}, {}
        self._lent.clear()

    @property
    def threads(self) -> int:
        """The number of threads that compute. It can be set, up to as many as the context was made for."""
        count = ctypes.c_size_t()
        with self._compute() as context:
            check(c.library.esolm_context_threads(context, ctypes.byref(count)))
        return count.value

    @threads.setter
    def threads(self, count: int) -> None:
        with self._compute() as context:
            check(c.library.esolm_context_set_threads(context, arguments.size(count, "threads")))

    def measure_pass_overhead(self) -> float:
        """Measures what a pass costs beside its rows, in rows, for ``set_pass_overhead``. Ends the generation."""
        rows = ctypes.c_float()
        with self._compute() as context:
            check(c.library.esolm_context_measure_pass_overhead(context, ctypes.byref(rows)))
            self._forget()
        return round(rows.value, 1)

    def set_pass_overhead(self, rows: float) -> None:
        """Says what a pass costs beside its rows, in rows. By it ``LOOKAHEAD_AUTO`` and ``WINDOW_AUTO`` decide, so their texts
        depend on it; 0 stands for what is the same on all machines."""
        with self._compute() as context:
            check(c.library.esolm_context_set_pass_overhead(context, rows))

    def begin(self, prompts: Sequence[Prompt], params: GenerateParams | None = None) -> None:
        """Begins a generation of one sequence per prompt, and discards the previous one."""
        self._start(c.library.esolm_begin, prompts, params or GenerateParams())

    def extend(self, prompts: Sequence[Prompt], params: GenerateParams | None = None) -> None:
        """Continues from the tokens so far to a text of ``params.length`` tokens, without computing their keys and values
        again. Steps that are left are discarded. Each sequence has a prompt, with further known tokens. Use another seed than
        before."""
        self._start(c.library.esolm_extend, prompts, params or GenerateParams())

    def _start(self, how: Callable[..., int], prompts: Sequence[Prompt], params: GenerateParams) -> None:
        request, logits = self._request(prompts, params)
        with self._compute() as context, self._lending(logits):
            check(how(context, request.prompts, len(prompts), ctypes.byref(request.params)))
            self._lent = [logits]  # C keeps no other
            self._logits = {sequence: logits for sequence in range(len(prompts))}
            self._top = {sequence: params.top_log_probs for sequence in range(len(prompts))}

    def _request(self, prompts: Sequence[Prompt], params: GenerateParams) -> tuple[Request, Any]:
        logits = None if params.logits is None else logits_callback(self._caught, params.logits)
        return Request(prompts, params, logits), logits

    def step(self) -> Step | None:
        """Runs the next step of all sequences; None if they are finished. If it raises, they are as before the step; if that
        concerns one of them only, its ``stop_reason`` is ``StopReason.ERROR``, and the others go on once it is removed."""
        return self._step_of(None)

    def _step_of(self, generation: dict[int, Any] | None) -> Step | None:
        """The next step; None also if it would be another generation's than this one's ``_logits``."""
        info = arguments.struct(c.esolm_step_info)
        done = ctypes.c_int32()
        with self._compute() as context:
            if generation is not None and self._logits is not generation:
                return None
            with self._caught:
                check(c.library.esolm_step(context, ctypes.byref(info), ctypes.byref(done)))
            return None if done.value else step_of(context, info, self._top)

    def steps(self, prompts: Sequence[Prompt] | None = None, params: GenerateParams | None = None) -> Iterator[Step]:
        """Begins a generation, and runs its steps as they are asked for. Without prompts: the steps that are left. It ends when
        another generation begins, and when this one is extended, reset or replaced by a saved one."""
        return iter(self._steps_of(prompts, params), None)

    def async_steps(self, prompts: Sequence[Prompt] | None = None, params: GenerateParams | None = None) -> AsyncSteps[Step]:
        """As ``steps``, for ``async for``: each step runs in a thread of the event loop's. A task that is cancelled, or
        ``aclose``, cancels the running step."""
        return AsyncSteps(self._steps_of(prompts, params), self.cancel, self.reset_cancel)

    def _steps_of(self, prompts: Sequence[Prompt] | None, params: GenerateParams | None) -> Callable[[], Step | None]:
        if prompts is not None:
            self.begin(prompts, params)
        elif params is not None:
            raise InvalidArgumentError("parameters need prompts: they are of the generation that begins")
        generation = self._logits  # each has its own
        return lambda: self._step_of(generation)

    def generate(self, prompts: Sequence[Prompt], params: GenerateParams | None = None) -> None:
        """Runs a generation to its end; read the result with ``text`` or ``tokens``."""
        for _ in self.steps(prompts, params):
            pass

    def cancel(self) -> None:
        """Cancels the running call and all later ones until ``reset_cancel``. From any thread."""
        with self._handle.use(while_closing=True) as context:
            check(c.library.esolm_cancel(context))

    def reset_cancel(self) -> None:
        """Undoes ``cancel``: ``step`` goes on as if nothing had happened (esolm_cancel_reset)."""
        with self._handle.use(while_closing=True) as context:
            check(c.library.esolm_cancel_reset(context))

    def reset(self) -> None:
        """Discards the generation with its tokens and texts."""
        with self._compute() as context:
            check(c.library.esolm_context_reset(context))
            self._forget()

    def add_sequence(self, prompt: Prompt, params: GenerateParams | None = None) -> int:
        """Adds a sequence to the generation, between two steps or in a new context, and returns its number; ``step`` runs it.
        The others are not disturbed, and its text is the one that the prompt would get alone in a generation with these
        parameters. A beginning that another sequence has, or had, is not computed again. ``params.logits`` is for this
        sequence only, ``params.constraints`` has one entry at most. A long prompt takes several steps, which write nothing of
        it yet (``ContextOptions.prompt_rows``). Without a free sequence it raises ``InvalidArgumentError``."""
        number = ctypes.c_uint32()

        def how(context: int, *request: Any) -> int:
            return int(c.library.esolm_sequence_add(context, *request, ctypes.byref(number)))

        self._start_one(how, number, prompt, params or GenerateParams())
        return number.value

    def extend_sequence(self, sequence: int, prompt: Prompt, params: GenerateParams | None = None) -> None:
        """As ``extend``, for one sequence; the others are not disturbed."""
        number = ctypes.c_uint32(arguments.uint32(sequence, "sequence"))

        def how(context: int, *request: Any) -> int:
            return int(c.library.esolm_sequence_extend(context, number, *request))

        self._start_one(how, number, prompt, params or GenerateParams())

    def append_sequence(
        self, sequence: int, prompt: Prompt, params: GenerateParams | None = None, keep: int | None = None
    ) -> None:
        """Goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from there; the
        others are not disturbed. At most the first ``keep`` tokens of the text stay. The keys and values of what stays are kept:
        only the new tokens are computed, and those of the last step. ``params.max_tokens`` counts behind the prompt."""
        number = ctypes.c_uint32(arguments.uint32(sequence, "sequence"))
        most = ctypes.c_size_t(-1) if keep is None else ctypes.c_size_t(arguments.size(keep, "keep"))

        def how(context: int, *request: Any) -> int:
            return int(c.library.esolm_sequence_append(context, number, most, *request))

        self._start_one(how, number, prompt, params or GenerateParams())

    def _start_one(self, how: Callable[..., int], number: ctypes.c_uint32, prompt: Prompt, params: GenerateParams) -> None:
        request, logits = self._request([prompt], params)
        with self._compute() as context, self._lending(logits):
            check(how(context, request.prompts, ctypes.byref(request.params)))
            self._logits[number.value] = logits
            self._top[number.value] = params.top_log_probs

    def remove_sequence(self, sequence: int) -> None:
        """Removes a sequence, finished or not; read its text before. Its number may then be another's."""
        with self._compute() as context:
            check(c.library.esolm_sequence_remove(context, arguments.uint32(sequence, "sequence")))
            self._logits.pop(sequence, None)
            self._top.pop(sequence, None)

    def cached_tokens(self, sequence: int = 0) -> int:
        """How many tokens of a sequence have keys and values that the next steps need not compute. Before the first step of
        one that was added: those that came from another sequence."""
        count = ctypes.c_size_t()
        number = arguments.uint32(sequence, "sequence")
        with self._compute() as context:
            check(c.library.esolm_sequence_cached_tokens(context, number, ctypes.byref(count)))
        return count.value

    def tokens(self, sequence: int = 0) -> list[int]:
        """The tokens of a sequence by position, the model's mask token where none is written yet."""
        return self._copied(c.library.esolm_copy_tokens, sequence)

    def order(self, sequence: int = 0) -> list[int]:
        """The order in which the positions of a sequence are generated, the known ones first, as ``score_order`` takes it; while a
        window slides, those that are final."""
        return self._copied(c.library.esolm_copy_order, sequence)

    def _copied(self, copy: Callable[..., int], sequence: int) -> list[int]:
        number = arguments.uint32(sequence, "sequence")
        with self._handle.use() as context:
            numbers: list[int] = arguments.filled(ctypes.c_uint32, 128, lambda *to: copy(context, number, *to))
        return numbers

    def text(self, sequence: int = 0) -> str:
        """The text of a sequence up to the first token that is unknown, or to what ended it."""
        number = arguments.uint32(sequence, "sequence")
        with self._handle.use() as context:
            return arguments.filled_text(512, lambda *to: c.library.esolm_copy_text(context, number, *to))

    def stop_reason(self, sequence: int = 0) -> StopReason:
        """Why the text of a sequence ended."""
        reason = ctypes.c_int32()
        number = arguments.uint32(sequence, "sequence")
        with self._handle.use() as context:
            check(c.library.esolm_stop_reason(context, number, ctypes.byref(reason)))
        return StopReason(reason.value)

    def profile(self) -> Profile:
        """How the time of the generation's steps was spent."""
        made = arguments.struct(c.esolm_profile)
        with self._handle.use() as context:
            check(c.library.esolm_context_profile(context, ctypes.byref(made)))
        return Profile(made.blocks, made.attention, made.vocabulary, made.sampling, made.rest)

    def logits(self, positions: Iterable[int], sequence: int = 0) -> list[array[float]]:
        """The network's logits at positions of a sequence that are not written yet, an array of the vocabulary's size for each
        (``numpy.asarray`` takes it without a copy): as if the position were the next and only one of a step. It changes
        nothing of the generation."""
        return self._evaluated(c.library.esolm_evaluate_logits, positions, sequence)

    def probabilities(self, positions: Iterable[int], sequence: int = 0) -> list[array[float]]:
        """The same as the probabilities that the token would be drawn with: after constraints, temperature and filters."""
        return self._evaluated(c.library.esolm_evaluate_probabilities, positions, sequence)

    def _evaluated(self, evaluate: Callable[..., int], positions: Iterable[int], sequence: int) -> list[array[float]]:
        at, number = arguments.uint32s(positions, "positions"), arguments.uint32(sequence, "sequence")
        if len(at) == 0:
            return []
        count = ctypes.c_size_t()
        with self._compute() as context:
            status = evaluate(context, number, at, len(at), None, 0, ctypes.byref(count))
            if status != c.ESOLM_ERR_BUFFER_TOO_SMALL:
                check(status)
            numbers = (ctypes.c_float * count.value)()
            check(evaluate(context, number, at, len(at), numbers, len(numbers), ctypes.byref(count)))
        whole, width = memoryview(numbers).cast("B").cast("f"), len(numbers) // len(at)
        return [array("f", whole[row * width : (row + 1) * width]) for row in range(len(at))]

    def save(self) -> bytes:
        """The state of the generation, for ``restore``: tokens, order, keys and values, but not the remaining steps."""
        with self._compute() as context:
            state: bytes = arguments.filled(ctypes.c_char, 0, lambda *to: c.library.esolm_state_save(context, *to))
        return state

    def restore(self, state: bytes | bytearray | memoryview) -> None:
        """Replaces the current generation by a saved one, which has no steps left; ``extend`` continues it. A state of another
        model or a damaged one raises ``BadFileError``."""
        data = arguments.data(state, "state")
        with self._compute() as context:
            check(c.library.esolm_state_restore(context, data, len(data)))
            self._forget()

    def save_sequence(self, sequence: int) -> bytes:
        """The state of one sequence, for ``restore_sequence`` of this context or another: such as a conversation that waits for its
        next message while others have its place. The others are not disturbed."""
        number = arguments.uint32(sequence, "sequence")
        with self._compute() as context:
            state: bytes = arguments.filled(ctypes.c_char, 0, lambda *to: c.library.esolm_sequence_save(context, number, *to))
        return state

    def restore_sequence(self, state: bytes | bytearray | memoryview) -> int:
        """Adds a saved sequence, which has no steps left, and returns its number; ``extend_sequence`` and ``append_sequence`` go on
        with it. The others are not disturbed."""
        data = arguments.data(state, "state")
        number = ctypes.c_uint32()
        with self._compute() as context:
            check(c.library.esolm_sequence_restore(context, data, len(data), ctypes.byref(number)))
            self._logits.pop(number.value, None)
            self._top.pop(number.value, None)
        return number.value

    def score_text(self, tokens: Iterable[int], params: ScoreParams | None = None) -> TextScore:
        """Scores a text of any length. It is cut into windows of the context's length, which are scored independently. The
        context's generation is discarded."""
        with self._compute() as context:
            score = score_text(context, tokens, params or ScoreParams())
            self._forget()
        return score

    def score(self, tokens: Iterable[int]) -> list[float]:
        """The log-probability (natural logarithm) of each token, given those to its left. The context's generation is
        discarded."""
        return self.score_text(tokens).log_probs or []

    def score_order(self, tokens: Iterable[int], order: Iterable[int] | None = None, known: int = 0) -> list[float]:
        """The log-probability of each token given all tokens before it in an order, as when generating one token per step. The
        first ``known`` tokens of the order are given, and not scored. ``tokens`` is a text of at most the context's length;
        ``order`` contains each position once, None is left to right. The context's generation is discarded."""
        return self._scores(c.library.esolm_score_order, tokens, order, known)

    def score_masked(self, tokens: Iterable[int], order: Iterable[int] | None = None, known: int = 0) -> list[float]:
        """As ``score_order``, but every token is predicted from the known ones alone, as in one step of diffusion."""
        return self._scores(c.library.esolm_score_masked, tokens, order, known)

    def _scores(
        self, function: Callable[..., int], tokens: Iterable[int], order: Iterable[int] | None, known: int
    ) -> list[float]:
        with self._compute() as context:
            log_probs = scores(function, context, tokens, order, known)
            self._forget()
        return log_probs
