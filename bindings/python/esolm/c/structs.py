"""The structs and the types of functions of esolm.h, under their names there.

tests/test_layout.py compares them with ffi-tests/abi, the record of what a C compiler makes of the header.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)

esolm_log_callback = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
esolm_progress_callback = CFUNCTYPE(c_int32, c_double, c_void_p)
esolm_read_callback = CFUNCTYPE(c_int64, c_uint64, c_void_p, c_size_t, c_void_p)
esolm_close_callback = CFUNCTYPE(None, c_void_p)
esolm_task = CFUNCTYPE(None, c_void_p, c_size_t)
esolm_run_callback = CFUNCTYPE(None, esolm_task, c_void_p, c_size_t, c_void_p)


class esolm_device_info(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("memory_free", c_uint64),
        ("memory_total", c_uint64),
        ("kind", c_int32),
        ("reserved", c_uint32),
        ("name", c_char * 64),
        ("description", c_char * 192),
    ]


class esolm_model_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("device", c_char_p),
        ("mode", c_int32),
        ("reserved", c_uint32),
        ("progress_callback", esolm_progress_callback),
        ("progress_user_data", c_void_p),
        ("use_mlock", c_int32),
        ("prefetch", c_int32),
        ("mask_token", c_uint32),
        ("has_mask_token", c_int32),
    ]


class esolm_model_info(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("context_length", c_size_t),
        ("vocab_size", c_size_t),
        ("mask_token", c_uint32),
        ("eos_token", c_uint32),
        ("parameters", c_uint64),
        ("tensor_bytes", c_uint64),
        ("file_bytes", c_uint64),
        ("load_time_us", c_uint64),
        ("device", c_char * 64),
        ("bos_token", c_uint32),
        ("prepended_token", c_uint32),
    ]


class esolm_model_reader(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("size", c_uint64),
        ("read", esolm_read_callback),
        ("close", esolm_close_callback),
        ("user_data", c_void_p),
        ("name", c_char_p),
    ]


class esolm_tokenize_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("parse_special", c_int32),
        ("continues", c_int32),
    ]


class esolm_message(Structure):
    _fields_ = [
        ("role", c_char_p),
        ("content", c_char_p),
    ]


class esolm_chat_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("chat_template", c_char_p),
        ("behind", c_size_t),
        ("add_generation_prompt", c_int32),
        ("reserved", c_uint32),
        ("chat_template_kwargs", c_char_p),
    ]


class esolm_pool_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("threads", c_size_t),
        ("cpus", POINTER(c_size_t)),
        ("n_cpus", c_size_t),
        ("run", esolm_run_callback),
        ("run_user_data", c_void_p),
        ("nice", c_int32),
        ("poll", c_uint32),
    ]


class esolm_context_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("sequences", c_size_t),
        ("length", c_size_t),
        ("batch_rows", c_size_t),
        ("threads", c_size_t),
        ("kv_type", c_int32),
        ("kernels", c_int32),
        ("pool", c_void_p),
        ("prompt_rows", c_size_t),
    ]


class esolm_memory_use(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("weights", c_size_t),
        ("arena", c_size_t),
        ("kv_cache", c_size_t),
        ("compute", c_size_t),
    ]


class esolm_prompt(Structure):
    _fields_ = [
        ("tokens", POINTER(c_uint32)),
        ("positions", POINTER(c_uint32)),
        ("count", c_size_t),
    ]


class esolm_allowed_tokens(Structure):
    _fields_ = [
        ("position", c_uint32),
        ("reserved", c_uint32),
        ("tokens", POINTER(c_uint32)),
        ("n_tokens", c_size_t),
    ]


class esolm_logit_bias(Structure):
    _fields_ = [
        ("token", c_uint32),
        ("bias", c_float),
    ]


class esolm_constraints(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allowed", POINTER(esolm_allowed_tokens)),
        ("n_allowed", c_size_t),
        ("banned", POINTER(c_uint32)),
        ("n_banned", c_size_t),
        ("bias", POINTER(esolm_logit_bias)),
        ("n_bias", c_size_t),
        ("repetition_penalty", c_float),
        ("reserved", c_uint32),
        ("frequency_penalty", c_float),
        ("presence_penalty", c_float),
        ("dry_multiplier", c_float),
        ("dry_base", c_float),
        ("dry_allowed_length", c_uint32),
        ("dry_range", c_uint32),
        ("dry_breakers", POINTER(c_uint32)),
        ("n_dry_breakers", c_size_t),
        ("regex", c_char_p),
        ("json_schema", c_char_p),
    ]


class esolm_logits_row(Structure):
    _fields_ = [
        ("sequence", c_uint32),
        ("position", c_uint32),
        ("slot", c_uint32),
        ("reserved", c_uint32),
        ("n_logits", c_size_t),
        ("model_logits", POINTER(c_float)),
    ]


esolm_logits_callback = CFUNCTYPE(c_int32, POINTER(esolm_logits_row), POINTER(c_float), c_void_p)


class esolm_generate_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("length", c_size_t),
        ("steps", c_size_t),
        ("seed", c_uint64),
        ("alpha_0", c_double),
        ("temperature", c_float),
        ("top_p", c_float),
        ("top_k", c_uint32),
        ("order", c_int32),
        ("order_size", c_size_t),
        ("custom_order", POINTER(c_uint32)),
        ("n_custom_order", c_size_t),
        ("schedule", POINTER(c_uint32)),
        ("n_schedule", c_size_t),
        ("constraints", POINTER(POINTER(esolm_constraints))),
        ("n_constraints", c_size_t),
        ("logits_callback", esolm_logits_callback),
        ("logits_user_data", c_void_p),
        ("log_probs", c_int32),
        ("confidence", c_int32),
        ("window", c_size_t),
        ("threshold", c_float),
        ("lookahead", c_uint32),
        ("max_tokens", c_size_t),
        ("stop_tokens", POINTER(c_uint32)),
        ("n_stop_tokens", c_size_t),
        ("stop_strings", POINTER(c_char_p)),
        ("n_stop_strings", c_size_t),
        ("ignore_eos", c_int32),
        ("step_text", c_int32),
        ("min_p", c_float),
        ("typical_p", c_float),
        ("top_n_sigma", c_float),
        ("top_log_probs", c_uint32),
        ("penalty", c_float),
        ("in_order", c_int32),
    ]


class esolm_update(Structure):
    _fields_ = [
        ("sequence", c_uint32),
        ("position", c_uint32),
        ("token", c_uint32),
    ]


class esolm_step_text(Structure):
    _fields_ = [
        ("text", c_void_p),  # its length is in len; ctypes would end it at a NUL
        ("len", c_size_t),
        ("sequence", c_uint32),
        ("stop_reason", c_int32),
    ]


class esolm_step_info(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("index", c_size_t),
        ("total", c_size_t),
        ("updates", POINTER(esolm_update)),
        ("n_updates", c_size_t),
        ("log_probs", POINTER(c_double)),
        ("texts", POINTER(esolm_step_text)),
        ("n_texts", c_size_t),
        ("n_proposed", c_size_t),
        ("n_accepted", c_size_t),
    ]


class esolm_token_log_prob(Structure):
    _fields_ = [
        ("token", c_uint32),
        ("log_prob", c_float),
    ]


class esolm_profile(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("blocks", c_double),
        ("attention", c_double),
        ("vocabulary", c_double),
        ("sampling", c_double),
        ("rest", c_double),
    ]


class esolm_score_params(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("orders", c_size_t),
        ("draws", c_size_t),
        ("seed", c_uint64),
        ("alpha_0", c_double),
        ("random_order", c_int32),
        ("reserved", c_uint32),
    ]


class esolm_text_score(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("nll", c_double),
        ("diffusion", c_double),
        ("diffusion_error", c_double),
        ("sequential", c_double),
        ("sequential_error", c_double),
        ("scored_tokens", c_size_t),
    ]
