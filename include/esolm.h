/*
 * esolm: runs quantized Esoteric Language Models (masked diffusion and autoregression in one model) on ggml.
 *
 * Usage
 *
 *     esolm_model *model = NULL;
 *     esolm_context *context = NULL;
 *     uint32_t tokens[256];
 *     char text[8192];
 *     size_t n, len;
 *
 *     if (esolm_model_open("model.gguf", NULL, &model) != ESOLM_OK ||
 *         esolm_context_new(model, NULL, &context) != ESOLM_OK ||
 *         esolm_tokenize(model, "Once upon", 9, tokens, 256, &n) != ESOLM_OK) {
 *         fprintf(stderr, "%s\n", esolm_last_error());
 *         exit(1);
 *     }
 *     esolm_prompt prompt = {tokens, NULL, n};
 *     if (esolm_generate(context, &prompt, 1, NULL, NULL, NULL) == ESOLM_OK &&
 *         esolm_copy_text(context, 0, text, sizeof text, &len) == ESOLM_OK)
 *         puts(text);
 *     esolm_context_free(context);
 *     esolm_model_free(model);
 *
 * Contents, in this order
 *
 *     Models       esolm_model_open, esolm_model_open_memory: mapped or copied, on the CPU or a GPU.
 *                  esolm_model_open_reader, esolm_model_open_fd: from a function of yours, or a part of an open file.
 *                  esolm_model_info_get, esolm_model_metadata_get, esolm_model_supports. For reports of bugs:
 *                  esolm_system_info, esolm_set_log_callback, esolm_set_log_level.
 *     Text         esolm_tokenize, esolm_detokenize, esolm_token_bytes. esolm_tokenize_template takes a text with
 *                  holes: "Once {{mask 12}} after." esolm_tokenize_with_params: special tokens by their names.
 *     Chat         esolm_chat_tokenize, esolm_chat_apply: a template makes one text of a conversation's messages. After an
 *                  answer, esolm_sequence_append goes on with the next message and computes nothing again.
 *     Threads      esolm_pool: threads that several contexts share, also the caller's own.
 *     Contexts     esolm_context_new. From any thread: esolm_cancel. Memory: esolm_context_memory_use,
 *                  esolm_memory_estimate; in the caller's memory: esolm_context_new_in.
 *     Constraints  esolm_constraints: allowed, banned and biased tokens, penalties for repetition, DRY.
 *     Logits       esolm_logits_callback reads and changes the logits of each token before it is drawn.
 *                  esolm_evaluate_logits and esolm_evaluate_probabilities: what the model makes of a position that is
 *                  not written yet. esolm_copy_top_log_probs: the most likely tokens where it has written.
 *     Parameters   esolm_generate_params: .order and .schedule say which positions are written when and how many per
 *                  step; .confidence, .window and .threshold let each step write the tokens that are certain enough.
 *                  .max_tokens, .stop_tokens, .stop_strings: what ends a text; esolm_stop_reason says why it did.
 *     Generating   esolm_generate with a callback per step, or esolm_begin and esolm_step. Between steps:
 *                  esolm_step_info.texts (.step_text), what has become text; esolm_copy_text, esolm_copy_tokens,
 *                  esolm_copy_order. esolm_extend continues a finished text.
 *     Sequences    esolm_sequence_add, esolm_sequence_extend, esolm_sequence_append, esolm_sequence_remove: texts that come
 *                  and go while others are written (examples-c/server.c).
 *     States       esolm_state_save, esolm_state_restore.
 *     Profile      esolm_context_profile: how the time is spent.
 *     Scoring      How likely a text is: esolm_score_text for any length, with bounds over orders and of diffusion;
 *                  esolm_score_order and esolm_score_masked token by token.
 *
 *     Complete programs are in examples-c; esolm.hpp wraps this header for C++17.
 *
 * Errors
 *
 *     Calls that can fail return an esolm_status: ESOLM_OK (0) or an ESOLM_ERR_ value, and esolm_last_error() is the
 *     message of this thread's last failing call. Results go to out-pointers, which are zero or NULL after a failure;
 *     the one exception: with ESOLM_ERR_BUFFER_TOO_SMALL the count is the number needed. A NULL pointer that is not
 *     documented as optional is ESOLM_ERR_INVALID_ARGUMENT. Nothing here prints or ends the process, except as
 *     described under "Fatal".
 *
 * Ownership
 *
 *     What a function creates is released once, with the ..._free function of its type. A context holds a reference to
 *     its model, so the two may be freed in any order. Arguments are borrowed for the call only, except: the memory
 *     given to esolm_model_open_memory (ESOLM_MODE_MAP) and esolm_context_new_in; the user data of
 *     esolm_set_log_callback; and esolm_generate_params.logits_user_data, which is used by all steps of the generation.
 *     Strings that are returned belong to the library.
 *
 * Threads
 *
 *     Functions may be called from any thread. Any number of threads may use a model at once; usually each thread has
 *     a context of its own. A context computes one call at a time: a call that overlaps with another on the same context
 *     fails with ESOLM_ERR_BUSY and changes nothing. Reading what the last step left (esolm_copy_text, esolm_copy_tokens,
 *     esolm_copy_order, esolm_context_profile) is allowed at any time, from callbacks too, and never makes another call
 *     fail. esolm_cancel and esolm_cancel_reset may be called at any time: a cancelled context refuses work until it is
 *     reset, so a cancel between two calls is not lost. Freeing something that another call is using is undefined
 *     behaviour.
 *
 *     128 KiB of stack are enough for every call. Where the system does not give as many threads as asked for, a context
 *     has fewer, with a message in the log. After fork(), the child's contexts with several threads return
 *     ESOLM_ERR_UNSUPPORTED and can be freed; models and new contexts work there, unless another thread was just in the first
 *     use of a model's tokenizer: then the child waits for it without end (esolm_tokenize before, with any text, avoids it).
 *
 *     Calls compute with the default floating-point environment (rounding to nearest, subnormal numbers) and restore the
 *     caller's; callbacks run in the default one.
 *
 * Structs that grow
 *
 *     Structs that start with struct_size may get more fields at their end in later versions. Initialise parameters
 *     with their ..._params_init function; in other structs set struct_size to sizeof. Then programs and libraries of
 *     different versions work together. Reserved fields, and fields unknown to the library, must be 0. Values named by
 *     ESOLM_ constants are range-checked.
 *
 * Memory
 *
 *     A context allocates its working memory when it is made. After that, esolm_begin, esolm_step and esolm_generate
 *     allocate nothing on the CPU, except: a failing call allocates its message; esolm_begin copies the constraints and
 *     stop rules, allocates for top_log_probs and for a lookahead's proposals, and makes room for esolm_step_info.texts (more than
 *     1 MiB of text in a step takes more; without it, the tokens are written and their text comes with the next step); and a model whose
 *     widths are not multiples of 8 is run by ggml, which allocates and frees two small blocks per run of the network.
 *     Scoring and states allocate as they go.
 *
 * Fatal
 *
 *     These end the process: another process truncates a mapped file (SIGBUS; ESOLM_MODE_COPY avoids it); an exception
 *     leaves a callback; an allocation fails in making tokens of a text, in the first use of a tokenizer, in what a grammar does, or in
 *     parsing a chat template and starting its thread, where the tokenizer library, llguidance and minijinja allocate (in
 *     proportion to the file, the text and the template, which are checked before); in ggml's list of devices, which is made once;
 *     in esolm_system_info, esolm_device_.. and a message for a log callback (some kilobytes); or one of a few small ones whose
 *     number and size do not depend on a file: at most eight in opening a model or esolm_memory_estimate (names, the model itself),
 *     three in making a context or a pool with one thread (what threads and cancelling share), and some thirty with more (in counting
 *     processors, and what each takes as it starts); what the C library takes for a thread's first call. All other failing allocations are
 *     ESOLM_ERR_OUT_OF_MEMORY, and generating has none. Where nothing can be allocated any more, the message of a call that fails for another reason
 *     cannot be made either, which ends the process, too. Invalid pointers and wrong array lengths cannot be detected.
 */

// Generated from src/capi by `make header`; do not edit.

#ifndef ESOLM_H
#define ESOLM_H

#include <stddef.h>
#include <stdint.h>

// On Windows a program that links the DLL may define ESOLM_DLL, which saves each call a jump.
#if defined(_WIN32) && defined(ESOLM_DLL)
#define ESOLM_API __declspec(dllimport)
#else
#define ESOLM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---- Version ----

// Major version of the header.
#define ESOLM_VERSION_MAJOR 0
// Minor version of the header.
#define ESOLM_VERSION_MINOR 1
// Patch version of the header.
#define ESOLM_VERSION_PATCH 0

// Version of the binary interface, which is in the shared library's name. A new one means: recompile the program.
#define ESOLM_ABI_VERSION 0

// The version of the linked library, such as "0.1.0". A static string.
ESOLM_API const char *esolm_version(void);

// ESOLM_ABI_VERSION of the linked library, to compare with the header's when it is loaded at run time.
ESOLM_API uint32_t esolm_abi_version(void);

// One line about the library and this machine, for reports of bugs: the version, the build's optional features (chat,
// grammar, cuda, vulkan, metal), the devices, the default number of threads and the processors, the kernels that are used
// here, the instruction sets that the build needs and that the processor has, and ggml's version and features. A static
// string; its form may change. (llama.h's llama_print_system_info.) Any thread.
ESOLM_API const char *esolm_system_info(void);

// ---- Status and errors ----

// The result of a call: ESOLM_OK or one of ESOLM_ERR_*. Later versions may add values; treat them as failures.
typedef int32_t esolm_status;

// Success.
#define ESOLM_OK 0

