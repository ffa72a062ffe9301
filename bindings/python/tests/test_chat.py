"""Conversations."""

from __future__ import annotations

import esolm
import pytest
from esolm import ChatOptions

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "So?"},
]
CHATML = ChatOptions("chatml")


def test_a_model_without_a_template_says_so(model: esolm.Model) -> None:
    with pytest.raises(esolm.UnsupportedError, match="chat template"):
        model.chat_text(MESSAGES)


def test_conversations(model: esolm.Model) -> None:
    try:
        text = model.chat_text(MESSAGES[:1], CHATML)
    except esolm.UnsupportedError as error:
        assert "feature 'chat'" in str(error)
        pytest.skip("chat templates: not in this build")
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert model.chat_text(MESSAGES[:1], ChatOptions("chatml", add_generation_prompt=False)) == "<|im_start|>user\nHi<|im_end|>\n"
    assert model.chat_answer_end(CHATML) == "<|im_end|>"
    tokens, behind = model.chat_tokens(MESSAGES, CHATML), model.chat_tokens(MESSAGES, ChatOptions("chatml", behind=2))
    assert len(behind) < len(tokens) and tokens[-4:] == behind[-4:]
    told = ChatOptions("{{ think }} {{ tools|tojson }}", template_kwargs={"think": False, "tools": [{"b": "ü<", "a": 1.5}]})
    assert model.chat_text(MESSAGES, told) == 'False [{"b": "ü<", "a": 1.5}]'
    with pytest.raises(esolm.InvalidArgumentError, match="'messages' is not to be given"):
        model.chat_text(MESSAGES, ChatOptions("chatml", template_kwargs={"messages": []}))
    with pytest.raises(esolm.InvalidArgumentError, match="variables"):
        model.chat_text(MESSAGES, ChatOptions("chatml", template_kwargs={"a": float("nan")}))
    circular: dict[str, object] = {}
    circular["a"] = circular
    for kwargs in ({"a": object()}, circular, {"a": "\ud800"}, {"a": {1, 2}}):
        with pytest.raises(esolm.InvalidArgumentError):
            model.chat_text(MESSAGES, ChatOptions("chatml", template_kwargs=kwargs))
    for wrong in (ChatOptions("chatml", behind=4), ChatOptions("{% if %}"), ChatOptions("a\0")):
        with pytest.raises(esolm.InvalidArgumentError if "\0" not in (wrong.template or "") else Exception):
            model.chat_tokens(MESSAGES, wrong)
