"""The functions of esolm.h. Each call gives up the interpreter's lock while it runs (ctypes.CDLL)."""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from .constants import ESOLM_ABI_VERSION
from .structs import (
    esolm_chat_params,
    esolm_context_params,
    esolm_device_info,
    esolm_generate_params,
    esolm_log_callback,
    esolm_memory_use,
    esolm_message,
    esolm_model_info,
    esolm_model_params,
    esolm_model_reader,
    esolm_pool_params,
    esolm_profile,
    esolm_progress_callback,
    esolm_prompt,
    esolm_score_params,
    esolm_step_info,
    esolm_text_score,
    esolm_token_log_prob,
    esolm_tokenize_params,
)

# Name: result, arguments. tests/test_layout.py compares them with ffi-tests/abi.
# fmt: off
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "esolm_version": (c_char_p, []),
    "esolm_abi_version": (c_uint32, []),
    "esolm_system_info": (c_char_p, []),
    "esolm_last_error": (c_char_p, []),
    "esolm_status_text": (c_char_p, [c_int32]),
    "esolm_set_log_callback": (None, [esolm_log_callback, c_void_p]),
    "esolm_set_log_level": (c_int32, [c_int32]),
    "esolm_device_count": (c_int32, [POINTER(c_size_t)]),
    "esolm_device_info_get": (c_int32, [c_size_t, POINTER(esolm_device_info)]),
    "esolm_model_params_init": (c_int32, [POINTER(esolm_model_params), c_size_t]),
    "esolm_model_open": (c_int32, [c_char_p, POINTER(esolm_model_params), POINTER(c_void_p)]),
    "esolm_model_open_memory": (c_int32, [c_void_p, c_size_t, POINTER(esolm_model_params), POINTER(c_void_p)]),
    "esolm_model_free": (None, [c_void_p]),
    "esolm_model_info_get": (c_int32, [c_void_p, POINTER(esolm_model_info)]),
    "esolm_model_supports": (c_int32, [c_void_p, c_int32]),
    "esolm_model_open_reader": (c_int32, [POINTER(esolm_model_reader), POINTER(esolm_model_params), POINTER(c_void_p)]),
    "esolm_model_open_fd": (c_int32, [c_int32, c_uint64, c_uint64, POINTER(esolm_model_params), POINTER(c_void_p)]),
    "esolm_model_metadata_count": (c_int32, [c_void_p, POINTER(c_size_t)]),
    "esolm_model_metadata_key": (c_int32, [c_void_p, c_size_t, c_char_p, c_size_t, POINTER(c_size_t)]),
    "esolm_model_metadata_get": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t, POINTER(c_size_t)]),
    "esolm_tokenize_params_init": (c_int32, [POINTER(esolm_tokenize_params), c_size_t]),
    "esolm_tokenize_with_params": (
        c_int32,
        [
            c_void_p, c_char_p, c_size_t, POINTER(esolm_tokenize_params), POINTER(c_uint32), c_size_t, POINTER(c_size_t),
        ],
    ),
    "esolm_detokenize": (c_int32, [c_void_p, POINTER(c_uint32), c_size_t, c_char_p, c_size_t, POINTER(c_size_t)]),
    "esolm_tokenize_template_with_params": (
        c_int32,
        [
            c_void_p, c_char_p, c_size_t, POINTER(esolm_tokenize_params), POINTER(c_uint32), POINTER(c_uint32), c_size_t,
            POINTER(c_size_t), POINTER(c_size_t),
        ],
    ),
    "esolm_token_bytes": (c_int32, [c_void_p, c_uint32, POINTER(c_uint8), c_size_t, POINTER(c_size_t)]),
    "esolm_token_is_end": (c_int32, [c_void_p, c_uint32]),
    "esolm_token_is_special": (c_int32, [c_void_p, c_uint32]),
    "esolm_chat_params_init": (c_int32, [POINTER(esolm_chat_params), c_size_t]),
    "esolm_chat_apply": (
        c_int32,
        [
            c_void_p, POINTER(esolm_message), c_size_t, POINTER(esolm_chat_params), c_char_p, c_size_t, POINTER(c_size_t),
        ],
    ),
    "esolm_chat_tokenize": (
        c_int32,
        [
            c_void_p, POINTER(esolm_message), c_size_t, POINTER(esolm_chat_params), POINTER(c_uint32), c_size_t,
            POINTER(c_size_t),
        ],
    ),
    "esolm_chat_answer_end": (c_int32, [c_void_p, POINTER(esolm_chat_params), c_char_p, c_size_t, POINTER(c_size_t)]),
    "esolm_pool_params_init": (c_int32, [POINTER(esolm_pool_params), c_size_t]),
    "esolm_pool_new": (c_int32, [POINTER(esolm_pool_params), POINTER(c_void_p)]),
    "esolm_pool_threads": (c_size_t, [c_void_p]),
    "esolm_pool_free": (None, [c_void_p]),
    "esolm_context_params_init": (c_int32, [POINTER(esolm_context_params), c_size_t]),
    "esolm_context_new": (c_int32, [c_void_p, POINTER(esolm_context_params), POINTER(c_void_p)]),
    "esolm_context_set_threads": (c_int32, [c_void_p, c_size_t]),
    "esolm_context_threads": (c_int32, [c_void_p, POINTER(c_size_t)]),
    "esolm_context_measure_pass_overhead": (c_int32, [c_void_p, POINTER(c_float)]),
    "esolm_context_set_pass_overhead": (c_int32, [c_void_p, c_float]),
    "esolm_context_free": (None, [c_void_p]),
    "esolm_context_reset": (c_int32, [c_void_p]),
    "esolm_cancel": (c_int32, [c_void_p]),
    "esolm_cancel_reset": (c_int32, [c_void_p]),
    "esolm_context_memory_use": (c_int32, [c_void_p, POINTER(esolm_context_params), POINTER(esolm_memory_use)]),
    "esolm_memory_estimate": (
        c_int32,
        [
            c_char_p, POINTER(esolm_model_params), POINTER(esolm_context_params), POINTER(esolm_memory_use),
        ],
    ),
    "esolm_generate_params_init": (c_int32, [POINTER(esolm_generate_params), c_size_t]),
    "esolm_begin": (c_int32, [c_void_p, POINTER(esolm_prompt), c_size_t, POINTER(esolm_generate_params)]),
    "esolm_extend": (c_int32, [c_void_p, POINTER(esolm_prompt), c_size_t, POINTER(esolm_generate_params)]),
    "esolm_step": (c_int32, [c_void_p, POINTER(esolm_step_info), POINTER(c_int32)]),
    "esolm_copy_order": (c_int32, [c_void_p, c_uint32, POINTER(c_uint32), c_size_t, POINTER(c_size_t)]),
    "esolm_copy_top_log_probs": (c_int32, [c_void_p, c_size_t, POINTER(esolm_token_log_prob), c_size_t, POINTER(c_size_t)]),
    "esolm_copy_tokens": (c_int32, [c_void_p, c_uint32, POINTER(c_uint32), c_size_t, POINTER(c_size_t)]),
    "esolm_copy_text": (c_int32, [c_void_p, c_uint32, c_char_p, c_size_t, POINTER(c_size_t)]),
    "esolm_stop_reason": (c_int32, [c_void_p, c_uint32, POINTER(c_int32)]),
    "esolm_sequence_add": (c_int32, [c_void_p, POINTER(esolm_prompt), POINTER(esolm_generate_params), POINTER(c_uint32)]),
    "esolm_sequence_extend": (c_int32, [c_void_p, c_uint32, POINTER(esolm_prompt), POINTER(esolm_generate_params)]),
    "esolm_sequence_append": (
        c_int32, [c_void_p, c_uint32, c_size_t, POINTER(esolm_prompt), POINTER(esolm_generate_params)],
    ),
    "esolm_sequence_remove": (c_int32, [c_void_p, c_uint32]),
    "esolm_sequence_cached_tokens": (c_int32, [c_void_p, c_uint32, POINTER(c_size_t)]),
    "esolm_evaluate_logits": (
        c_int32,
        [
            c_void_p, c_uint32, POINTER(c_uint32), c_size_t, POINTER(c_float), c_size_t, POINTER(c_size_t),
        ],
    ),
    "esolm_evaluate_probabilities": (
        c_int32,
        [
            c_void_p, c_uint32, POINTER(c_uint32), c_size_t, POINTER(c_float), c_size_t, POINTER(c_size_t),
        ],
    ),
    "esolm_sequence_save": (c_int32, [c_void_p, c_uint32, c_void_p, c_size_t, POINTER(c_size_t)]),
    "esolm_sequence_restore": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_uint32)]),
    "esolm_state_save": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t)]),
    "esolm_state_restore": (c_int32, [c_void_p, c_void_p, c_size_t]),
    "esolm_context_profile": (c_int32, [c_void_p, POINTER(esolm_profile)]),
    "esolm_score_params_init": (c_int32, [POINTER(esolm_score_params), c_size_t]),
    "esolm_score_text": (
        c_int32,
        [
            c_void_p, POINTER(c_uint32), c_size_t, POINTER(esolm_score_params), POINTER(c_double), c_size_t,
            POINTER(esolm_text_score), esolm_progress_callback, c_void_p,
        ],
    ),
    "esolm_score_order": (
        c_int32,
        [
            c_void_p, POINTER(c_uint32), POINTER(c_uint32), c_size_t, c_size_t, POINTER(c_double), c_size_t,
        ],
    ),
    "esolm_score_masked": (
        c_int32,
        [
            c_void_p, POINTER(c_uint32), POINTER(c_uint32), c_size_t, c_size_t, POINTER(c_double), c_size_t,
        ],
    ),
}
# fmt: on


def _path() -> str:
    named = os.environ.get("ESOLM_LIBRARY")
    if named:
        return named
    inside = Path(__file__).parent.parent / "libesolm.so"
    return str(inside) if inside.exists() else f"libesolm.so.{ESOLM_ABI_VERSION}"


def _load() -> ctypes.CDLL:
    path = _path()
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"esolm: cannot load the library; ESOLM_LIBRARY may name it: {error}") from error
    try:
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise ImportError(f"esolm: {path} is another version's library: {error}") from error
    found = loaded.esolm_abi_version()
    if found != ESOLM_ABI_VERSION:
        raise ImportError(f"esolm: {path} has version {found} of the binary interface, not {ESOLM_ABI_VERSION}")
    return loaded


library = _load()