// An argument is NULL, out of range or malformed. Nothing was changed.
#define ESOLM_ERR_INVALID_ARGUMENT 1
// The operating system could not open, read or map a file.
#define ESOLM_ERR_IO 2
// A file is damaged or not in the format that it claims.
#define ESOLM_ERR_BAD_FILE 3
// A valid request that this version or this build does not support.
#define ESOLM_ERR_UNSUPPORTED 4
// The device does not exist, or it failed.
#define ESOLM_ERR_DEVICE 5
// Not enough memory. Nothing was changed, but where a call says so (esolm_step, esolm_state_restore).
#define ESOLM_ERR_OUT_OF_MEMORY 6
// esolm_cancel was called, or a callback returned non-zero. The tokens written so far can be read, and esolm_step
// continues: after a callback at once, after esolm_cancel when esolm_cancel_reset was called.
#define ESOLM_ERR_CANCELLED 7
// Another call is using the context. Nothing was changed.
#define ESOLM_ERR_BUSY 8
// The caller's buffer is too small. Nothing was written to it, except a terminating NUL for text.
#define ESOLM_ERR_BUFFER_TOO_SMALL 9
// The model has no tokenizer, or the tokenizer cannot do this.
#define ESOLM_ERR_TOKENIZER 10
// The network produced NaN or infinity: the model or a restored state is damaged, or keys and values need ESOLM_KV_F32.
#define ESOLM_ERR_NOT_FINITE 11
// A bug in this library; please report it.
#define ESOLM_ERR_INTERNAL 12

// The message of this thread's last failing call: one line of UTF-8, for people; empty if no call failed. Valid until
// the next failing call on this thread.
ESOLM_API const char *esolm_last_error(void);

// The general meaning of a status, such as "out of memory". A static string, never NULL.
ESOLM_API const char *esolm_status_text(esolm_status status);

// ---- Log messages ----

// Something failed.
#define ESOLM_LOG_ERROR 1
// Something is unusual but works.
#define ESOLM_LOG_WARN 2
// What was done, once for each model and context: how a file was opened, which kernels run, how much memory is taken.
#define ESOLM_LOG_INFO 3
// Details for debugging.
#define ESOLM_LOG_DEBUG 4

// Called with each message: its level (ESOLM_LOG_*) and UTF-8 text that is valid during the call. May be called from
// any thread and from several at once; must not throw.
typedef void (*esolm_log_callback)(int32_t level, const char *message, void *user_data);

// Sets the callback that receives all later messages of this process. NULL (the default): no messages. A message that
// another thread is just sending may still reach the previous callback. Any thread.
ESOLM_API void esolm_set_log_callback(esolm_log_callback callback, void *user_data);

// Sends messages of this level and of more severe ones to the callback: ESOLM_LOG_* (default: ESOLM_LOG_INFO). For all of
// this process. Any thread.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT.
ESOLM_API esolm_status esolm_set_log_level(int32_t level);

// ---- Devices ----

// The CPU and main memory.
#define ESOLM_DEVICE_CPU 0
// A GPU.
#define ESOLM_DEVICE_GPU 1
// Another accelerator.
#define ESOLM_DEVICE_OTHER 2

// A device. Set struct_size before esolm_device_info_get.
typedef struct esolm_device_info {
    // sizeof(esolm_device_info)
    size_t struct_size;
    // Free memory in bytes, as the device reports it. Of the CPU, on Linux: what can be had without swapping, as far as the
    // process's control groups let it.
    uint64_t memory_free;
    // Total memory in bytes, as the device reports it; of the CPU, at most what the control groups allow.
    uint64_t memory_total;
    // ESOLM_DEVICE_CPU, ESOLM_DEVICE_GPU or ESOLM_DEVICE_OTHER.
    int32_t kind;
    // Reserved, always 0.
    uint32_t reserved;
    // The name for esolm_model_params.device: "cpu", "cuda:0". NUL-terminated.
    char name[64];
    // The vendor's name for it. NUL-terminated, truncated if longer.
    char description[192];
} esolm_device_info;

// Writes to *out the number of devices that this build finds on this machine, the CPU included. Any thread.
ESOLM_API esolm_status esolm_device_count(size_t *out);

// Describes device number index, from 0. info->struct_size must be set; on failure the other fields are 0. Any thread.
ESOLM_API esolm_status esolm_device_info_get(size_t index, esolm_device_info *info);

// ---- Progress ----

// Called with the fraction done, 0 to 1 and never decreasing; a non-zero return cancels the call with
// ESOLM_ERR_CANCELLED. Runs on the thread of the call; must not throw or longjmp.
typedef int32_t (*esolm_progress_callback)(double fraction, void *user_data);

// ---- Models ----

// The file is mapped, or the memory given to esolm_model_open_memory is used in place. Nothing is copied (except
// memory whose address is not a multiple of 32).
#define ESOLM_MODE_MAP 0
// The model is copied into memory of the library.
#define ESOLM_MODE_COPY 1
// If the rows of quantized matrices are plain in the file (esolm inspect), the tensors are copied into memory of the library,
// with these in panels, as its CPU kernels read them fastest. Otherwise as ESOLM_MODE_MAP, as on other devices;
// memory given to esolm_model_open_memory is copied.
#define ESOLM_MODE_REPACK 2

// For esolm_model_supports: diffusion, several tokens in a step. All but autoregressive models.
#define ESOLM_FEATURE_DIFFUSION 1
// Writing one by one, left to right. All but MDLM, BD3-LM, and Eso-LM (A) that was trained for diffusion alone.
#define ESOLM_FEATURE_SEQUENTIAL 2
// Orders other than left to right. Eso-LM and MDLM.
#define ESOLM_FEATURE_ORDERS 3
// Adaptive steps (esolm_generate_params.confidence). All but autoregressive models.
#define ESOLM_FEATURE_ADAPTIVE 4
// Known tokens behind unknown ones: templates, suffixes. All but autoregressive models.
#define ESOLM_FEATURE_HOLES 5
// esolm_extend. Models that keep keys and values between steps: all but Eso-LM (A) and MDLM.
#define ESOLM_FEATURE_EXTEND 6
// esolm_state_save. As ESOLM_FEATURE_EXTEND.
#define ESOLM_FEATURE_STATES 7
// The likelihood of a text in an order. As ESOLM_FEATURE_SEQUENTIAL.
#define ESOLM_FEATURE_SCORE_ORDER 8
// The diffusion bound of a text's likelihood. All but autoregressive models and WeDLM.
#define ESOLM_FEATURE_SCORE_DIFFUSION 9
// Text: the file has a tokenizer that can be used. (Asking makes it.)
#define ESOLM_FEATURE_TEXT 10
// esolm_generate_params.step_text and .stop_strings. With tokenizers whose texts can be made token by token.
#define ESOLM_FEATURE_STEP_TEXT 11
// esolm_constraints.regex and .json_schema. As ESOLM_FEATURE_SEQUENTIAL and ESOLM_FEATURE_TEXT, in a build with the feature
// "grammar".
#define ESOLM_FEATURE_GRAMMAR 12
// esolm_generate_params.lookahead. WeDLM, and Eso-LM but for (A) that was trained for diffusion alone.
#define ESOLM_FEATURE_LOOKAHEAD 13
// esolm_chat_apply without a template of the caller's: the file has a chat template. In a build with the feature "chat".
#define ESOLM_FEATURE_CHAT 14

// No token: the value of esolm_model_info.eos_token, and of others, for a model without such a token.
#define ESOLM_NO_TOKEN UINT32_MAX

// A model: immutable, reference-counted, usable from any number of threads at once. Released by esolm_model_free.
typedef struct esolm_model esolm_model;

// How to open a model. Set by esolm_model_params_init.
typedef struct esolm_model_params {
    // sizeof(esolm_model_params)
    size_t struct_size;
    // The device to use: "cpu", "cuda:0" or another esolm_device_info.name. NULL (default) or "auto": the first GPU,
    // or the CPU if there is none.
    const char *device;
    // ESOLM_MODE_MAP (default), ESOLM_MODE_COPY or ESOLM_MODE_REPACK.
    int32_t mode;
    // Reserved, must be 0.
    uint32_t reserved;
    // Called with the fraction loaded; NULL (default): not called. A file that is mapped for the CPU is loaded at
    // once.
    esolm_progress_callback progress_callback;
    // Passed to progress_callback.
    void *progress_user_data;
    // 1: the weights are locked in main memory, so that the system never moves them out (mlock). If it refuses, a warning
    // in the log says why (usually RLIMIT_MEMLOCK), and the model is opened all the same. 0 (default): they are not.
    int32_t use_mlock;
    // 1: a mapped file's pages are read in before the call returns, with progress_callback. 0 (default): when they are
    // first used.
    int32_t prefetch;
    // With has_mask_token: the mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, which makes it WeDLM.
    uint32_t mask_token;
    // Whether mask_token is given: 1, or 0 (default).
    int32_t has_mask_token;
} esolm_model_params;

// Facts about a model. Set struct_size before esolm_model_info_get.
typedef struct esolm_model_info {
    // sizeof(esolm_model_info)
    size_t struct_size;
    // Maximum length of a sequence in tokens.
    size_t context_length;
    // Number of tokens in the vocabulary, the mask token included.
    size_t vocab_size;
    // The mask token, which stands for an unknown token.
    uint32_t mask_token;
    // The token that ends a text; ESOLM_NO_TOKEN if there is none.
    uint32_t eos_token;
    // Number of weights.
    uint64_t parameters;
    // Size of the weights in bytes.
    uint64_t tensor_bytes;
    // Size of the file in bytes.
    uint64_t file_bytes;
    // Time that opening took, in microseconds.
    uint64_t load_time_us;
    // The device that its weights are on, as in esolm_device_info.name. NUL-terminated.
    char device[64];
    // The token that begins a text; ESOLM_NO_TOKEN if there is none.
    uint32_t bos_token;
    // The token that the library puts before each text by itself, as llama.cpp does where a file asks for it; ESOLM_NO_TOKEN if there is
    // none.
    uint32_t prepended_token;
} esolm_model_info;

// Sets the defaults; size is sizeof(esolm_model_params).
ESOLM_API esolm_status esolm_model_params_init(esolm_model_params *params, size_t size);

