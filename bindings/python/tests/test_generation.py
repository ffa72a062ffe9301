import math
import re
from pathlib import Path

import pytest

import esolm
from esolm import Confidence, GenerateParams, Order, Prompt


def test_steps(context: esolm.Context, prompt: esolm.Prompt) -> None:
    params = GenerateParams(seed=1, log_probs=True, top_log_probs=3, step_text=True)
    context.begin([prompt], params)
    said = context.text()
    steps = list(context.steps())
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[0].total >= len(steps)
    for step in steps:
        assert step.log_probs is not None and step.top_log_probs is not None and step.texts is not None
        assert len(step.log_probs) == len(step.top_log_probs) == len(step.updates)
        assert [len(entries) for entries in step.top_log_probs] == [3] * len(step.updates)
        for update, log_prob, entries in zip(step.updates, step.log_probs, step.top_log_probs):
            assert (update.sequence, log_prob <= 0) == (0, True)
            assert entries[0].log_prob >= entries[1].log_prob
            assert all(entry.token < 5000 for entry in entries)
        said += step.texts[0].text
    last = steps[-1].texts
    assert last is not None and last[0].stop_reason == context.stop_reason() != esolm.StopReason.NONE
    assert said == context.text()
    assert context.tokens()[: len(prompt.tokens)] == list(prompt.tokens)
    assert sorted(context.order()) == list(range(64))
    written = {update.position: update.token for step in steps for update in step.updates}
    assert all(context.tokens()[position] == token for position, token in written.items() if position < 20)
    profile = context.profile()
    assert min(profile.blocks, profile.attention, profile.vocabulary, profile.sampling, profile.rest) > 0
    assert list(context.steps()) == []


def test_steps_are_those_of_their_own_generation(context: esolm.Context, prompt: esolm.Prompt) -> None:
    old = context.steps([prompt], GenerateParams(seed=1))
    next(old)
    new = context.steps([prompt], GenerateParams(seed=2))
    assert list(old) == [] and len(list(new)) > 1


def test_plain_steps_have_no_extras(context: esolm.Context, prompt: esolm.Prompt) -> None:
    step = next(context.steps([prompt]))
    assert (step.log_probs, step.top_log_probs, step.texts, step.proposed, step.accepted) == (None, None, None, 0, 0)
    with pytest.raises(esolm.InvalidArgumentError):
        context.steps(None, GenerateParams())


def test_seeds(context: esolm.Context, prompt: esolm.Prompt) -> None:
    def text(seed: int) -> str:
        context.generate([prompt], GenerateParams(seed=seed))
        return context.text()

    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text(seed=2**64 - 1)
    with pytest.raises(esolm.InvalidArgumentError):
        text(seed=-1)
    with pytest.raises(esolm.InvalidArgumentError):
        text(seed=2**64)


