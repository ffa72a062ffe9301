"""What a step did."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import arguments, c
from .errors import Code


class StopReason(Code):
    """Why a text ended; ``NONE`` while it is being written."""

    NONE = c.ESOLM_STOP_NONE
    LENGTH = c.ESOLM_STOP_LENGTH
    END_OF_TEXT = c.ESOLM_STOP_END_OF_TEXT
    TOKEN = c.ESOLM_STOP_TOKEN
    STRING = c.ESOLM_STOP_STRING
    CANCELLED = c.ESOLM_STOP_CANCELLED
    ERROR = c.ESOLM_STOP_ERROR


class Update(NamedTuple):
    """A token that a step wrote."""

    sequence: int
    position: int
    token: int


class TokenLogProb(NamedTuple):
    """A token and its log-probability under the model."""

    token: int
    log_prob: float


class StepText(NamedTuple):
    """The text of a sequence that became final in a step, in whole characters. The text after ``begin``, which is the
    prompt's, and these texts, one behind the other, are the text at the end."""

    text: str
    #: Why the text ended.
    stop_reason: StopReason


@dataclass(frozen=True)
class Step:
    """The result of a step."""

    index: int
    total: int
    updates: list[Update]
    #: Log-probabilities of the updates; None unless ``GenerateParams.log_probs`` is set.
    log_probs: list[float] | None
    #: The most likely tokens at the position of each update, the likeliest first; None unless
    #: ``GenerateParams.top_log_probs`` is set.
    top_log_probs: list[list[TokenLogProb]] | None
    #: The new text of each sequence; None unless ``GenerateParams.step_text`` is set.
    texts: list[StepText] | None
    #: How many tokens had been proposed for this step, and how many of them are among the updates:
    #: ``GenerateParams.lookahead``.
    proposed: int
    accepted: int


def step_of(context: int, info: Any, top: Mapping[int, int]) -> Step:
    """Copies the result of a step from C, an esolm_step_info. ``top`` says how many of the most likely tokens each sequence wants."""
    count = info.n_updates
    updates = [Update(at.sequence, at.position, at.token) for at in info.updates[:count]]
    return Step(
        index=info.index,
        total=info.total,
        updates=updates,
        log_probs=info.log_probs[:count] if info.log_probs else None,
        top_log_probs=_top_log_probs(context, updates, top) if any(top.values()) else None,
        texts=[_text(info.texts[at]) for at in range(info.n_texts)] if info.texts else None,
        proposed=info.n_proposed,
        accepted=info.n_accepted,
    )


def _text(text: Any) -> StepText:
    new = ctypes.string_at(text.text, text.len) if text.len else b""
    return StepText(new.decode("utf-8"), StopReason(text.stop_reason))


def _top_log_probs(context: int, updates: list[Update], top: Mapping[int, int]) -> list[list[TokenLogProb]]:
    """For each update as many as its sequence wants. C has as many as the sequence that wants the most."""
    found = []
    for number, update in enumerate(updates):
        wanted = top.get(update.sequence, 0)
        entries = (
            arguments.filled(
                c.esolm_token_log_prob,
                wanted,
                lambda *to, number=number: c.library.esolm_copy_top_log_probs(context, number, *to),
            )
            if wanted
            else []
        )
        found.append([TokenLogProb(entry.token, entry.log_prob) for entry in entries[:wanted]])
    return found