// Opens the GGUF file at path. params may be NULL for the defaults. *out is a model with one reference, NULL on
// failure. With ESOLM_MODE_MAP the file must not change while the model, or a context of it, lives.
//
// Errors: ESOLM_ERR_IO, ESOLM_ERR_BAD_FILE, ESOLM_ERR_UNSUPPORTED, ESOLM_ERR_DEVICE, ESOLM_ERR_OUT_OF_MEMORY;
// ESOLM_ERR_INVALID_ARGUMENT for a mode or a flag that there is not, a mask token that the file does not take or that is missing;
// ESOLM_ERR_CANCELLED if progress_callback cancels.
ESOLM_API esolm_status esolm_model_open(const char *path, const esolm_model_params *params, esolm_model **out);

// Opens a model whose GGUF file is in memory: size bytes at data. With ESOLM_MODE_MAP the memory is used in place and
// must not change until the model and its contexts are freed; with ESOLM_MODE_COPY it may be freed after the call.
// Otherwise as esolm_model_open.
ESOLM_API esolm_status esolm_model_open_memory(const void *data,
                                               size_t size,
                                               const esolm_model_params *params,
                                               esolm_model **out);

// Adds a reference, to be released by another esolm_model_free.
ESOLM_API esolm_status esolm_model_retain(const esolm_model *model);

// Releases a reference; the last one frees the model. Its contexts hold references of their own. NULL is allowed.
ESOLM_API void esolm_model_free(esolm_model *model);

// Writes to *info what the model is. info->struct_size must be set; on failure the other fields are 0. Any thread.
ESOLM_API esolm_status esolm_model_info_get(const esolm_model *model, esolm_model_info *info);

// 1 if this model, in this build of the library, can do something, ESOLM_FEATURE_*; otherwise 0, as for NULL and for features
// that the library does not know. Any thread.
ESOLM_API int32_t esolm_model_supports(const esolm_model *model, int32_t feature);

// ---- Models from elsewhere ----

// Reads size bytes from offset on into buffer, and returns how many there are: size, or fewer but at least 1. 0: the file
// ends here. Negative: it cannot be read, and the call fails with ESOLM_ERR_IO. Called from the beginning of the file to its
// end, on the thread of the call; must not throw or longjmp.
typedef int64_t (*esolm_read_callback)(uint64_t offset, void *buffer, size_t size, void *user_data);

// Called once, when nothing is read any more.
typedef void (*esolm_close_callback)(void *user_data);

// A model's file that the caller's code reads: an asset, an entry of an archive, an encrypted file. Set struct_size, and
// fields that are not used to 0. (whisper.h's whisper_model_loader.)
typedef struct esolm_model_reader {
    // sizeof(esolm_model_reader)
    size_t struct_size;
    // Size of the file in bytes.
    uint64_t size;
    // Reads it.
    esolm_read_callback read;
    // Called before esolm_model_open_reader returns, whatever it returns, unless this struct is refused. NULL: not called.
    esolm_close_callback close;
    // Passed to read and close.
    void *user_data;
    // What messages call the file, NUL-terminated. NULL: "(reader)".
    const char *name;
} esolm_model_reader;

// Opens a model whose file is read by the caller's functions, into memory of the library (params->mode does not matter).
// Otherwise as esolm_model_open.
//
// Errors: as esolm_model_open; ESOLM_ERR_IO also for a file that ends before reader->size.
ESOLM_API esolm_status esolm_model_open_reader(const esolm_model_reader *reader,
                                               const esolm_model_params *params,
                                               esolm_model **out);

// Opens a model that is in an open file: length bytes from offset on, 0 being all up to its end. (So a file descriptor, offset and
// length of an Android asset can be given.) fd stays the caller's and may be closed after the call. With ESOLM_MODE_MAP the
// file is mapped, and copied where its tensors are not aligned to 32 bytes. Otherwise as esolm_model_open.
//
// Errors: as esolm_model_open; ESOLM_ERR_INVALID_ARGUMENT if the part is not inside the file; ESOLM_ERR_UNSUPPORTED on
// systems without file descriptors.
ESOLM_API esolm_status esolm_model_open_fd(int32_t fd,
                                           uint64_t offset,
                                           uint64_t length,
                                           const esolm_model_params *params,
                                           esolm_model **out);

// ---- Model metadata ----

// Writes to *out the number of keys in the file's metadata. Any thread.
ESOLM_API esolm_status esolm_model_metadata_count(const esolm_model *model, size_t *out);

// Copies key number index, from 0, as UTF-8 with a NUL. capacity and *len_out are as in esolm_detokenize. Any thread.
ESOLM_API esolm_status esolm_model_metadata_key(const esolm_model *model,
                                                size_t index,
                                                char *key,
                                                size_t capacity,
                                                size_t *len_out);

// Copies the value of a key, such as "general.name", as UTF-8 with a NUL. A string is copied as it is, a number is
// decimal, a boolean "true" or "false", an array "[1, 2]" or, with JSON's escapes, "[\"a\", \"b\"]". capacity and
// *len_out are as in esolm_detokenize. Any thread.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, also if there is no such key.
ESOLM_API esolm_status esolm_model_metadata_get(const esolm_model *model,
                                                const char *key,
                                                char *text,
                                                size_t capacity,
                                                size_t *len_out);

// ---- Tokens and text ----

// How a text becomes tokens. Set by esolm_tokenize_params_init.
typedef struct esolm_tokenize_params {
    // sizeof(esolm_tokenize_params)
    size_t struct_size;
    // 1: special tokens that are written out in the text, such as "<|endoftext|>", are these tokens, and "[MASK]" is the
    // mask token. 0 (default): they are characters as all others, as text of users should be. (llama.cpp's parse_special.)
    int32_t parse_special;
    // 1: the text goes on from another: tokenizers that put a space before a text put none. 0 (default): it is a text's
    // beginning.
    int32_t continues;
} esolm_tokenize_params;

// Sets the defaults; size is sizeof(esolm_tokenize_params).
ESOLM_API esolm_status esolm_tokenize_params_init(esolm_tokenize_params *params, size_t size);

// Converts text_len bytes of UTF-8 to tokens: at most capacity, their number in *n_out. If they do not fit, none is
// written and *n_out is the number needed (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, tokens may be NULL. Special
// tokens that are written out in the text are characters as all others (esolm_tokenize_with_params); none is added. Any
// thread; the first use of a model's tokenizer takes longer.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, also if the text is not UTF-8; ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also
// if the tokenizer knows a word of the text as a special token only.
ESOLM_API esolm_status esolm_tokenize(const esolm_model *model,
                                      const char *text,
                                      size_t text_len,
                                      uint32_t *tokens,
                                      size_t capacity,
                                      size_t *n_out);

// As esolm_tokenize, with parameters; NULL are the defaults.
ESOLM_API esolm_status esolm_tokenize_with_params(const esolm_model *model,
                                                  const char *text,
                                                  size_t text_len,
                                                  const esolm_tokenize_params *params,
                                                  uint32_t *tokens,
                                                  size_t capacity,
                                                  size_t *n_out);

// Converts n tokens to text: UTF-8 with a NUL. *len_out is its length in bytes without the NUL, so capacity must be
// larger. If it does not fit, text is empty and *len_out is the length needed, without the NUL
// (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, text may be NULL. A mask token becomes "[MASK]", bytes that are
// not UTF-8 become U+FFFD. Tokens that the model can write and the tokenizer does not have add nothing. Any thread.
//
// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also for a token outside the vocabulary.
ESOLM_API esolm_status esolm_detokenize(const esolm_model *model,
                                        const uint32_t *tokens,
                                        size_t n,
                                        char *text,
                                        size_t capacity,
                                        size_t *len_out);

// Converts a text with holes to a prompt: text_len bytes of UTF-8 such as "Once upon a time {{mask 12}} happily ever
// after.", in which the model writes 12 tokens. "{{{{" stands for two braces.
//
// Writes the known tokens and their positions, for esolm_prompt, and to *length_out the length of the whole text in
// tokens, for esolm_generate_params.length. capacity (of both arrays) and *n_out are as in esolm_tokenize. Each piece
// of text between holes is tokenized by itself, those behind a hole as esolm_tokenize_params.continues says. A space before
// a hole belongs to what is written there: tokens begin with the space before their word. Any thread.
//
// Errors: as esolm_tokenize, and ESOLM_ERR_INVALID_ARGUMENT if the template is malformed; the message says where.
ESOLM_API esolm_status esolm_tokenize_template(const esolm_model *model,
                                               const char *text,
                                               size_t text_len,
                                               uint32_t *tokens,
                                               uint32_t *positions,
                                               size_t capacity,
                                               size_t *n_out,
                                               size_t *length_out);

// As esolm_tokenize_template, with parameters; NULL are the defaults. parse_special is for all of the text, where a mask is then a
// hole of one token; continues for its beginning.
ESOLM_API esolm_status esolm_tokenize_template_with_params(const esolm_model *model,
                                                           const char *text,
                                                           size_t text_len,
                                                           const esolm_tokenize_params *params,
                                                           uint32_t *tokens,
                                                           uint32_t *positions,
                                                           size_t capacity,
                                                           size_t *n_out,
                                                           size_t *length_out);

// Copies the bytes of one token, without a NUL. They may be part of a character: a program that shows tokens as they
// are written joins them to whole characters. The bytes of a special token are its name, those of the mask "[MASK]".
// capacity and *n_out are as in esolm_tokenize. Any thread.
//
// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also for a token that the tokenizer does not have: some models can
// write more tokens than it has, which add nothing to a text.
ESOLM_API esolm_status esolm_token_bytes(const esolm_model *model,
                                         uint32_t token,
                                         uint8_t *bytes,
                                         size_t capacity,
                                         size_t *n_out);

// 1 if the token ends a text: esolm_model_info.eos_token, or another, as a chat model has one for the end of an answer. Otherwise 0,
// as for NULL. (llama.cpp: llama_vocab_is_eog.) Any thread.
ESOLM_API int32_t esolm_token_is_end(const esolm_model *model, uint32_t token);