def test_orders(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    mask = model.info.mask_token
    for params in (
        GenerateParams(order=Order.STRIDED, order_size=8),
        GenerateParams(order=Order.STRIDED_SHUFFLED, order_size=8),
        GenerateParams(order=Order.BLOCKS, order_size=16, schedule=[2]),
        GenerateParams(order=Order.CUSTOM, custom_order=list(reversed(range(64))), schedule=[8]),
        GenerateParams(order=Order.LEFT_TO_RIGHT, alpha_0=0.5, steps=8),
        GenerateParams(alpha_0=1, confidence=Confidence.PROBABILITY, window=16, threshold=0.5),
        GenerateParams(alpha_0=1, confidence=Confidence.ENTROPY, window=esolm.WINDOW_AUTO, threshold=2, in_order=True),
        GenerateParams(schedule=[1], alpha_0=1, lookahead=esolm.LOOKAHEAD_AUTO),
    ):
        steps = list(context.steps([prompt], params))
        assert mask not in context.tokens(), params
        if params.lookahead:
            assert 0 < sum(step.accepted for step in steps) <= sum(step.proposed for step in steps)
        if params.order == Order.CUSTOM:
            assert context.order()[-60:] == list(reversed(range(4, 64)))


def test_adaptive_steps(context: esolm.Context, prompt: esolm.Prompt) -> None:
    # Thresholds that every token meets, or none, and a penalty with which the first alone does.
    for confidence, threshold, penalty, count in (
        (Confidence.PROBABILITY, 0, 0, 8),
        (Confidence.PROBABILITY, 0, 2, 1),
        (Confidence.MARGIN, 0, 0, 8),
        (Confidence.MARGIN, 2, 0, 1),
        (Confidence.ENTROPY, 100, 0, 8),
        (Confidence.ENTROPY, 0, 0, 1),
    ):
        params = GenerateParams(alpha_0=1, confidence=confidence, window=8, threshold=threshold, penalty=penalty)
        assert len(next(iter(context.steps([prompt], params))).updates) == count, confidence


def test_templates(context: esolm.Context, model: esolm.Model) -> None:
    prompt, length = model.template("The king{{mask 8}} was happy.")
    context.generate([prompt], GenerateParams(length=length))
    assert context.text().startswith("The king") and context.text().endswith(" was happy.")


def test_sampling(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    params = GenerateParams(
        temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, typical_p=0.99, top_n_sigma=3.0, max_tokens=9, ignore_eos=True
    )
    context.generate([prompt], params)
    assert len(context.tokens()) == len(prompt.tokens) + 9
    assert context.stop_reason() == esolm.StopReason.LENGTH
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([prompt], GenerateParams(top_p=2))
    greedy = GenerateParams(temperature=0)
    context.generate([prompt], greedy)
    expected = context.text()
    context.generate([prompt], GenerateParams(top_k=1))
    assert context.text() == expected


def test_stop_rules(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(stop_strings=["was", "a"]))
    assert context.stop_reason() == esolm.StopReason.STRING
    assert not re.search("was|a", context.text().replace("Once upon a time", ""))
    (comma,) = model.tokenize(",")
    context.generate([prompt], GenerateParams(stop_tokens=[comma], temperature=0))
    assert context.stop_reason() == esolm.StopReason.TOKEN
    assert context.tokens()[-1] == comma
    with pytest.raises(esolm.InvalidArgumentError, match="NUL"):
        context.begin([prompt], GenerateParams(stop_strings=["a\0b"]))


# In the sequential phase of an Eso-LM, and of an autoregressive model.
@pytest.mark.parametrize("file", ["", "fuzz/seeds/gguf/ar"])
def test_end_of_text(path: str, source: Path, file: str) -> None:
    with esolm.Model.open(source / file if file else path) as model:
        with esolm.Context(model, esolm.ContextOptions(length=16, threads=1)) as context:
            eos = model.info.eos_token
            assert eos is not None
            # At one position nothing but that token is allowed.
            rules = [esolm.Constraints(allowed={9: [eos]})]
            params = GenerateParams(alpha_0=0, seed=7, ignore_eos=True, constraints=rules)
            assert len(list(context.steps([Prompt([5, 6])], params))) == 14
            whole = context.tokens()
            assert (len(whole), whole[9], context.stop_reason()) == (16, eos, esolm.StopReason.LENGTH)
            # The same tokens up to the first that is one, and no step behind it.
            end = whole.index(eos, 2)
            params.ignore_eos = False
            assert len(list(context.steps([Prompt([5, 6])], params))) == end + 1 - 2
            assert context.stop_reason() == esolm.StopReason.END_OF_TEXT
            assert context.tokens() == whole[: end + 1]
            # The text does not show it.
            assert context.text() == model.detokenize(whole[:end])


def test_constraints(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    comma, king = model.tokenize(",")[0], model.tokenize(" king")[0]
    rules = esolm.Constraints(
        allowed={4: [king, comma], 5: [king]},
        banned=[comma],
        bias={king: 2.0},
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        dry=esolm.Dry(multiplier=1, base=2, allowed_length=3, range=32, breakers=[comma]),
    )
    context.generate([prompt, prompt], GenerateParams(constraints=[rules, None], seed=3))
    assert context.tokens()[4:6] == [king, king]
    assert comma not in context.tokens()
    assert context.tokens(1)[4:6] != [king, king]
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([prompt], GenerateParams(constraints=[esolm.Constraints(allowed={5: []})]))
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([prompt], GenerateParams(constraints=[esolm.Constraints(banned=[-1])]))


def test_grammars(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    rules = esolm.Constraints(regex=" (cats|dogs){2}")
    schema = esolm.Constraints(json_schema='{"enum": ["cat", "dog"]}')
    if not model.supports(esolm.Feature.GRAMMAR):
        with pytest.raises(esolm.UnsupportedError):
            context.begin([prompt], GenerateParams(constraints=[rules]))
        return
    context.generate([prompt, Prompt()], GenerateParams(constraints=[rules, schema]))
    assert re.fullmatch("Once upon a time (cats|dogs){2}", context.text())
    assert context.text(1) in ('"cat"', '"dog"')


def test_prompts_are_checked(context: esolm.Context, prompt: esolm.Prompt) -> None:
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([Prompt([1, 2], [0])])
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([Prompt([1, 1 << 32])])
    with pytest.raises(esolm.InvalidArgumentError):
        context.begin([prompt] * 3)
    with pytest.raises(TypeError):
        context.begin([Prompt([1.5])])  # type: ignore[list-item]


def test_extend_and_states(context: esolm.Context, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(length=20, ignore_eos=True))
    begun = context.text()
    state = context.save()
    context.extend([Prompt()], GenerateParams(length=40, seed=2))
    list(context.steps())
    extended = context.text()
    assert extended.startswith(begun) and len(extended) > len(begun)
    context.reset()
    context.restore(state)
    assert context.text() == begun
    context.extend([Prompt()], GenerateParams(length=40, seed=2))
    list(context.steps())
    assert context.text() == extended
    with pytest.raises(esolm.BadFileError):
        context.restore(state[:-1])


def test_sequences(context: esolm.Context, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(seed=5))
    alone = context.text()
    context.reset()
    first = context.add_sequence(prompt, GenerateParams(seed=4, top_log_probs=1))
    context.step()
    second = context.add_sequence(prompt, GenerateParams(seed=5))
    assert context.cached_tokens(second) > 0
    with pytest.raises(esolm.InvalidArgumentError):
        context.add_sequence(prompt)
    for step in context.steps():
        assert step.top_log_probs is not None
        for update, entries in zip(step.updates, step.top_log_probs):
            assert len(entries) == (1 if update.sequence == first else 0)
    assert context.text(second) == alone
    context.remove_sequence(first)
    with pytest.raises(esolm.InvalidArgumentError):
        context.text(first)
    third = context.add_sequence(prompt, GenerateParams(length=10, ignore_eos=True))
    list(context.steps())
    context.extend_sequence(third, Prompt(), GenerateParams(length=20, seed=1, ignore_eos=True))
    list(context.steps())
    assert len(context.tokens(third)) == 20
    before = context.tokens(third)
    for keep in (None, 4):
        how = GenerateParams(max_tokens=3, seed=2, ignore_eos=True)
        context.append_sequence(third, Prompt([8, 9]), how, keep)
        list(context.steps())
        after, stays = context.tokens(third), len(before) if keep is None else keep
        assert after[:stays] == before[:stays] and after[stays : stays + 2] == [8, 9] and len(after) == stays + 5
        before = after
    state = context.save_sequence(third)
    context.remove_sequence(third)
    third = context.restore_sequence(state)
    assert context.tokens(third) == before and context.save_sequence(third) == state
    with pytest.raises(esolm.BadFileError):
        context.restore_sequence(state[:-1])
    with pytest.raises(esolm.InvalidArgumentError):
        context.append_sequence(9, Prompt())


def test_an_error_is_of_one_sequence(context: esolm.Context, prompt: esolm.Prompt) -> None:
    context.generate([prompt], GenerateParams(seed=5))
    alone = context.text()
    context.reset()

    def exclude(row: esolm.LogitsRow, logits: "memoryview[float]") -> None:
        for token in range(len(logits)):
            logits[token] = -math.inf

    other = context.add_sequence(prompt, GenerateParams(seed=5))
    failing = context.add_sequence(prompt, GenerateParams(logits=exclude))
    with pytest.raises(esolm.InvalidArgumentError):
        list(context.steps())
    assert context.stop_reason(failing) == esolm.StopReason.ERROR
    assert context.stop_reason(other) == esolm.StopReason.NONE
    context.remove_sequence(failing)
    list(context.steps())
    assert context.text(other) == alone


def test_a_long_prompt_joins_in_parts(model: esolm.Model) -> None:
    options = esolm.ContextOptions(sequences=2, batch_rows=32, prompt_rows=8, threads=1, ggml=True)
    with esolm.Context(model, options) as context:
        context.add_sequence(Prompt(), GenerateParams(schedule=[1]))
        context.step()
        joined = context.add_sequence(Prompt(model.tokenize("Once upon a time " * 8)))
        wrote = [any(update.sequence == joined for update in step.updates) for step in context.steps()]
        assert not any(wrote[:3]) and any(wrote)


def test_evaluating(context: esolm.Context, model: esolm.Model, prompt: esolm.Prompt) -> None:
    context.begin([prompt], GenerateParams(top_p=0.5))
    rows = context.logits([4, 6])
    assert [len(row) for row in rows] == [model.info.vocab_size] * 2
    assert rows[0] != rows[1]
    (likely,) = context.probabilities([4])
    assert sum(likely) == pytest.approx(1, abs=1e-5)
    assert likely.index(max(likely)) == rows[0].index(max(rows[0]))
    assert context.logits([]) == []
    with pytest.raises(esolm.InvalidArgumentError):
        context.logits([0])


def test_evaluations_are_arrays_for_numpy(context: esolm.Context, prompt: esolm.Prompt) -> None:
    numpy = pytest.importorskip("numpy")
    context.begin([prompt])
    rows = context.probabilities([4, 5])
    table = numpy.asarray(rows)
    assert table.shape == (2, len(rows[0])) and table.dtype == numpy.float32
    shared = numpy.asarray(rows[0])
    shared[0] = 7
    assert rows[0][0] == 7
    context.begin([Prompt(numpy.asarray([1, 2, 3], dtype=numpy.uint32))])
    assert context.tokens()[:3] == [1, 2, 3]


def test_scores(context: esolm.Context, model: esolm.Model) -> None:
    tokens = model.tokenize("Once upon a time there was a king.")
    each = context.score(tokens)
    seen: list[float] = []
    params = esolm.ScoreParams(draws=4, alpha_0=0.5, seed=1, progress=seen.append)
    score = context.score_text(tokens, params)
    assert score.log_probs == each
    assert score.nll == pytest.approx(-sum(each)) and score.scored_tokens == len(tokens)
    assert score.diffusion > 0 and score.sequential > 0 and score.diffusion_error > 0 and score.sequential_error > 0
    assert seen[-1] == 1
    assert context.score_text(tokens, esolm.ScoreParams(orders=2, random_order=True)).log_probs is None
    assert context.score_order(tokens) == pytest.approx(each, abs=1e-4)
    order = list(reversed(range(len(tokens))))
    assert len(context.score_order(tokens, order, known=2)) == len(tokens) - 2
    assert len(context.score_masked(tokens, known=3)) == len(tokens) - 3
    assert context.score_order(tokens, known=len(tokens)) == []
    for wrong in (-1, len(tokens) + 1):
        with pytest.raises(esolm.InvalidArgumentError):
            context.score_masked(tokens, known=wrong)
    with pytest.raises(esolm.InvalidArgumentError):
        context.score_order(tokens, [0])
    with pytest.raises(esolm.InvalidArgumentError):
        context.score([])
    with pytest.raises(esolm.InvalidArgumentError, match="neither orders nor draws"):
        context.score_text(tokens, esolm.ScoreParams(orders=0))
