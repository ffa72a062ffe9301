"""A model in llama.cpp (llama-cpp-python), token by token, each the most likely one after the last.

    llama.py FILE TYPE THREADS

lets llama.cpp quantize FILE, an f16 GGUF, by its own rules (q4_k: its Q4_K_M), or with TYPE "as-it-is" takes it as it is; says
what it is in one line, reads lines and answers each with the seconds that took: "TOKENS", writing so many tokens into an empty
context; "prompt TOKENS", reading so many at once. All but the threads is llama.cpp's default: keys and values in f16, OpenMP's
threads, which stay from token to token.
"""

import ctypes
import os
import sys
import tempfile
import time

import llama_cpp
import numpy

LENGTH = 1024
LOG_ERROR = 4
FILE_TYPES = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}


def check(success, what):
    if not success:
        sys.exit(f"llama.cpp could not {what}")


# The package's own callback takes warnings for errors and errors for details.
@llama_cpp.llama_log_callback
def log(level, text, _):
    if level == LOG_ERROR:
        print(text.decode(), end="", file=sys.stderr, flush=True)


def load(file):
    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), llama_cpp.llama_model_default_params())
    check(model, "load")
    return model


def quantized(file, file_type, threads):
    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype, how.nthread = file_type, threads
    # The model maps the file, so it needs no name afterwards.
    with tempfile.NamedTemporaryFile(suffix=".gguf") as packed:
        check(llama_cpp.llama_model_quantize(os.fsencode(file), os.fsencode(packed.name), how) == 0, "quantize")
        return load(packed.name)


class Writer:
    def __init__(self, model, threads):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = LENGTH, threads, threads
        self.context = llama_cpp.llama_init_from_model(model, params)
        check(self.context, "make a context")
        self.row = ctypes.c_float * llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def read(self, count):
        self.clear()
        vocabulary = ctypes.sizeof(self.row) // ctypes.sizeof(ctypes.c_float)
        tokens = (llama_cpp.llama_token * count)(*(i * 7919 % vocabulary for i in range(count)))
        check(llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, count)) == 0, "decode")
        llama_cpp.llama_get_logits_ith(self.context, -1)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def write(self, count):
        # Between two calls of llama_decode pass 25 to 50 us, some 10 of them in search of the largest logit: about 1 %.
        self.clear()
        token = (llama_cpp.llama_token * 1)(0)
        batch = llama_cpp.llama_batch_get_one(token, 1)
        for _ in range(count):
            check(llama_cpp.llama_decode(self.context, batch) == 0, "decode")
            logits = llama_cpp.llama_get_logits_ith(self.context, -1)
            row = self.row.from_address(ctypes.addressof(logits.contents))
            token[0] = int(numpy.frombuffer(row, numpy.float32).argmax())


def main():
    file, file_type, threads = sys.argv[1:]
    threads = int(threads)
    if file_type not in FILE_TYPES and file_type != "as-it-is":
        sys.exit(f"no comparison with llama.cpp in {file_type}")
    llama_cpp.llama_log_set(log, None)
    llama_cpp.llama_backend_init()
    model = load(file) if file_type == "as-it-is" else quantized(file, FILE_TYPES[file_type], threads)
    writer = Writer(model, threads)
    writer.write(16)
    instructions = llama_cpp.llama_print_system_info().decode()
    print(f"llama-cpp-python {llama_cpp.__version__}, {instructions}", flush=True)
    for line in sys.stdin:
        *prompt, count = line.split()
        started = time.perf_counter()
        (writer.read if prompt else writer.write)(int(count))
        print(time.perf_counter() - started, flush=True)


main()