// 1 if the token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers outside the
// vocabulary. Otherwise 0, as for NULL and for a model without a tokenizer. (llama.cpp: llama_vocab_is_control.) Any thread.
ESOLM_API int32_t esolm_token_is_special(const esolm_model *model, uint32_t token);

// ---- Conversations ----

// How the messages of a conversation become one text. Set by esolm_chat_params_init.
typedef struct esolm_chat_params {
    // sizeof(esolm_chat_params)
    size_t struct_size;
    // NULL: the template of the model's file. "chatml": the format of Qwen and others. Otherwise a template in Jinja.
    // NUL-terminated UTF-8.
    const char *chat_template;
    // How many of the messages a sequence has already, the last of them being the answer that the model wrote there:
    // esolm_chat_tokenize makes tokens of what follows. 0 (default): of all.
    size_t behind;
    // 1 (default): the text goes on to where the model's next answer begins. 0: it ends with the last message.
    int32_t add_generation_prompt;
    // Reserved, must be 0.
    uint32_t reserved;
    // More that the template is to know, an object in JSON: variables by their names, such as {"enable_thinking": false} for Qwen3's, or
    // tools. NULL (default): nothing. NUL-terminated UTF-8.
    const char *chat_template_kwargs;
} esolm_chat_params;

// A message of a conversation. This struct will not change.
typedef struct esolm_message {
    // Whose it is: "system", "user", "assistant", or another name that the template knows. NUL-terminated UTF-8.
    const char *role;
    // What it says. NUL-terminated UTF-8.
    const char *content;
} esolm_message;

// Sets the defaults; size is sizeof(esolm_chat_params).
ESOLM_API esolm_status esolm_chat_params_init(esolm_chat_params *params, size_t size);

// Copies the text of a conversation as UTF-8 with a NUL; params may be NULL for the defaults. capacity and *len_out are as in
// esolm_detokenize. Applying a template takes time and memory in proportion to the messages at most, and reads no files. Any
// thread.
//
// Errors: ESOLM_ERR_UNSUPPORTED if the model has no template and none is given, or in a build without the feature "chat";
// ESOLM_ERR_BAD_FILE if the model's is none; ESOLM_ERR_INVALID_ARGUMENT if the template refuses the messages, is wrong somewhere (the message names the line), or takes
// too much; ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER.
ESOLM_API esolm_status esolm_chat_apply(const esolm_model *model,
                                        const esolm_message *messages,
                                        size_t n_messages,
                                        const esolm_chat_params *params,
                                        char *text,
                                        size_t capacity,
                                        size_t *len_out);

// Copies the tokens of a conversation up to the model's next answer, without a token that stands before each text of the
// model anyway (which the text of esolm_chat_apply has), for esolm_prompt; with params->behind those of what
// follows the answer that a sequence has, for esolm_sequence_append. (If they begin with the token that ended the answer, which
// the sequence has, leave that out.) Names of special tokens are these tokens where the template writes them, and characters
// where a message does. capacity and *n_out are as in esolm_tokenize. Any thread.
//
// Errors: as esolm_chat_apply, and ESOLM_ERR_INVALID_ARGUMENT if there are fewer messages than params->behind;
// ESOLM_ERR_UNSUPPORTED if the template does not write that answer once, as it is.
ESOLM_API esolm_status esolm_chat_tokenize(const esolm_model *model,
                                           const esolm_message *messages,
                                           size_t n_messages,
                                           const esolm_chat_params *params,
                                           uint32_t *tokens,
                                           size_t capacity,
                                           size_t *n_out);

// Copies what the template writes behind an answer, without blanks around it, such as "<|im_end|>", as UTF-8 with a NUL: the
// model writes it when its answer is complete. It is a stop string, and where it is the name of a special token, that is a stop
// token. May be empty. params may be NULL for the defaults. capacity and *len_out are as in esolm_detokenize. Any thread.
//
// Errors: as esolm_chat_tokenize.
ESOLM_API esolm_status esolm_chat_answer_end(const esolm_model *model,
                                             const esolm_chat_params *params,
                                             char *text,
                                             size_t capacity,
                                             size_t *len_out);

// ---- Thread pools ----

// Threads that several contexts share (esolm_context_params.pool); they help one context at a time, and one that finds
// them in use computes alone. For ESOLM_KERNELS_OWN. Any thread may use it; freed by esolm_pool_free.
typedef struct esolm_pool esolm_pool;

// Does task i of those that an esolm_run_callback is given. Never unwinds.
typedef void (*esolm_task)(const void *task_data, size_t i);

// Calls task(task_data, i) with each i below count, side by side in threads of the caller's as far as these are free and
// otherwise later, also one after another; returns when all calls have returned. It is called by whichever thread
// computes on a context of the pool, must not call functions on that context, and must not throw or longjmp.
typedef void (*esolm_run_callback)(esolm_task task, const void *task_data, size_t count, void *user_data);

// How to make a pool. Set by esolm_pool_params_init.
typedef struct esolm_pool_params {
    // sizeof(esolm_pool_params)
    size_t struct_size;
    // Threads, that of the computing context included. 0 (default): one for each processor that the process may use by
    // its affinity mask and its control group, on Linux and Android of the fast kind if there are several.
    size_t threads;
    // The processors, by the system's numbers, that the pool's own threads may run on. NULL (default): those of the
    // process. Linux and Android.
    const size_t *cpus;
    // Number of entries in cpus.
    size_t n_cpus;
    // Runs tasks in threads of the caller's, threads at most at a time, which must be set; the pool then has none of its
    // own. NULL (default): not used. It and run_user_data must stay valid until the pool and its contexts are freed.
    esolm_run_callback run;
    // Passed to run.
    void *run_user_data;
    // Added to the nice value of the pool's own threads, -40 to 40 (default 0). Linux and Android.
    int32_t nice;
    // How long a thread of the pool's own waits for work before it sleeps, 0 (not at all) to 100 (default 50, about a
    // millisecond).
    uint32_t poll;
} esolm_pool_params;

// Sets the defaults; size is sizeof(esolm_pool_params).
ESOLM_API esolm_status esolm_pool_params_init(esolm_pool_params *params, size_t size);

// Makes a pool. params may be NULL for the defaults. *out is NULL on failure. If the system does not start all threads,
// there are fewer, with a message in the log. Any thread.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, also for processors or a nice value that the system refuses;
// ESOLM_ERR_UNSUPPORTED for processors or a nice value on another system than Linux.
ESOLM_API esolm_status esolm_pool_new(const esolm_pool_params *params, esolm_pool **out);

// The number of threads of a pool, that of the computing context included; 0 for NULL. Any thread.
ESOLM_API size_t esolm_pool_threads(const esolm_pool *pool);

// Frees a pool. Contexts that use it keep its threads until they are freed, too. NULL is allowed.
ESOLM_API void esolm_pool_free(esolm_pool *pool);

// ---- Contexts ----

// Half precision. Keys or values of 65520 and more do not fit: ESOLM_KERNELS_OWN then returns ESOLM_ERR_NOT_FINITE,
// ESOLM_KERNELS_GGML computes with infinity. Such a model needs ESOLM_KV_F32.
#define ESOLM_KV_F16 0
// Single precision, for exact comparisons.
#define ESOLM_KV_F32 1
// Bytes, each 32 with a scale (ggml's q8_0): 0.53 of the memory of ESOLM_KV_F16, for longer texts. Keys and values are rounded to
// 0.4 % of the largest of their 32. With ESOLM_KERNELS_OWN on the CPU, for heads whose width is a multiple of 32; otherwise
// ESOLM_ERR_UNSUPPORTED.
#define ESOLM_KV_Q8_0 2

// This library's, made for few rows over a long cache. (A model whose widths are not multiples of 8 uses ggml's.)
#define ESOLM_KERNELS_OWN 0
// ggml's. They do not check for keys and values that ESOLM_KV_F16 cannot hold.
#define ESOLM_KERNELS_GGML 1

// Alignment in bytes of the memory given to esolm_context_new_in.
#define ESOLM_ARENA_ALIGNMENT 64

// A context: memory and threads for generating from a model, for one computing call at a time (others return
// ESOLM_ERR_BUSY) from any thread. What the last step left can be read at any time, also while a call computes. Freed by
// esolm_context_free.
typedef struct esolm_context esolm_context;

// The limits of a context. Set by esolm_context_params_init; 0 is the default of every field.
typedef struct esolm_context_params {
    // sizeof(esolm_context_params)
    size_t struct_size;
    // Maximum number of sequences generated side by side (default 1).
    size_t sequences;
    // Maximum length of a sequence in tokens (default: the model's context length, at most 4096; limit: the model's).
    size_t length;
    // Maximum number of rows (tokens) in a batch, which the network computes at once (default 128). Fewer need less
    // memory; the result is the same. A text is scored in one batch if this is at least twice its tokens.
    size_t batch_rows;
    // CPU threads (default: one per core that the process may use, on Linux and Android of the fast kind if there are
    // several; with a pool, as many as it has). They sleep between calls.
    size_t threads;
    // Precision of the K/V cache: ESOLM_KV_F16, ESOLM_KV_F32 or ESOLM_KV_Q8_0.
    int32_t kv_type;
    // Which CPU kernels to use: ESOLM_KERNELS_OWN or ESOLM_KERNELS_GGML. (Other devices always use ggml's.)
    int32_t kernels;
    // The threads to use, with ESOLM_KERNELS_OWN. NULL (default): the context has its own.
    const esolm_pool *pool;
    // Maximum number of rows of prompts that a step feeds for sequences that join (esolm_sequence_add), so that a long prompt
    // does not delay the others: it takes several steps, with the same result (default 64, on devices 512; chunked
    // prefill). While no sequence is being written, as at the beginning of a generation, a step feeds as many as
    // batch_rows, if that is more. BD3-LM feeds whole blocks, Eso-LM (A) and MDLM feed prompts whole.
    size_t prompt_rows;
} esolm_context_params;

