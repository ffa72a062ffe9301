"""Writes expected.json: what Jinja makes of the templates here, set up as transformers' apply_chat_template does (jinja2 3.1.6).

qwen2, qwen2.5 and qwen3 are as Qwen published them (Apache-2.0), the last two with a shorter text about tools.
"""

import json
import pathlib

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = pathlib.Path(__file__).parent


def refuse(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = refuse


def message(role, content):
    return {"role": role, "content": content}


conversations = [
    [message("user", "Hello")],
    [message("system", " Be brief. "), message("user", "What is a cat?\n")],
    [message("user", "a b c d"), message("assistant", "<think>\nhm\n</think>\n\nAn answer. "), message("user", "Und tschüß 🦊?")],
    [message("system", "S"), message("user", ""), message("assistant", "x"), message("user", "it's \"q\" <b>")],
    [message("user", "one"), message("user", "two")],
    [message("assistant", "I begin"), message("user", "no")],
    [message("user", "say"), message("assistant", "it")],
    [message("user", "<tool_response>\n1\n</tool_response>"), message("other", "who")],
    [message("user", str(n)) if n % 2 == 0 else message("assistant", f"<think>{n}</think>{n}") for n in range(9)],
]

weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "It's \"now\" in Köln <b>\n",
        "parameters": {
            "type": "object",
            "required": ["where"],
            "properties": {"where": {"type": "string", "enum": []}, "days": {"default": 1.5, "minimum": -3, "nullable": None}},
            "additionalProperties": False,
        },
    },
}
# Variables that callers give.
given = [
    {"enable_thinking": False},
    {"enable_thinking": True, "other": [1, 1e30, {}]},
    {"tools": [weather, {"b": 2, "a": 9223372036854775807}], "documents": []},
]

cases = []
for path in sorted(here.glob("*.jinja")):
    template = environment.from_string(path.read_text())
    asked = [(conversation, prompt, {}) for conversation in conversations for prompt in (False, True)]
    asked += [(conversation, True, kwargs) for conversation in conversations[:3] for kwargs in given]
    for conversation, prompt, kwargs in asked:
        known = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>", **kwargs}
        try:
            result = {"text": template.render(messages=conversation, add_generation_prompt=prompt, **known)}
        except TemplateError as error:
            result = {"refused": str(error)}
        if kwargs:
            result["kwargs"] = json.dumps(kwargs)  # In this order.
        cases.append({"template": path.name, "messages": conversation, "prompt": prompt, **result})
(here / "expected.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")
print(len(cases), "cases")
