"""How likely a text is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import arguments, c
from .callbacks import Caught, Progress, progress_callback
from .errors import InvalidArgumentError, check


@dataclass
class ScoreParams:
    """How to score a text."""

    #: Number of orders in which each window is scored; 0 for no NLL.
    orders: int = 1
    #: Random orders; otherwise there is one, left to right.
    random_order: bool = False
    #: Number of random times for each window's diffusion bound; 0 for no bound.
    draws: int = 0
    #: The share of diffusion in that bound.
    alpha_0: float = 1.0
    #: Of the random orders, times and masks.
    seed: int = 0
    #: Called after each window.
    progress: Progress | None = None


@dataclass(frozen=True)
class TextScore:
    """How likely a text is, in nats."""

    #: -log p(text) is at most this; 0 without orders.
    nll: float
    #: -log p(text) is at most diffusion + sequential; 0 without draws.
    diffusion: float
    #: Its standard error; NaN for one draw.
    diffusion_error: float
    #: What the sequential phase adds where alpha_0 is less than 1.
    sequential: float
    #: Its standard error; NaN for one draw.
    sequential_error: float
    #: How many tokens have a probability: the mean is nll / scored_tokens.
    scored_tokens: int
    #: Of each token, given those before it in the order; None unless ``ScoreParams.orders`` is 1.
    log_probs: list[float] | None


def score_params(params: ScoreParams) -> c.esolm_score_params:
    """The struct of C."""
    made = arguments.initialised(c.esolm_score_params, c.library.esolm_score_params_init)
    made.orders = arguments.size(params.orders, "orders")
    made.draws = arguments.size(params.draws, "draws")
    made.seed = arguments.uint64(params.seed, "seed")
    made.alpha_0 = params.alpha_0
    made.random_order = params.random_order
    return made


def score_text(context: int, tokens: Iterable[int], params: ScoreParams) -> TextScore:
    """``Context.score_text``."""
    numbers, made = arguments.uint32s(tokens, "tokens"), score_params(params)
    log_p = (ctypes.c_double * len(numbers))() if params.orders == 1 else None
    score = arguments.struct(c.esolm_text_score)
    caught = Caught()
    with caught:
        status = c.library.esolm_score_text(
            context,
            numbers,
            len(numbers),
            ctypes.byref(made),
            log_p,
            0 if log_p is None else len(log_p),
            ctypes.byref(score),
            progress_callback(caught, params.progress),
            None,
        )
        check(status)
    return TextScore(
        nll=score.nll,
        diffusion=score.diffusion,
        diffusion_error=score.diffusion_error,
        sequential=score.sequential,
        sequential_error=score.sequential_error,
        scored_tokens=score.scored_tokens,
        log_probs=None if log_p is None else log_p[:],
    )


def scores(
    function: Callable[..., int], context: int, tokens: Iterable[int], order: Iterable[int] | None, known: int
) -> list[float]:
    """``Context.score_order`` and ``Context.score_masked``."""
    numbers: Any = arguments.uint32s(tokens, "tokens")
    positions = None if order is None else arguments.uint32s(order, "order")
    if positions is not None and len(positions) != len(numbers):
        raise InvalidArgumentError("an order needs one position for each token")
    if not 0 <= known <= len(numbers):
        raise InvalidArgumentError("the number of known tokens is negative or larger than the text")
    log_p = (ctypes.c_double * (len(numbers) - known))()
    check(function(context, numbers, positions, len(numbers), known, log_p, len(log_p)))
    return log_p[:]