// Sets the defaults; size is sizeof(esolm_context_params).
ESOLM_API esolm_status esolm_context_params_init(esolm_context_params *params, size_t size);

// Writes to *out the exact number of bytes that esolm_context_new_in needs for these parameters (NULL: the defaults).
// It depends on the machine, so do not store it. With a GPU it is the host's part: cache and activations are on the
// device. Any thread.
ESOLM_API esolm_status esolm_context_arena_size(const esolm_model *model,
                                                const esolm_context_params *params,
                                                size_t *out);

// Makes a context, with all memory for generating. params may be NULL for the defaults. *out is NULL on failure. The
// context holds a reference to the model.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED for a cache in q8_0 or an operation
// that kernels or device do not have; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE.
ESOLM_API esolm_status esolm_context_new(const esolm_model *model,
                                         const esolm_context_params *params,
                                         esolm_context **out);

// Makes a context in the caller's memory: size bytes at arena, aligned to ESOLM_ARENA_ALIGNMENT, at least
// esolm_context_arena_size. They belong to the context until it is freed; their content does not matter. (Small
// handles and the bookkeeping of texts are still allocated, once.)
//
// Errors: as esolm_context_new, and ESOLM_ERR_BUFFER_TOO_SMALL, with the arena untouched.
ESOLM_API esolm_status esolm_context_new_in(const esolm_model *model,
                                            const esolm_context_params *params,
                                            void *arena,
                                            size_t size,
                                            esolm_context **out);

// Has threads threads compute on this context from the next call on: 1 to as many as it was made for. The text does not
// depend on it.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT; ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_context_set_threads(esolm_context *context, size_t threads);

// Writes to *out the number of threads that compute on this context.
//
// Errors: ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_context_threads(const esolm_context *context, size_t *out);

// Measures what a pass (a run of the network) costs beside its rows: with the time of one row as unit, the time in which the
// weights are read. Runs the network on some rows for half a second, or until it has done so twice, and writes to *out the
// number, 0.1 to 256 in steps of 0.1, for esolm_context_set_pass_overhead. The choice of tokens is not measured. Ends the
// current generation.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT (batch_rows or length less than 4); ESOLM_ERR_CANCELLED; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE;
// ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_context_measure_pass_overhead(esolm_context *context, float *out);

// Says what a pass costs beside its rows, in rows, for generations and sequences that begin from now on. By it
// ESOLM_LOOKAHEAD_AUTO and ESOLM_WINDOW_AUTO decide, so their texts depend on it. The default, which 0 stands for, is the same
// on every machine, and so are the texts: 2 with weights of at most 32 MB, which may stay in a processor's cache, and 10 with
// more.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT for less than 0, more than 256, or NaN; ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_context_set_pass_overhead(esolm_context *context, float rows);

// Frees a context that no call is using. NULL is allowed.
ESOLM_API void esolm_context_free(esolm_context *context);

// Drops the generation of a context: its tokens, texts and remaining steps. Memory, threads and a cancel stay.
//
// Errors: ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_context_reset(esolm_context *context);

// ---- Cancelling ----

// Makes the call that is running on this context end with ESOLM_ERR_CANCELLED (within the step; on other devices than
// the CPU between parts of a batch), and every later one at once, until esolm_cancel_reset. So it does not matter
// whether it comes just before a call or during it. Tokens written so far can still be copied, and esolm_step still
// reports a finished generation. May be called while the context is in use: from any thread, also from a callback. Lock-free.
ESOLM_API esolm_status esolm_cancel(const esolm_context *context);

// Undoes esolm_cancel: esolm_step continues as if nothing had happened, or another generation can begin. To cancel one
// piece of work and no later one, call this before other threads learn of the later one. Any thread, at any time;
// lock-free.
ESOLM_API esolm_status esolm_cancel_reset(const esolm_context *context);

// ---- Memory ----

// How much memory is used for what, in bytes. Set struct_size before a call that fills it.
typedef struct esolm_memory_use {
    // sizeof(esolm_memory_use)
    size_t struct_size;
    // The model's weights: in the mapped file, in host memory or on the device. All contexts share them. Where
    // ggml's kernels run on the CPU and matrices lie in panels, a copy of all in plain rows is counted, too.
    size_t weights;
    // A context's host memory: esolm_context_arena_size. On the CPU it includes the two below; those of another device
    // are in its memory.
    size_t arena;
    // The K/V cache: keys and values of the known tokens.
    size_t kv_cache;
    // Activations, logits and scratch memory of the operations.
    size_t compute;
} esolm_memory_use;

// Writes to *memory the exact memory of a context with these parameters (NULL: the defaults), without making it.
// memory->struct_size must be set; on failure the other fields are 0. Any thread.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED.
ESOLM_API esolm_status esolm_context_memory_use(const esolm_model *model,
                                                const esolm_context_params *params,
                                                esolm_memory_use *memory);

// Writes to *memory the memory that the model in the file at path and a context of it would take. Reads the metadata
// of the file, not its weights, so it is quick. model_params and context_params may be NULL for the defaults.
// memory->struct_size must be set; on failure the other fields are 0. Any thread.
//
// Errors: as esolm_model_open and esolm_context_memory_use.
ESOLM_API esolm_status esolm_memory_estimate(const char *path,
                                             const esolm_model_params *model_params,
                                             const esolm_context_params *context_params,
                                             esolm_memory_use *memory);

// ---- Prompts ----

// The known tokens of one sequence. This struct will not change.
typedef struct esolm_prompt {
    // The tokens; may be NULL if count is 0.
    const uint32_t *tokens;
    // Their positions in the text, from 0, in any order, no position twice. NULL: 0, 1, 2 and so on.
    const uint32_t *positions;
    // Number of tokens. 0: the model writes the whole text. A model whose key esolm.needs_first_token is true needs the
    // token at position 0.
    size_t count;
} esolm_prompt;

// ---- Constraints ----

// The tokens that are allowed at one position. This struct will not change.
typedef struct esolm_allowed_tokens {
    // The position in the text.
    uint32_t position;
    // Reserved, must be 0.
    uint32_t reserved;
    // The allowed tokens.
    const uint32_t *tokens;
    // Their number, at least 1.
    size_t n_tokens;
} esolm_allowed_tokens;

// A number that is added to the logits of one token. This struct will not change.
typedef struct esolm_logit_bias {
    // The token.
    uint32_t token;
    // Any finite number.
    float bias;
} esolm_logit_bias;

// Rules for the tokens of a sequence, applied in the order repetition, frequency and presence penalty, DRY, bias, banned,
// allowed. Set struct_size and leave unused fields 0. Copied when a generation begins.
typedef struct esolm_constraints {
    // sizeof(esolm_constraints)
    size_t struct_size;
    // Positions at which only some tokens are allowed, no position twice.
    const esolm_allowed_tokens *allowed;
    // Number of these positions.
    size_t n_allowed;
    // Tokens that are never written.
    const uint32_t *banned;
    // Number of banned tokens.
    size_t n_banned;
    // Tokens that are made more or less likely, no token twice.
    const esolm_logit_bias *bias;
    // Number of biased tokens.
    size_t n_bias;
    // Above 1: tokens that are anywhere in the text before the step become less likely; a positive logit is divided by
    // this, a negative one multiplied. 0 and 1: no penalty.
    float repetition_penalty;
    // Reserved, must be 0.
    uint32_t reserved;
    // Subtracted from the logit of a token for each time that it is anywhere in the text before the step. 0: no penalty.
    float frequency_penalty;
    // Subtracted from the logit of a token that is anywhere in the text before the step. 0: no penalty.
    float presence_penalty;
    // DRY ("don't repeat yourself"): if the last n tokens directly left of a position, n at least dry_allowed_length, occur
    // earlier, too, the logit of the token that followed there is lowered by dry_multiplier * dry_base^(n -
    // dry_allowed_length). The tokens left of a position end at the first that is not written yet. 0: no penalty.
    float dry_multiplier;
    // At least 1; 0: 1.75.
    float dry_base;
    // 0: 2.
    uint32_t dry_allowed_length;
    // How many tokens left of a position are looked at; 0: all.
    uint32_t dry_range;
    // Tokens that end a repetition (sequence breakers), such as those with a line break or a quotation mark.
    const uint32_t *dry_breakers;
    // Number of entries in dry_breakers.
    size_t n_dry_breakers;
    // A regular expression that the written text must match: one hole, or all that follows the prompt, from left to right
    // and one token per step. The syntax is that of Rust's regex crate, without look-around, anchors and word boundaries.
    // NUL-terminated UTF-8; NULL: none. Beginning and steps then allocate. A build without the feature "grammar" returns
    // ESOLM_ERR_UNSUPPORTED.
    const char *regex;
    // The same with a JSON schema, of which the written text is a value. At most one of the two is given.
    const char *json_schema;
} esolm_constraints;

// ---- Logits ----

// A row of logits, from which the token of one position is about to be drawn. This struct will not change.
typedef struct esolm_logits_row {
    // The sequence: the index of its prompt.
    uint32_t sequence;
    // The position in the text.
    uint32_t position;
    // The slot: the place in generation order.
    uint32_t slot;
    // Reserved, always 0.
    uint32_t reserved;
    // Number of logits: the size of the vocabulary.
    size_t n_logits;
    // The network's own output, before constraints.
    const float *model_logits;
} esolm_logits_row;

// Called with the n_logits logits that a token is drawn from, to read or change: after constraints, before
// temperature and filters. Minus infinity excludes a token; the mask token always is. A non-zero return ends the
// step with ESOLM_ERR_CANCELLED as if it had not begun. Runs on the thread of esolm_step or esolm_generate; must not
// throw or longjmp, and may call on the context only what reads ("Threads" above), esolm_cancel and esolm_cancel_reset.
typedef int32_t (*esolm_logits_callback)(const esolm_logits_row *row, float *logits, void *user_data);

// ---- Generation parameters ----

