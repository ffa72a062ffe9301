"""The declarations for ctypes against ffi-tests/abi, which has what a C compiler makes of the header."""

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import esolm
from esolm import arguments, c
from esolm.c import constants, functions, structs
from esolm.callbacks import Caught
from esolm.request import Request
from esolm.score import score_params

PLAIN = {
    "size_t": ctypes.c_size_t,
    "uint64_t": ctypes.c_uint64,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "uint8_t": ctypes.c_uint8,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "esolm_status": ctypes.c_int32,
    "void": None,
}
# Functions that have no counterpart, and what only they take.
LEFT_OUT = {
    "esolm_generate",
    "esolm_context_new_in",
    "esolm_context_arena_size",
    "esolm_model_retain",
    "esolm_tokenize",
    "esolm_tokenize_template",
}
LEFT_OUT_TYPES = {"esolm_step_callback"}


@pytest.fixture(scope="module")
def record(source: Path) -> list[str]:
    return (source / f"ffi-tests/abi/esolm-{c.ESOLM_ABI_VERSION}.abi").read_text().splitlines()


def matches(record: list[str], pattern: str) -> Iterator[Any]:
    found = [match for match in (re.fullmatch(pattern, line) for line in record) if match]
    assert found
    return iter(found)


def of_c(declared: str) -> Any:
    """The type of ctypes for one of C."""
    kind: Any
    name, stars = re.sub(r"\bconst\b|[* ]", "", declared), declared.count("*")
    if name in PLAIN and stars == 0:
        return PLAIN[name]
    if name == "void":
        stars, kind = stars - 1, ctypes.c_void_p
    elif name == "char":
        stars, kind = stars - 1, ctypes.c_char_p
    elif name in PLAIN:
        kind = PLAIN[name]
    elif hasattr(structs, name):
        kind = getattr(structs, name)
    else:  # of unknown content
        stars, kind = stars - 1, ctypes.c_void_p
    for _ in range(stars):
        kind = ctypes.POINTER(kind)
    return kind


def arguments_of_c(listed: str) -> list[Any]:
    listed = "" if listed == "void" else listed
    return [of_c(re.sub(r"\w+$", "", argument.strip())) for argument in listed.split(",") if argument]


def test_constants(record: list[str]) -> None:
    for match in matches(record, r"define (\w+) (\S+)"):
        if match[1] != "ESOLM_ARENA_ALIGNMENT":  # of esolm_context_new_in
            assert getattr(constants, match[1]) == float(match[2]), match[1]


def test_structs(record: list[str]) -> None:
    fields: dict[str, list[str]] = {}
    for match in matches(record, r"field (\w+)\.(\w+) at (\d+) size (\d+): .*"):
        field = getattr(getattr(structs, match[1]), match[2])
        assert (field.offset, field.size) == (int(match[3]), int(match[4])), match[0]
        fields.setdefault(match[1], []).append(match[2])
    for match in matches(record, r"struct (\w+) size (\d+) align (\d+).*"):
        struct = getattr(structs, match[1])
        assert (ctypes.sizeof(struct), ctypes.alignment(struct)) == (int(match[2]), int(match[3])), match[1]
        assert [name for name, _ in struct._fields_] == fields[match[1]]


def test_types_of_fields(record: list[str]) -> None:
    for match in matches(record, r"field (\w+)\.(\w+) at .*: (.*[ *])\w+"):
        kind = dict(getattr(structs, match[1])._fields_)[match[2]]
        if match[0].startswith("field esolm_step_text.text "):
            assert kind is ctypes.c_void_p
        else:
            assert kind == of_c(match[3]), match[0]


def test_functions(record: list[str]) -> None:
    seen = set()
    for match in matches(record, r"(?!typedef)(.*[ *])(esolm_\w+)\((.*)\);"):
        seen.add(match[2])
        if match[2] in LEFT_OUT:
            assert match[2] not in functions.FUNCTIONS
            continue
        result, taken = functions.FUNCTIONS[match[2]]
        assert (result, taken) == (of_c(match[1]), arguments_of_c(match[3])), match[0]
    assert seen == functions.FUNCTIONS.keys() | LEFT_OUT


def test_callbacks(record: list[str]) -> None:
    for match in matches(record, r"typedef (.*)\(\*(\w+)\)\((.*)\);"):
        if match[2] not in LEFT_OUT_TYPES:
            kind = getattr(structs, match[2])
            assert (kind._restype_, list(kind._argtypes_)) == (of_c(match[1]), arguments_of_c(match[3])), match[0]


def test_defaults_are_the_library_s() -> None:
    def same(made: ctypes.Structure, init: Any) -> None:
        assert bytes(made) == bytes(arguments.initialised(type(made), init)), type(made)

    same(Request([], esolm.GenerateParams(), None).params, c.library.esolm_generate_params_init)
    same(score_params(esolm.ScoreParams()), c.library.esolm_score_params_init)
    with esolm.ContextOptions()._c() as params:
        same(params, c.library.esolm_context_params_init)
    opened = esolm.ModelOptions()._c(Caught())
    opened.progress_callback = c.esolm_progress_callback()  # there always is one
    same(opened, c.library.esolm_model_params_init)
    assert arguments.initialised(c.esolm_pool_params, c.library.esolm_pool_params_init).poll == esolm.PoolOptions().poll
