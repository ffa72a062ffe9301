"""Each filter, each penalty and each grammar reaches the sampler, and is refused out of range."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

import esolm
from esolm import Constraints, Dry, GenerateParams, Prompt

LENGTH = 32
FAVOURITE = 30
#: One token after the other, drawn from all of them.
UNFILTERED = GenerateParams(seed=7, alpha_0=0, temperature=1, top_p=1, ignore_eos=True)


@pytest.fixture
def short(model: esolm.Model) -> Iterator[esolm.Context]:
    with esolm.Context(model, esolm.ContextOptions(length=LENGTH, threads=1)) as made:
        yield made


def written(context: esolm.Context, params: GenerateParams) -> list[int]:
    context.generate([Prompt()], params)
    return context.tokens()


def biased(rule: Constraints) -> GenerateParams:
    """Always the most likely token, one of which is by far the likeliest; penalties show in how often it is written all the
    same."""
    return replace(UNFILTERED, temperature=0, constraints=[replace(rule, bias={FAVOURITE: 1000})])


def test_seeds_and_steps(short: esolm.Context) -> None:
    plain = written(short, UNFILTERED)
    assert plain == written(short, UNFILTERED) != written(short, replace(UNFILTERED, seed=8))
    for steps in (4, 9):
        short.begin([Prompt()], GenerateParams(alpha_0=1, steps=steps))
        assert next(short.steps()).total <= steps
    counts = [len(step.updates) for step in short.steps([Prompt()], GenerateParams(alpha_0=1, schedule=[5, 3]))]
    assert counts == [5] + [3] * 9


@pytest.mark.parametrize(
    "name, value, wrong",
    [
        ("top_k", 5, -1),
        ("top_p", 0.5, 1.5),
        ("min_p", 0.5, 1.5),
        ("typical_p", 0.2, 0.0),
        ("top_n_sigma", 1.0, math.nan),
        ("temperature", 0.0, math.nan),
    ],
)
def test_filters(short: esolm.Context, name: str, value: float, wrong: float) -> None:
    def possible(params: GenerateParams) -> int:
        """How many tokens the first one is drawn from."""
        short.begin([Prompt()], params)
        return sum(probability > 0 for probability in short.probabilities([0])[0])

    filtered = replace(UNFILTERED, **{name: value})  # type: ignore[arg-type]
    assert 0 < possible(filtered) < possible(UNFILTERED) / 2
    assert written(short, filtered) != written(short, UNFILTERED)
    with pytest.raises(esolm.InvalidArgumentError, match=name):
        short.begin([Prompt()], replace(UNFILTERED, **{name: wrong}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule, times",
    [
        (Constraints(), LENGTH),
        (Constraints(frequency_penalty=300), 4),
        (Constraints(frequency_penalty=400), 3),
        (Constraints(presence_penalty=300), LENGTH),
        (Constraints(presence_penalty=2000), 1),
        (Constraints(banned=[FAVOURITE]), 0),
    ],
)
def test_penalties(short: esolm.Context, rule: Constraints, times: int) -> None:
    assert written(short, biased(rule)).count(FAVOURITE) == times


@pytest.mark.parametrize("name", ["repetition_penalty", "frequency_penalty", "presence_penalty"])
def test_a_strong_penalty_leaves_no_token_twice(short: esolm.Context, name: str) -> None:
    rules = [replace(Constraints(), **{name: value}) for value in (1e9, math.nan)]  # type: ignore[arg-type]
    tokens = written(short, replace(UNFILTERED, temperature=0, constraints=rules[:1]))
    assert len(set(tokens)) == len(tokens) == LENGTH
    with pytest.raises(esolm.InvalidArgumentError):
        short.begin([Prompt()], replace(UNFILTERED, constraints=rules[1:]))


@pytest.mark.parametrize(
    "dry, run",
    [
        (Dry(), LENGTH),
        (Dry(multiplier=1e6), 3),
        (Dry(multiplier=1e6, allowed_length=4), 5),
        (Dry(multiplier=600, base=2), 4),
        (Dry(multiplier=600, base=1), LENGTH),
        (Dry(multiplier=1e6, allowed_length=3, range=2), LENGTH),  # two are too few to be a repetition
        (Dry(multiplier=1e6, breakers=[FAVOURITE]), LENGTH),
    ],
)
def test_dry(short: esolm.Context, dry: Dry, run: int) -> None:
    tokens = written(short, biased(Constraints(dry=dry)))
    others = [position for position, token in enumerate(tokens) if token != FAVOURITE]
    assert (others or [LENGTH])[0] == run


def test_dry_is_checked(short: esolm.Context, model: esolm.Model) -> None:
    for wrong in (Dry(multiplier=-1), Dry(1, base=0.5), Dry(1, breakers=[model.info.mask_token]), Dry(1, range=-1)):
        with pytest.raises(esolm.InvalidArgumentError):
            short.begin([Prompt()], biased(Constraints(dry=wrong)))


@pytest.mark.parametrize(
    "rule, wrong, pattern",
    [
        (Constraints(regex="[ab]{3}c"), Constraints(regex="("), "[ab]{3}c"),
        (Constraints(json_schema='{"enum": ["cat", "dog"]}'), Constraints(json_schema="{"), '"(cat|dog)"'),
    ],
)
def test_grammars_one_by_one(
    short: esolm.Context, model: esolm.Model, rule: Constraints, wrong: Constraints, pattern: str
) -> None:
    params = replace(UNFILTERED, constraints=[rule])
    if not model.supports(esolm.Feature.GRAMMAR):
        with pytest.raises(esolm.UnsupportedError, match="grammar"):
            short.generate([Prompt()], params)
        return
    short.generate([Prompt()], params)
    assert re.fullmatch(pattern, short.text())
    with pytest.raises(esolm.InvalidArgumentError):
        short.begin([Prompt()], replace(params, constraints=[wrong]))


def test_one_grammar_at_a_time(short: esolm.Context) -> None:
    both = Constraints(regex="a", json_schema="{}")
    with pytest.raises(esolm.InvalidArgumentError):
        short.begin([Prompt()], replace(UNFILTERED, constraints=[both]))