// Diffusion at random positions, then the rest left to right, as in training.
#define ESOLM_ORDER_RANDOM 0
// Left to right in both phases.
#define ESOLM_ORDER_LEFT_TO_RIGHT 1
// Step j writes the positions j, j + order_size, j + 2 order_size and so on, so the tokens of a step are far apart;
// then the rest left to right. order_size is 1 to the length.
#define ESOLM_ORDER_STRIDED 2
// As ESOLM_ORDER_STRIDED, with the steps, and the tokens of each step, in random order.
#define ESOLM_ORDER_STRIDED_SHUFFLED 3
// Semi-autoregressive: blocks of order_size adjacent positions from left to right, in random order inside a block.
#define ESOLM_ORDER_BLOCKS 4
// The caller's order: esolm_generate_params.custom_order.
#define ESOLM_ORDER_CUSTOM 5

// Not used: the schedule says how many tokens a step writes.
#define ESOLM_CONFIDENCE_NONE 0
// A token is certain if the largest probability is at least threshold.
#define ESOLM_CONFIDENCE_PROBABILITY 1
// A token is certain if the largest probability exceeds the second largest by at least threshold.
#define ESOLM_CONFIDENCE_MARGIN 2
// A token is certain if the entropy in nats is at most threshold.
#define ESOLM_CONFIDENCE_ENTROPY 3

// For temperature, top_p, min_p, typical_p and top_n_sigma in esolm_generate_params: what the model's file says
// (esolm.default.temperature and so on), or the library's own default.
#define ESOLM_AUTO -1.0

// The same for esolm_generate_params.top_k.
#define ESOLM_TOP_K_AUTO UINT32_MAX

// For esolm_generate_params.alpha_0: by what else is asked for, and by the model.
#define ESOLM_ALPHA_0_AUTO -1.0

// For esolm_generate_params.lookahead: as many as pay.
#define ESOLM_LOOKAHEAD_AUTO UINT32_MAX

// For esolm_generate_params.window, with in_order or WeDLM: as many positions as pay, to 32.
#define ESOLM_WINDOW_AUTO UINT32_MAX

// What to generate. Set by esolm_generate_params_init.
//
// A row of logits becomes a token in this order: constraints, logits_callback, temperature, top_n_sigma, top_k, typical_p,
// top_p, min_p, draw. (That is llama.cpp's order, except that the temperature comes first.)
typedef struct esolm_generate_params {
    // sizeof(esolm_generate_params)
    size_t struct_size;
    // Tokens of a sequence, the prompt's included. 0 (default): the context's length.
    size_t length;
    // Steps of the diffusion phase, at most 1048576. 0 (default): the file's esolm.default.steps, or 128. Steps
    // that write nothing are left out.
    size_t steps;
    // The same seed, parameters and prompts give the same text on the same machine (default 0).
    uint64_t seed;
    // Share of the unknown tokens that diffusion writes in parallel, 0 to 1; the others are written one by one, left to
    // right. A model whose key esolm.diffusion_only is true takes 1 only. ESOLM_ALPHA_0_AUTO (default): 1 if confidence, a
    // window or an order other than left to right is given, or if the model does nothing else; otherwise the file's
    // esolm.default.alpha_0, or 0, which writes the best text (WeDLM: or 1, its window, without lookahead). With steps or a
    // schedule it is 1 where it would be 0; with a grammar it is 0, unless confidence, a window, an order, steps or a schedule
    // is given.
    double alpha_0;
    // Divides the logits, at least 0 (default: ESOLM_AUTO, the file's or 1, of WeDLM 0.2). 0: always the most likely token.
    float temperature;
    // Nucleus sampling: draws from the most likely tokens whose probabilities add up to this, above 0 to 1 (default:
    // ESOLM_AUTO, the file's or 0.9, of WeDLM 1). 1: no limit.
    float top_p;
    // Draws from this many of the most likely tokens (default: ESOLM_TOP_K_AUTO, the file's or 0). 0: no limit.
    uint32_t top_k;
    // The order in which positions are written: ESOLM_ORDER_*.
    int32_t order;
    // The stride or block size of ESOLM_ORDER_STRIDED, ESOLM_ORDER_STRIDED_SHUFFLED and ESOLM_ORDER_BLOCKS.
    size_t order_size;
    // For ESOLM_ORDER_CUSTOM: every position of the text once.
    const uint32_t *custom_order;
    // Number of entries in custom_order: the length.
    size_t n_custom_order;
    // How many tokens each step of the diffusion phase writes; the last number is repeated while tokens are left. NULL
    // (default): drawn as in training, or a row per step for strided orders.
    const uint32_t *schedule;
    // Number of entries in schedule.
    size_t n_schedule;
    // Pointers to the rules of the sequences, each of which may be NULL: no rules.
    const esolm_constraints *const *constraints;
    // 0 (default): no rules. 1: the same rules for all sequences. Otherwise one for each sequence.
    size_t n_constraints;
    // Reads or changes the logits of every token; NULL (default): not called. It and logits_user_data must stay valid
    // for all steps of the generation.
    esolm_logits_callback logits_callback;
    // Passed to logits_callback.
    void *logits_user_data;
    // 1: fill esolm_step_info.log_probs, which takes a little time. 0 (default): do not.
    int32_t log_probs;
    // Adaptive steps: each writes the tokens that are certain, by the measure ESOLM_CONFIDENCE_* (default:
    // ESOLM_CONFIDENCE_NONE), at least one. Needs alpha_0 = 1 and no schedule; not for autoregressive models.
    int32_t confidence;
    // Number of positions that an adaptive step considers, at least 1. ESOLM_WINDOW_AUTO (with in_order or WeDLM): as many as pay,
    // to 32, by those filled so far and by a fixed formula for the time of a step, not by a clock: the text depends on it, and
    // the same seed gives the same one. Without confidence a window slides by WeDLM's rule: in order, an entropy of 0.4, a
    // penalty of 0.02.
    size_t window;
    // With confidence: how certain is certain enough, at least 0.
    float threshold;
    // How many tokens a step proposes, of which it writes as many as the model would have drawn one by one, and one more: the
    // text has the same distribution in fewer steps. At most 16; ESOLM_LOOKAHEAD_AUTO: as many as pay, by those accepted so
    // far. 0 (default): one token per step. It acts where steps write one token each, without logits_callback; WeDLM writes one
    // by one with it (alpha_0 of 0). Only for Eso-LM and WeDLM (ESOLM_ERR_UNSUPPORTED); needs esolm_context_params.batch_rows of
    // three times as many and one. esolm_begin allocates memory for the proposals.
    uint32_t lookahead;
    // Most tokens of a sequence behind its prompt. 0 (default): no limit but the length; with both, the smaller one counts.
    size_t max_tokens;
    // Tokens that end a text when the model writes them behind the prompt, as the end-of-text token does. (What is written
    // before the prompt's last token, and at position 0, ends no text.)
    const uint32_t *stop_tokens;
    // Number of entries in stop_tokens.
    size_t n_stop_tokens;
    // Texts in UTF-8, at most 64 of 1 to 1024 bytes, that end a text when the model writes them behind the prompt, over
    // any borders of tokens; the text ends before them.
    const char *const *stop_strings;
    // Number of entries in stop_strings.
    size_t n_stop_strings;
    // 1: the end-of-text token is a token as others are (it may still be written). 0 (default): it ends a text.
    int32_t ignore_eos;
    // 1: fill esolm_step_info.texts. 0 (default): do not.
    int32_t step_text;
    // Leaves out the tokens that are less likely than this times the most likely one, 0 to 1 (default: ESOLM_AUTO,
    // the file's or 0). 0: none.
    float min_p;
    // Locally typical sampling: draws from the tokens whose information content is nearest to the entropy and whose
    // probabilities add up to this, above 0 to 1 (default: ESOLM_AUTO, the file's or 1). 1: no limit.
    float typical_p;
    // Leaves out the tokens whose logit is more than this many standard deviations of the logits below the largest, at
    // least 0 (default: ESOLM_AUTO, the file's or 0). 0: none.
    float top_n_sigma;
    // How many of the most likely tokens at each written position esolm_copy_top_log_probs has: less than the size of the
    // vocabulary. 0 (default): none. esolm_begin allocates memory for them, and log_probs is as if it were 1.
    uint32_t top_log_probs;
    // With confidence: what is taken from it for each position that one is behind the first of the step's, so that earlier
    // ones come first. 0 is off.
    float penalty;
    // With confidence: whether the window slides from left to right; accepted tokens stay, but are computed anew in each step
    // until there is no unknown position before them. WeDLM always does; Eso-LM (B) can. 1 without confidence: WeDLM's rule,
    // with a window of 16 unless there is another.
    int32_t in_order;
} esolm_generate_params;

// Sets the defaults; size is sizeof(esolm_generate_params).
ESOLM_API esolm_status esolm_generate_params_init(esolm_generate_params *params, size_t size);

// ---- Steps ----

// The text is being written.
#define ESOLM_STOP_NONE 0
// The text has its length: esolm_generate_params.length or max_tokens.
#define ESOLM_STOP_LENGTH 1
// The model wrote its end-of-text token.
#define ESOLM_STOP_END_OF_TEXT 2
// The model wrote one of esolm_generate_params.stop_tokens.
#define ESOLM_STOP_TOKEN 3
// The model wrote one of esolm_generate_params.stop_strings.
#define ESOLM_STOP_STRING 4
// The last call was cancelled, by esolm_cancel or a callback; esolm_step may go on.
#define ESOLM_STOP_CANCELLED 5
// The last step failed; esolm_step may try again.
#define ESOLM_STOP_ERROR 6

// A token that a step wrote. This struct will not change.
typedef struct esolm_update {
    // The sequence: the index of its prompt, or the number that esolm_sequence_add wrote.
    uint32_t sequence;
    // The position in the text.
    uint32_t position;
    // The token.
    uint32_t token;
} esolm_update;

