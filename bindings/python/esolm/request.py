"""What to generate."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import arguments, c
from .callbacks import LogitsCallback
from .errors import Code, InvalidArgumentError


class Order(Code):
    """The order in which positions are generated; esolm.h explains them."""

    RANDOM = c.ESOLM_ORDER_RANDOM
    LEFT_TO_RIGHT = c.ESOLM_ORDER_LEFT_TO_RIGHT
    STRIDED = c.ESOLM_ORDER_STRIDED
    STRIDED_SHUFFLED = c.ESOLM_ORDER_STRIDED_SHUFFLED
    BLOCKS = c.ESOLM_ORDER_BLOCKS
    CUSTOM = c.ESOLM_ORDER_CUSTOM


class Confidence(Code):
    """A measure of how certain the model is of a token; esolm.h explains them."""

    NONE = c.ESOLM_CONFIDENCE_NONE
    PROBABILITY = c.ESOLM_CONFIDENCE_PROBABILITY
    MARGIN = c.ESOLM_CONFIDENCE_MARGIN
    ENTROPY = c.ESOLM_CONFIDENCE_ENTROPY


#: For ``GenerateParams.alpha_0``: 1 if a confidence, a window or an order other than left to right is given, or if the model
#: does nothing else; otherwise what the model's file says, or 0, which writes the best text, and which a grammar takes. With steps
#: or a schedule it is 1 where it would be 0.
ALPHA_0_AUTO = c.ESOLM_ALPHA_0_AUTO
#: What the model's file says (esolm.default.temperature and so on), or the library's default.
AUTO = c.ESOLM_AUTO
#: The same for ``GenerateParams.top_k``.
TOP_K_AUTO = c.ESOLM_TOP_K_AUTO
#: For ``GenerateParams.lookahead``: as many as pay.
LOOKAHEAD_AUTO = c.ESOLM_LOOKAHEAD_AUTO
#: For ``GenerateParams.window``, with ``in_order`` or WeDLM: as many positions as pay, by those filled so far.
WINDOW_AUTO = c.ESOLM_WINDOW_AUTO


@dataclass
class Prompt:
    """The known tokens of a sequence and their positions; None is 0, 1, 2 and so on."""

    tokens: Sequence[int] = ()
    positions: Sequence[int] | None = None


@dataclass
class Dry:
    """A penalty ("don't repeat yourself"): if the last n tokens directly left of a position, n at least ``allowed_length``,
    occur earlier, too, the logit of the token that followed there is lowered by multiplier * base^(n - allowed_length)."""

    #: 0 is off.
    multiplier: float = 0.0
    #: 0 is 1.75.
    base: float = 0.0
    #: 0 is 2.
    allowed_length: int = 0
    #: How many tokens left of a position are looked at; 0 is all.
    range: int = 0
    #: Tokens that end a repetition.
    breakers: Sequence[int] = ()


@dataclass
class Constraints:
    """Rules for the tokens of a sequence; the default is no rule."""

    #: By position, the tokens that are allowed there.
    allowed: Mapping[int, Sequence[int]] = field(default_factory=dict)
    #: Tokens that are never written.
    banned: Sequence[int] = ()
    #: By token, a number that is added to its logit.
    bias: Mapping[int, float] = field(default_factory=dict)
    #: Above 1 makes tokens that are already in the text less likely; 0 is off.
    repetition_penalty: float = 0.0
    #: Subtracted from a token's logit for each time that it is in the text.
    frequency_penalty: float = 0.0
    #: Subtracted from the logit of a token that is in the text.
    presence_penalty: float = 0.0
    #: Makes tokens less likely that would lengthen a repeated run.
    dry: Dry = field(default_factory=Dry)
    #: A regular expression that the written text must match: one hole, or all that follows the prompt, from left to right and
    #: one token per step. A library without the feature "grammar" raises ``UnsupportedError``.
    regex: str | None = None
    #: The same with a JSON schema.
    json_schema: str | None = None


@dataclass
class GenerateParams:
    """The parameters of a generation."""

    #: Tokens of a sequence, the prompt's included; 0 is the context's length.
    length: int = 0
    #: Most tokens behind the prompt; 0 is no limit but the length.
    max_tokens: int = 0
    #: Steps of the diffusion phase; 0: what the file says, or 128.
    steps: int = 0
    #: The same seed gives the same text.
    seed: int = 0
    #: Share of the tokens that diffusion writes, 0 to 1.
    alpha_0: float = ALPHA_0_AUTO
    #: Divides the logits; 0 takes the most likely token.
    temperature: float = AUTO
    #: 1 is no limit.
    top_p: float = AUTO
    #: 0 is no limit.
    top_k: int = TOP_K_AUTO
    #: Leaves out tokens less likely than this times the most likely one; 0 is no limit.
    min_p: float = AUTO
    #: Locally typical sampling; 1 is no limit.
    typical_p: float = AUTO
    #: Leaves out logits more than this many standard deviations below the largest; 0 is no limit.
    top_n_sigma: float = AUTO
    order: Order = Order.RANDOM
    #: The stride or the block's size.
    order_size: int = 0
    #: For ``Order.CUSTOM``: every position once.
    custom_order: Sequence[int] = ()
    #: Tokens of each diffusion step, the last number repeated; empty is the model's schedule.
    schedule: Sequence[int] = ()
    #: None, one for all sequences, or one for each.
    constraints: Sequence[Constraints | None] = ()
    #: Reads and may change the logits of every token.
    logits: LogitsCallback | None = None
    #: Sets ``Step.log_probs``.
    log_probs: bool = False
    #: How many of the most likely tokens ``Step.top_log_probs`` has for each update.
    top_log_probs: int = 0
    #: Adaptive steps, which write the tokens the model is certain of: needs alpha_0 = 1 and no schedule.
    confidence: Confidence = Confidence.NONE
    #: Positions that an adaptive step considers; without ``confidence`` they slide by WeDLM's rule.
    window: int = 0
    #: The confidence from which on an adaptive step writes a token (entropy: at most).
    threshold: float = 0.0
    #: What ``confidence`` loses for each position behind the first that a step considers; 0 is off.
    penalty: float = 0.0
    #: The window slides from left to right, as WeDLM's always does; Eso-LM (B) can.
    in_order: bool = False
    #: Tokens that a step proposes where it writes one: the same distribution in fewer steps; 0 is off.
    lookahead: int = 0
    #: Tokens that end a text when the model writes them.
    stop_tokens: Sequence[int] = ()
    #: Texts that end a text when the model writes them; the text ends before them.
    stop_strings: Sequence[str] = ()
    #: The end-of-text token does not end a text.
    ignore_eos: bool = False
    #: Sets ``Step.texts``.
    step_text: bool = False


class Request:
    """Prompts and parameters in C, and the memory that they point to. C copies all of it in the call."""

    def __init__(self, prompts: Sequence[Prompt], params: GenerateParams, logits: Any) -> None:
        self._kept: list[Any] = []
        self.prompts = (c.esolm_prompt * len(prompts))(*[self._prompt(prompt) for prompt in prompts])
        self.params = self._params(params)
        if logits is not None:
            self.params.logits_callback = logits  # logits_user_data: it is a closure

    def _array(self, values: Iterable[int], name: str) -> tuple[Any, int]:
        """A pointer and a number of entries."""
        numbers = arguments.uint32s(values, name)
        self._kept.append(numbers)
        return arguments.pointer_to(numbers, ctypes.c_uint32), len(numbers)

    def _prompt(self, prompt: Prompt) -> c.esolm_prompt:
        made = c.esolm_prompt()
        made.tokens, made.count = self._array(prompt.tokens, "tokens")
        if prompt.positions is not None:
            made.positions, count = self._array(prompt.positions, "positions")
            if count != made.count:
                raise InvalidArgumentError("a prompt needs one position for each token")
        return made

    def _params(self, params: GenerateParams) -> c.esolm_generate_params:
        made = arguments.initialised(c.esolm_generate_params, c.library.esolm_generate_params_init)
        for name in ("length", "max_tokens", "steps", "order_size", "window"):
            setattr(made, name, arguments.size(getattr(params, name), name))
        for name in ("alpha_0", "temperature", "top_p", "min_p", "typical_p", "top_n_sigma", "threshold", "penalty"):
            setattr(made, name, getattr(params, name))
        for name in ("top_k", "top_log_probs", "lookahead"):
            setattr(made, name, arguments.uint32(getattr(params, name), name))
        made.seed = arguments.uint64(params.seed, "seed")
        made.order = arguments.int32(params.order, "order")
        made.confidence = arguments.int32(params.confidence, "confidence")
        made.log_probs, made.ignore_eos, made.step_text = params.log_probs, params.ignore_eos, params.step_text
        made.in_order = params.in_order
        made.custom_order, made.n_custom_order = self._array(params.custom_order, "custom_order")
        made.schedule, made.n_schedule = self._array(params.schedule, "schedule")
        made.stop_tokens, made.n_stop_tokens = self._array(params.stop_tokens, "stop_tokens")

        if isinstance(params.stop_strings, (str, bytes)):
            raise InvalidArgumentError("stop_strings is one text, not a list of them")
        stops = [arguments.text(stop, "a stop string") for stop in params.stop_strings]
        made.stop_strings = self._struct_array(ctypes.c_char_p, stops)
        made.n_stop_strings = len(stops)
        rules = [None if rule is None else ctypes.pointer(self._constraints(rule)) for rule in params.constraints]
        made.constraints = self._struct_array(ctypes.POINTER(c.esolm_constraints), rules)
        made.n_constraints = len(rules)
        return made

    def _struct_array(self, kind: Any, values: Sequence[Any]) -> Any:
        array = (kind * len(values))(*values)
        self._kept.append((array, values))
        return arguments.pointer_to(array, kind)

    def _constraints(self, rule: Constraints) -> c.esolm_constraints:
        made = arguments.struct(c.esolm_constraints)
        made.banned, made.n_banned = self._array(rule.banned, "banned")
        made.repetition_penalty = rule.repetition_penalty
        made.frequency_penalty = rule.frequency_penalty
        made.presence_penalty = rule.presence_penalty
        made.dry_multiplier, made.dry_base = rule.dry.multiplier, rule.dry.base
        made.dry_allowed_length = arguments.uint32(rule.dry.allowed_length, "dry.allowed_length")
        made.dry_range = arguments.uint32(rule.dry.range, "dry.range")
        made.dry_breakers, made.n_dry_breakers = self._array(rule.dry.breakers, "dry.breakers")
        made.regex = arguments.optional_text(rule.regex, "regex")
        made.json_schema = arguments.optional_text(rule.json_schema, "json_schema")
        allowed = []
        for position, tokens in rule.allowed.items():
            at = c.esolm_allowed_tokens(position=arguments.uint32(position, "a position"))
            at.tokens, at.n_tokens = self._array(tokens, "allowed")
            allowed.append(at)
        made.allowed = self._struct_array(c.esolm_allowed_tokens, allowed)
        made.n_allowed = len(allowed)
        bias = [c.esolm_logit_bias(token=arguments.uint32(token, "a token"), bias=value) for token, value in rule.bias.items()]
        made.bias = self._struct_array(c.esolm_logit_bias, bias)
        made.n_bias = len(bias)
        return made
