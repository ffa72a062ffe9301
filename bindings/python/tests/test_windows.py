"""Models that fill several places in a step: WeDLM its window that slides, BD3-LM its blocks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import esolm
from esolm import Confidence, GenerateParams, Prompt

PARAMS = GenerateParams(seed=7, ignore_eos=True)
CERTAIN = replace(PARAMS, confidence=Confidence.ENTROPY, window=4, threshold=100)


@pytest.fixture
def wedlm(source: Path) -> Iterator[esolm.Model]:
    with esolm.Model.open(source / "fuzz/seeds/gguf/wedlm") as opened:
        yield opened


@pytest.fixture
def bd3lm(source: Path) -> Iterator[esolm.Model]:
    with esolm.Model.open(source / "fuzz/seeds/gguf/bd3lm") as opened:
        yield opened


def fills(model: esolm.Model, params: GenerateParams) -> tuple[list[int], list[int]]:
    """How many places each step of a generation fills, which are all but the first two, and the tokens."""
    with esolm.Context(model, esolm.ContextOptions(length=16, threads=1)) as context:
        counts = [len(step.updates) for step in context.steps([Prompt([5, 6])], params)]
        tokens = context.tokens()
        assert context.stop_reason() == esolm.StopReason.LENGTH
        assert context.cached_tokens() <= 16
    assert (sum(counts), len(tokens), tokens[:2]) == (14, 16, [5, 6])
    assert max(tokens) < model.info.vocab_size and model.info.mask_token not in tokens
    return counts, tokens


def test_windows(wedlm: esolm.Model) -> None:
    own = fills(wedlm, PARAMS)
    assert own == fills(wedlm, PARAMS)
    assert fills(wedlm, CERTAIN)[0] == [4, 4, 4, 2]
    assert fills(wedlm, replace(CERTAIN, threshold=0))[0] == [1] * 14
    assert len(fills(wedlm, replace(CERTAIN, window=esolm.WINDOW_AUTO))[0]) < 14
    with esolm.Context(wedlm, esolm.ContextOptions(length=16)) as context:
        rows = context.measure_pass_overhead()
        assert 0 < rows <= 256
        context.set_pass_overhead(rows)
        with pytest.raises(ValueError, match="rows"):
            context.set_pass_overhead(-1)
    # A window without a confidence is WeDLM's; a threshold without one is none's.
    spelled = replace(PARAMS, confidence=Confidence.ENTROPY, window=2, threshold=0.4, penalty=0.02, in_order=True)
    assert fills(wedlm, replace(PARAMS, window=2)) == fills(wedlm, spelled)
    with pytest.raises(ValueError, match="take a confidence"):
        fills(wedlm, replace(spelled, confidence=Confidence.NONE))


def test_blocks(bd3lm: esolm.Model) -> None:
    own = fills(bd3lm, PARAMS)
    assert own == fills(bd3lm, PARAMS)
    assert own[0] == [1] * 14
    assert len(fills(bd3lm, replace(PARAMS, steps=2))[0]) <= 8  # two of each block
    assert fills(bd3lm, replace(PARAMS, schedule=[4]))[0] == [2, 4, 4, 4]