// The text of a sequence that became final in a step. This struct will not change.
typedef struct esolm_step_text {
    // Whole characters of UTF-8 with a NUL: what follows what was there already, without a gap, up to what may yet become a
    // stop string. esolm_copy_text after esolm_begin, which is the prompt's text, and these texts, one behind the other,
    // are the text at the end. Valid as long as esolm_step_info.updates.
    const char *text;
    // Its length in bytes, without the NUL.
    size_t len;
    // The sequence: its index here, too. (The text of one that was removed is empty.)
    uint32_t sequence;
    // Why its text ended: ESOLM_STOP_*.
    int32_t stop_reason;
} esolm_step_text;

// What a step did. Before esolm_step set struct_size.
typedef struct esolm_step_info {
    // sizeof(esolm_step_info)
    size_t struct_size;
    // Number of the step, from 0.
    size_t index;
    // Number of steps of the generation, with those that feed prompts only; with esolm_generate_params.confidence or
    // lookahead the maximum.
    size_t total;
    // The tokens written; none by a step that fed prompts only (esolm_context_params.prompt_rows). Valid until the
    // callback returns or, from esolm_step, until the next call on the context.
    const esolm_update *updates;
    // Number of updates.
    size_t n_updates;
    // The log-probability (natural) of each token under the model, before constraints, temperature and filters; valid as
    // long as updates. NULL unless esolm_generate_params.log_probs is 1.
    const double *log_probs;
    // The new text of each sequence; valid as long as updates. NULL unless esolm_generate_params.step_text is 1.
    const esolm_step_text *texts;
    // Number of texts: one more than the number of the last sequence, or 0.
    size_t n_texts;
    // How many tokens the sequences' lookahead had proposed for this step (esolm_generate_params.lookahead).
    size_t n_proposed;
    // How many of them are among the updates.
    size_t n_accepted;
} esolm_step_info;

// ---- Generating ----

// Called after each step; a non-zero return ends the call with ESOLM_ERR_CANCELLED. Runs on the thread of
// esolm_generate; must not throw or longjmp. On the context it may call esolm_copy_*, esolm_stop_reason, esolm_context_profile,
// esolm_cancel and esolm_cancel_reset; what computes or changes something returns ESOLM_ERR_BUSY.
typedef int32_t (*esolm_step_callback)(const esolm_step_info *step, void *user_data);

// A token and its log-probability (natural) under the model. This struct will not change.
typedef struct esolm_token_log_prob {
    // The token.
    uint32_t token;
    // Before constraints, temperature and filters.
    float log_prob;
} esolm_token_log_prob;

// Generates one sequence per prompt, to the end. callback, which may be NULL, is called after every step, also of those
// that only feed a part of the prompts (esolm_context_params.prompt_rows); read the result with esolm_copy_text or
// esolm_copy_tokens. params may be NULL for the defaults. Allocations: see "Memory" above.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT for too many prompts, a parameter, position or token out of range, constraints
// that cannot be met, or a logits callback that excludes all tokens; ESOLM_ERR_UNSUPPORTED; ESOLM_ERR_CANCELLED;
// ESOLM_ERR_BUSY; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE. What was written before a failure stays readable.
ESOLM_API esolm_status esolm_generate(esolm_context *context,
                                      const esolm_prompt *prompts,
                                      size_t n_prompts,
                                      const esolm_generate_params *params,
                                      esolm_step_callback callback,
                                      void *user_data);

// Begins a generation of one sequence per prompt, which replaces the previous one; esolm_step runs it. Arguments and
// errors are as in esolm_generate. If it fails, the previous generation is still there.
ESOLM_API esolm_status esolm_begin(esolm_context *context,
                                   const esolm_prompt *prompts,
                                   size_t n_prompts,
                                   const esolm_generate_params *params);

// Continues from all known tokens without computing them again, and drops the steps that are left: a finished text
// becomes the beginning of one with params->length tokens. Each sequence has one prompt, with further known tokens
// (count 0: none, as for one that was removed). params should have another seed. esolm_step runs it. Arguments are as in esolm_generate.
//
// Errors: as esolm_generate, and ESOLM_ERR_INVALID_ARGUMENT if the text would get shorter; ESOLM_ERR_UNSUPPORTED for
// models whose keys and values are not kept between steps: Eso-LM (A), MDLM. The previous generation is then still
// there.
ESOLM_API esolm_status esolm_extend(esolm_context *context,
                                    const esolm_prompt *prompts,
                                    size_t n_prompts,
                                    const esolm_generate_params *params);

// Runs the next step: *done is 0 and *info, whose struct_size is set, says what it wrote. If the generation is finished,
// no step is run, *done is 1 and *info is zero but for its size. info may be NULL. Allocations: see "Memory" above.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if the logits callback excludes all tokens; ESOLM_ERR_CANCELLED; ESOLM_ERR_BUSY;
// ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE; ESOLM_ERR_OUT_OF_MEMORY. The state is then as before the call, *done is 0 and *info is
// zero but for its size. Only with ESOLM_ERR_OUT_OF_MEMORY where new text had no room (see "Memory") the tokens are written, and
// all texts since come with the next step, if there is one (esolm_copy_text has them all).
ESOLM_API esolm_status esolm_step(esolm_context *context, esolm_step_info *info, int32_t *done);

// Copies the order in which the positions of a sequence are generated: the known ones first, in any order, then the
// others in the order of the steps; while a window slides, whose order its tokens decide, those that are final.
// esolm_score_order takes that of a whole text. capacity and *n_out are as in esolm_tokenize. As all esolm_copy_* it copies
// what the last step left, from any thread, also in a callback and while another call computes, and disturbs neither.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL.
ESOLM_API esolm_status esolm_copy_order(esolm_context *context,
                                        uint32_t sequence,
                                        uint32_t *positions,
                                        size_t capacity,
                                        size_t *n_out);

// Copies the most likely tokens at the position of update number update of the last step, the likeliest first, as many
// as esolm_generate_params.top_log_probs says. capacity and *n_out are as in esolm_tokenize.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such update or top_log_probs is 0; ESOLM_ERR_BUFFER_TOO_SMALL.
ESOLM_API esolm_status esolm_copy_top_log_probs(esolm_context *context,
                                                size_t update,
                                                esolm_token_log_prob *entries,
                                                size_t capacity,
                                                size_t *n_out);

// Copies the tokens of a sequence by position, with the model's mask token where none is written yet. capacity and
// *n_out are as in esolm_tokenize.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL.
ESOLM_API esolm_status esolm_copy_tokens(esolm_context *context,
                                         uint32_t sequence,
                                         uint32_t *tokens,
                                         size_t capacity,
                                         size_t *n_out);

// Copies the text of a sequence up to the first unknown token, or to what ended it: whole characters of UTF-8 with a NUL,
// without the tokens that begin and end a text. It only grows during a generation. capacity and *len_out are as in
// esolm_detokenize.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT, ESOLM_ERR_BUFFER_TOO_SMALL, ESOLM_ERR_OUT_OF_MEMORY, ESOLM_ERR_TOKENIZER.
ESOLM_API esolm_status esolm_copy_text(esolm_context *context,
                                       uint32_t sequence,
                                       char *text,
                                       size_t capacity,
                                       size_t *len_out);

// Writes to *out why the text of a sequence ended: ESOLM_STOP_*. Its tokens then are those up to its end, with the one
// that ended it. From any thread, as esolm_copy_text.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT.
ESOLM_API esolm_status esolm_stop_reason(esolm_context *context, uint32_t sequence, int32_t *out);

// ---- Sequences that come and go ----

// Adds a sequence to the generation, between two steps or in a new context, and writes its number to *sequence. The
// others are not disturbed: esolm_step runs the next step of each in one pass of the network (continuous batching). The
// text is the one that the prompt would get alone in a generation with these parameters. prompt may be NULL: no token is
// known. params is as in esolm_generate, with one entry of constraints at most.
//
// If the prompt begins as a sequence of this context, also one that has been removed, its keys and values there are
// copied instead of computed, with the same result (models with ESOLM_FEATURE_STATES; of BD3-LM whole blocks); where another one that
// joined before is still reading at least half of the prompt, this one waits for it (with the library's own kernels). Steps report log_probs of
// all sequences if one wants them, and as many top_log_probs as the one that wants the most. A long prompt takes several
// steps, which write nothing of it yet (esolm_context_params.prompt_rows).
//
// If a logits callback or constraints leave a sequence no token, esolm_step fails and esolm_stop_reason is
// ESOLM_STOP_ERROR for this one alone; the others go on once it is removed.
//
// Errors: as esolm_generate, and ESOLM_ERR_INVALID_ARGUMENT if all sequences of the context are in use.
ESOLM_API esolm_status esolm_sequence_add(esolm_context *context,
                                          const esolm_prompt *prompt,
                                          const esolm_generate_params *params,
                                          uint32_t *sequence);

// As esolm_extend for one sequence of a generation; the others are not disturbed.
//
// Errors: as esolm_extend, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
ESOLM_API esolm_status esolm_sequence_extend(esolm_context *context,
                                             uint32_t sequence,
                                             const esolm_prompt *prompt,
                                             const esolm_generate_params *params);

// Goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from there (NULL: 0, 1, 2
// and so on); the others are not disturbed. The text ends at its first gap or with the token that ended it, or earlier: at
// most its first keep tokens stay (SIZE_MAX: all). The keys and values of what stays are kept, so the steps compute the new
// tokens only, and those of the last step. params->max_tokens counts behind the prompt. The call allocates 8 bytes for each token
// of the prompt and frees them.
//
// The result is the one of a text that has these tokens in this order: of an autoregressive model the one of a new prompt, of
// Eso-LM (B) the one of the order in which the tokens became known.
//
// Errors: as esolm_extend, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
ESOLM_API esolm_status esolm_sequence_append(esolm_context *context,
                                             uint32_t sequence,
                                             size_t keep,
                                             const esolm_prompt *prompt,
                                             const esolm_generate_params *params);

