"""Conversations: the template that makes one text of their messages."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import arguments, c
from .errors import InvalidArgumentError

#: A message: ``{"role": "user", "content": "Hello"}``, as OpenAI's API and transformers have it.
Message = Mapping[str, str]


@dataclass
class ChatOptions:
    """How the messages of a conversation become one text."""

    #: None is the template of the model's file, "chatml" the format of Qwen and others, anything else a template in Jinja.
    template: str | None = None
    #: How many of the messages a sequence has already, the last of them being the answer that the model wrote there:
    #: ``Model.chat_tokens`` makes tokens of what follows. 0 is of all.
    behind: int = 0
    #: Whether ``Model.chat_text`` goes on to where the model's next answer begins.
    add_generation_prompt: bool = True
    #: More that the template is to know, such as ``{"enable_thinking": False}`` for Qwen3's, or ``tools``: as the keyword
    #: arguments of transformers' ``apply_chat_template``.
    template_kwargs: Mapping[str, Any] | None = None

    def _c(self) -> c.esolm_chat_params:
        params = arguments.initialised(c.esolm_chat_params, c.library.esolm_chat_params_init)
        params.chat_template = arguments.optional_text(self.template, "template")
        params.behind = arguments.size(self.behind, "behind")
        params.add_generation_prompt = self.add_generation_prompt
        params.chat_template_kwargs = arguments.optional_text(self._kwargs(), "template_kwargs")
        return params

    def _kwargs(self) -> str | None:
        if self.template_kwargs is None:
            return None
        try:
            return json.dumps(dict(self.template_kwargs))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"'template_kwargs' cannot be written as JSON: {error}") from None


def messages_for_c(messages: Iterable[Message]) -> Any:
    """An array of C, which keeps the texts."""
    own = [
        c.esolm_message(role=arguments.text(message["role"], "role"), content=arguments.text(message["content"], "content"))
        for message in messages
    ]
    return (c.esolm_message * len(own))(*own)


def params_for_c(options: ChatOptions | None) -> Any:
    return ctypes.byref((options or ChatOptions())._c())