// Copies the state of one sequence for esolm_sequence_restore, as esolm_state_save does that of all: such as a conversation that waits for
// its next message while others have its place. The others are not disturbed. capacity and *size_out are as there. (llama.cpp:
// llama_state_seq_get_data.)
//
// Errors: as esolm_state_save, and ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence.
ESOLM_API esolm_status esolm_sequence_save(esolm_context *context,
                                           uint32_t sequence,
                                           void *data,
                                           size_t capacity,
                                           size_t *size_out);

// Adds a saved sequence, size bytes at data, to the generation, between two steps or in a new context, and writes its number to
// *sequence: its tokens are known, no steps are left, and esolm_sequence_extend and esolm_sequence_append go on with it. The others are not
// disturbed. The bytes are those of esolm_sequence_save, or of esolm_state_save with one sequence; they are checked. (llama.cpp:
// llama_state_seq_set_data.)
//
// Errors: as esolm_state_restore, and ESOLM_ERR_INVALID_ARGUMENT if all sequences of the context are in use, or for bytes of no sequence or
// of several. The other sequences are then still there.
ESOLM_API esolm_status esolm_sequence_restore(esolm_context *context,
                                              const void *data,
                                              size_t size,
                                              uint32_t *sequence);

// Removes a sequence, finished or not; read its text before. Its number may then be another's.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence; ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_sequence_remove(esolm_context *context, uint32_t sequence);

// Writes to *out how many tokens of a sequence have keys and values in the cache that the next steps need not compute.
// Before the first step of one that was added: those that came from another sequence.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence; ESOLM_ERR_BUSY.
ESOLM_API esolm_status esolm_sequence_cached_tokens(esolm_context *context, uint32_t sequence, size_t *out);

// ---- Evaluating ----

// Writes the network's logits at positions that are not written yet, given the tokens that are: esolm_model_info.vocab_size
// numbers for each of the n_positions positions, none twice. Each position is taken by itself, as if it were the next and
// only one of a step. (MDLM sees that the others are unknown.) Runs the network and changes nothing of the generation.
// logits has room for capacity numbers; *n_out is their number, also when they do not fit, and then none is written.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if there is no such sequence, or a position is beyond the text, written or given
// twice; ESOLM_ERR_UNSUPPORTED for any but the next position of an autoregressive model, and outside the block that
// BD3-LM writes, be they written or not; ESOLM_ERR_BUFFER_TOO_SMALL;
// ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE. The numbers are undefined after a failure.
ESOLM_API esolm_status esolm_evaluate_logits(esolm_context *context,
                                             uint32_t sequence,
                                             const uint32_t *positions,
                                             size_t n_positions,
                                             float *logits,
                                             size_t capacity,
                                             size_t *n_out);

// As esolm_evaluate_logits, but the probabilities that the token would be drawn with: after the generation's constraints,
// temperature and filters, without its logits callback. They add up to 1 for each position.
//
// Errors: as esolm_evaluate_logits.
ESOLM_API esolm_status esolm_evaluate_probabilities(esolm_context *context,
                                                    uint32_t sequence,
                                                    const uint32_t *positions,
                                                    size_t n_positions,
                                                    float *probabilities,
                                                    size_t capacity,
                                                    size_t *n_out);

// ---- States ----

// Copies the known part of the current generation for esolm_state_restore: tokens, order, keys and values. The steps
// that are left are not included, nor are parameters, constraints and the random numbers; esolm_extend takes new ones.
// So a generation that is saved halfway continues from the same tokens, but to another text.
//
// At most capacity bytes are written, their number in *size_out. If they do not fit, none is written and *size_out is
// the number needed (ESOLM_ERR_BUFFER_TOO_SMALL), which is found without saving; with capacity 0, data may be NULL.
// Otherwise the call allocates as many bytes and frees them.
//
// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_BUSY; ESOLM_ERR_UNSUPPORTED as in esolm_extend.
ESOLM_API esolm_status esolm_state_save(esolm_context *context, void *data, size_t capacity, size_t *size_out);

// Replaces the current generation by a saved state, size bytes at data: its tokens are known, no steps are left, and
// esolm_extend continues. The bytes are checked; those of another model and damaged ones are refused.
//
// Errors: ESOLM_ERR_BAD_FILE; ESOLM_ERR_INVALID_ARGUMENT if the context is too small for the state;
// ESOLM_ERR_UNSUPPORTED as in esolm_state_save; ESOLM_ERR_CANCELLED; ESOLM_ERR_BUSY; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE. The
// current generation is then still there, but for the last two on a device or with ESOLM_KERNELS_GGML, after which there is none.
ESOLM_API esolm_status esolm_state_restore(esolm_context *context, const void *data, size_t size);

// ---- Profile ----

// How the time of a generation's steps so far was spent, in seconds; waiting for other threads counts as what they do.
// Set struct_size before esolm_context_profile.
typedef struct esolm_profile {
    // sizeof(esolm_profile)
    size_t struct_size;
    // Matrix products of the transformer blocks.
    double blocks;
    // Attention over the keys and values in the cache.
    double attention;
    // The output layer: products with the vocabulary matrix.
    double vocabulary;
    // From logits to tokens: constraints, filters, drawing, the logits callback.
    double sampling;
    // Everything else in the steps.
    double rest;
} esolm_profile;

// Writes to *profile how the time of the steps since esolm_begin or esolm_extend was spent. profile->struct_size must
// be set; on failure the other fields are 0.
//
// Errors: ESOLM_ERR_UNSUPPORTED if ggml computes (ESOLM_KERNELS_GGML, another device, or widths that are not multiples
// of 8).
ESOLM_API esolm_status esolm_context_profile(esolm_context *context, esolm_profile *profile);

// ---- Scoring ----

// How to score a text. Set by esolm_score_params_init.
typedef struct esolm_score_params {
    // sizeof(esolm_score_params)
    size_t struct_size;
    // Number of orders in which each window of the text is scored, 0 to 2^20 (default 1). 0: none.
    size_t orders;
    // Number of diffusion times drawn for each window's diffusion bound, 0 to 2^20 (default 0). 0: no diffusion bound.
    size_t draws;
    // The seed for orders, times and masks (default 0).
    uint64_t seed;
    // Share of diffusion in that bound, 0 to 1 (default 1: the pure diffusion bound, NELBO).
    double alpha_0;
    // 0 (default): one order, left to right. 1: random orders.
    int32_t random_order;
    // Reserved, must be 0.
    uint32_t reserved;
} esolm_score_params;

// How likely a whole text is, in nats (natural logarithms). Set struct_size before esolm_score_text.
typedef struct esolm_text_score {
    // sizeof(esolm_text_score)
    size_t struct_size;
    // An upper bound of -log p(text): -log of the mean of p(text | order) over the orders (the importance-weighted
    // bound), tighter with more orders. 0 without orders.
    double nll;
    // The diffusion bound, averaged over the draws: -log p(text) is at most diffusion + sequential. 0 without draws.
    double diffusion;
    // Its standard error; NaN for one draw.
    double diffusion_error;
    // What the sequential phase adds to that bound if alpha_0 is less than 1.
    double sequential;
    // Its standard error; NaN for one draw.
    double sequential_error;
    // How many tokens have a probability: all but the first of each window with WeDLM and some autoregressive models, which have
    // to be given it. The mean is nll / scored_tokens.
    size_t scored_tokens;
} esolm_text_score;

// Sets the defaults; size is sizeof(esolm_score_params).
ESOLM_API esolm_status esolm_score_params_init(esolm_score_params *params, size_t size);

// Scores a text of any length, n_tokens tokens. It is cut into consecutive windows of the context's length, and each
// is scored by itself, as in training. Ends the context's generation. Allocates memory.
//
// params may be NULL for the defaults. log_p may be NULL; otherwise it has room for capacity numbers and gets the
// log-probability of each token, given those before it in its window's first order. score->struct_size must be set; on
// failure its other fields are 0 and log_p is unchanged. progress may be NULL; otherwise it is called after each
// window.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT for no tokens, tokens outside the vocabulary, parameters out of range, neither orders
// nor draws, and log_p without orders; ESOLM_ERR_BUFFER_TOO_SMALL if capacity is less than n_tokens;
// ESOLM_ERR_UNSUPPORTED for what the model cannot do (MDLM: orders; autoregressive models: random orders, diffusion);
// ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
ESOLM_API esolm_status esolm_score_text(esolm_context *context,
                                        const uint32_t *tokens,
                                        size_t n_tokens,
                                        const esolm_score_params *params,
                                        double *log_p,
                                        size_t capacity,
                                        esolm_text_score *score,
                                        esolm_progress_callback progress,
                                        void *user_data);

// Writes the log-probability (natural) of each token except the first n_known of an order, given all tokens before it
// in the order, as if generated one token at a time. For Eso-LM (A) this is the sequential phase, in which the known
// tokens attend to each other in both directions. Ends the context's generation. Allocates memory.
//
// tokens are the n_tokens tokens of the text by position, at most the context's length. order has each position once;
// NULL is left to right. log_p gets n_tokens - n_known numbers, in the order; on failure it is unchanged.
//
// Errors: ESOLM_ERR_INVALID_ARGUMENT if order does not have each position once, or a token is outside the vocabulary;
// ESOLM_ERR_BUFFER_TOO_SMALL if capacity is too small; ESOLM_ERR_UNSUPPORTED for MDLM; ESOLM_ERR_CANCELLED,
// ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
ESOLM_API esolm_status esolm_score_order(esolm_context *context,
                                         const uint32_t *tokens,
                                         const uint32_t *order,
                                         size_t n_tokens,
                                         size_t n_known,
                                         double *log_p,
                                         size_t capacity);

// As esolm_score_order, with all tokens after the first n_known of the order masked at once: one step of diffusion.
//
// Errors: as esolm_score_order, but ESOLM_ERR_UNSUPPORTED is for an autoregressive model.
ESOLM_API esolm_status esolm_score_masked(esolm_context *context,
                                          const uint32_t *tokens,
                                          const uint32_t *order,
                                          size_t n_tokens,
                                          size_t n_known,
                                          double *log_p,
                                          size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
