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
 * What is where
 *
 *     Models       esolm_model_open, esolm_model_open_memory: mapped or copied, on which device, with a progress
 *                  callback that may stop it. esolm_model_info_get, esolm_model_metadata_get, esolm_device_info_get.
 *     Text         esolm_tokenize, esolm_detokenize, esolm_token_bytes.
 *     Templates    esolm_tokenize_template makes a prompt of a text with holes: "Once {{mask 12}} after."
 *     Generating   esolm_generate with a callback for each step, or esolm_begin and esolm_step. Between the steps:
 *                  esolm_copy_text, esolm_copy_tokens, esolm_copy_order. From any thread: esolm_cancel.
 *     Orders       esolm_generate_params.order and .schedule: which positions come when, how many at once.
 *     Adaptive     esolm_generate_params.confidence, .window, .threshold: steps write what the model is sure of.
 *     Constraints  esolm_constraints: allowed, banned and biased tokens, repetition penalty.
 *     Logits       esolm_logits_callback reads and changes those of each token; esolm_step_info.log_probs says how
 *                  likely each token was.
 *     States       esolm_extend goes on from a finished text; esolm_state_save, esolm_state_restore.
 *     Scoring      How likely a given text is: esolm_score_text for any length, with bounds over orders and of
 *                  diffusion; esolm_score_order and esolm_score_masked token by token.
 *     Profile      Where the time goes: esolm_context_profile. Where memory goes: esolm_context_memory_use,
 *                  esolm_memory_estimate.
 *     Messages     esolm_set_log_callback.
 *
 *     Whole programs are in examples-c; esolm.hpp is the same for C++17.
 *
 * Errors
 *
 *     Calls that can fail return an esolm_status: ESOLM_OK (0) or an ESOLM_ERR_ value. Results go to
 *     out-pointers, which are zero or NULL after a failure. The one exception: with
 *     ESOLM_ERR_BUFFER_TOO_SMALL the count is the one needed. esolm_last_error() says what went wrong in the
 *     calling thread's last failing call. A pointer that is not documented as optional must not be NULL; if it
 *     is, the call fails with ESOLM_ERR_INVALID_ARGUMENT. Nothing here ends the process or prints, with the
 *     exceptions under "Fatal".
 *
 * Ownership
 *
 *     What a function makes through an out-pointer is released with the ..._free function of its type, once.
 *     A context holds a reference to its model, so the two may be freed in any order. Arguments are borrowed
 *     for the call only, except the memory that is given to esolm_model_open_memory (ESOLM_MODE_MAP) and
 *     esolm_context_new_in, the user data of esolm_set_log_callback, and that of esolm_generate_params.logits, which
 *     is for all steps of the generation. Strings that are returned belong to the library.
 *
 * Threads
 *
 *     Functions may be called from any thread. A model may be used by any number of threads at once; the usual
 *     way is one model and one context per thread. A context has one user at a time: a call that overlaps with
 *     another on the same context fails with ESOLM_ERR_BUSY and changes nothing. esolm_cancel and
 *     esolm_cancel_reset may be called at any time: a cancelled context refuses work until it is reset, so a
 *     cancel is never lost between two calls. Freeing something that another call is using is an error of the program.
 *
 * Structs that grow
 *
 *     Structs that start with struct_size may get more fields in later versions, at their end. Set them with
 *     their ..._params_init function, or set struct_size to sizeof; then programs and libraries of different
 *     versions work together. A field that the library does not know must be zero. Numbers that are named by
 *     ESOLM_ constants are range-checked.
 *
 * Memory
 *
 *     A context takes its working memory when it is made. esolm_begin, esolm_step and esolm_generate then
 *     allocate nothing on the CPU; a failing call allocates its message. (A model whose widths are no multiples
 *     of 8 is computed by ggml, which takes and returns two small blocks at each pass through the network. The
 *     constraints of a generation are copied when it begins.)
 *     esolm_context_arena_size tells the bytes that the model's computation needs, and
 *     esolm_context_new_in uses memory of the caller's for them. esolm_context_memory_use tells what they are for,
 *     esolm_memory_estimate tells it before the model is opened. Scoring and states take
 *     memory as they go.
 *
 * Fatal
 *
 *     A file that another process truncates while it is mapped (ESOLM_MODE_MAP) ends the process with SIGBUS;
 *     ESOLM_MODE_COPY avoids that. Small allocations that fail end the process, too; the large ones are
 *     reported. An exception that leaves a callback ends it as well. A damaged pointer or a wrong array length
 *     cannot be detected.
 */


#ifndef ESOLM_H
#define ESOLM_H

/* Generated from src/capi by `make header`; do not edit. */

#include <stddef.h>
#include <stdint.h>

/*
 Major version of the header.
 */
#define ESOLM_VERSION_MAJOR 0

/*
 Minor version of the header.
 */
#define ESOLM_VERSION_MINOR 1

/*
 Patch version of the header.
 */
#define ESOLM_VERSION_PATCH 0

/*
 Version of the binary interface: the number in the shared library's name. It changes when a program has to
 be compiled again.
 */
#define ESOLM_ABI_VERSION 0

/*
 Level of a message: something failed.
 */
#define ESOLM_LOG_ERROR 1

/*
 Level of a message: something is odd but works.
 */
#define ESOLM_LOG_WARN 2

/*
 Level of a message: progress of slow operations.
 */
#define ESOLM_LOG_INFO 3

/*
 Level of a message: for people who look for a defect.
 */
#define ESOLM_LOG_DEBUG 4

/*
 esolm_device_info.kind: the processor and main memory.
 */
#define ESOLM_DEVICE_CPU 0

/*
 esolm_device_info.kind: a graphics processor.
 */
#define ESOLM_DEVICE_GPU 1

/*
 esolm_device_info.kind: another accelerator.
 */
#define ESOLM_DEVICE_OTHER 2

/*
 esolm_model_params.mode: the file is mapped, and the memory that esolm_model_open_memory is given is used in
 place. Nothing is copied (but memory at an address that is not a multiple of 32).
 */
#define ESOLM_MODE_MAP 0

/*
 esolm_model_params.mode: the model is copied into memory of the library's own.
 */
#define ESOLM_MODE_COPY 1

/*
 esolm_context_params.kv_type: half precision. A model whose keys or values reach 65520 needs ESOLM_KV_F32: this
 library's kernels end a pass that has one with ESOLM_ERR_NOT_FINITE, ggml's make infinity of it.
 */
#define ESOLM_KV_F16 0

/*
 esolm_context_params.kv_type: single precision, for exact comparisons.
 */
#define ESOLM_KV_F32 1

/*
 esolm_context_params.kernels: this library's, made for few rows over a long cache. (A model whose widths are no
 multiples of 8 is computed by ggml's all the same.)
 */
#define ESOLM_KERNELS_OWN 0

/*
 esolm_context_params.kernels: ggml's. They do not look for keys and values that ESOLM_KV_F16 cannot hold.
 */
#define ESOLM_KERNELS_GGML 1

/*
 Alignment in bytes of the memory for esolm_context_new_in.
 */
#define ESOLM_ARENA_ALIGNMENT 64

/*
 esolm_generate_params.order: diffusion at random positions, then the rest left to right: what the models are trained
 for.
 */
#define ESOLM_ORDER_RANDOM 0

/*
 esolm_generate_params.order: from left to right, in both phases.
 */
#define ESOLM_ORDER_LEFT_TO_RIGHT 1

/*
 esolm_generate_params.order: step j writes the positions j, j + order_size, j + 2 order_size and so on, so that tokens
 of one step are far apart; then the rest left to right. order_size is 1 to the length.
 */
#define ESOLM_ORDER_STRIDED 2

/*
 esolm_generate_params.order: the same steps in random order, and the tokens in each.
 */
#define ESOLM_ORDER_STRIDED_SHUFFLED 3

/*
 esolm_generate_params.order: blocks of order_size neighbouring positions, from left to right, each whole before the
 next begins, random inside (semi-autoregressive).
 */
#define ESOLM_ORDER_BLOCKS 4

/*
 esolm_generate_params.order: the caller's, given_order.
 */
#define ESOLM_ORDER_GIVEN 5

/*
 esolm_generate_params.confidence: not asked for.
 */
#define ESOLM_CONFIDENCE_NONE 0

/*
 esolm_generate_params.confidence: the largest probability is at least threshold.
 */
#define ESOLM_CONFIDENCE_PROBABILITY 1

/*
 esolm_generate_params.confidence: the largest probability is larger than the second by at least threshold.
 */
#define ESOLM_CONFIDENCE_MARGIN 2

/*
 esolm_generate_params.confidence: the entropy in nats is at most threshold.
 */
#define ESOLM_CONFIDENCE_ENTROPY 3

/*
 A context: memory and threads for generating from a model. Made by esolm_context_new or
 esolm_context_new_in, freed by esolm_context_free. One call at a time may use it (others return
 ESOLM_ERR_BUSY), from any thread; esolm_cancel and esolm_cancel_reset work at any time.
 */
typedef struct esolm_context esolm_context;

/*
 A model: immutable, reference-counted, free to be used from any number of threads at once. Made by
 esolm_model_open or esolm_model_open_memory, released by esolm_model_free.
 */
typedef struct esolm_model esolm_model;

/*
 How a call ended: ESOLM_OK or one of ESOLM_ERR_*. Later versions may return values that are not listed here;
 treat them as failures.
 */
typedef int32_t esolm_status;

/*
 Receives a message: its level (ESOLM_LOG_*), and UTF-8 text that is valid during the call. It may be called
 from any thread, from several at once, and must not throw.
 */
typedef void (*esolm_log_callback)(int32_t level, const char *message, void *user_data);

/*
 A device. Set struct_size before esolm_device_info_get.
 */
typedef struct esolm_device_info {
    /*
     sizeof(esolm_device_info)
     */
    size_t struct_size;
    /*
     Free memory in bytes, as far as the device says.
     */
    uint64_t memory_free;
    /*
     All memory in bytes, as far as the device says.
     */
    uint64_t memory_total;
    /*
     ESOLM_DEVICE_CPU, ESOLM_DEVICE_GPU or ESOLM_DEVICE_OTHER.
     */
    int32_t kind;
    /*
     0
     */
    uint32_t reserved;
    /*
     The name by which esolm_model_params asks for it: "cpu", "cuda:0". NUL-terminated.
     */
    char name[64];
    /*
     The maker's name for it. NUL-terminated, cut where it is longer.
     */
    char description[192];
} esolm_device_info;

/*
 Is told how much of a long operation is done, from 0 to 1, and never less than before. 0 goes on, anything else
 stops it: the call then ends with ESOLM_ERR_CANCELLED. It runs on the thread of the call and must not throw or
 jump.
 */
typedef int32_t (*esolm_progress_callback)(double fraction, void *user_data);

/*
 How to open a model. Set by esolm_model_params_init.
 */
typedef struct esolm_model_params {
    /*
     sizeof(esolm_model_params)
     */
    size_t struct_size;
    /*
     The device that computes: "cpu", "cuda:0", or another name that esolm_device_info tells. NULL or "auto"
     is the first GPU, else the CPU.
     */
    const char *device;
    /*
     ESOLM_MODE_MAP or ESOLM_MODE_COPY.
     */
    int32_t mode;
    /*
     0
     */
    uint32_t reserved;
    /*
     Is told how much of the file is in place, and may stop the opening; NULL (the default) is nobody. A file that
     is mapped for the CPU is in place at once.
     */
    esolm_progress_callback progress;
    /*
     What progress is given.
     */
    void *progress_data;
} esolm_model_params;

/*
 What a model is. Set struct_size before esolm_model_info_get.
 */
typedef struct esolm_model_info {
    /*
     sizeof(esolm_model_info)
     */
    size_t struct_size;
    /*
     Longest sequence in tokens.
     */
    size_t context_length;
    /*
     Tokens of the vocabulary, the mask token included.
     */
    size_t vocab_size;
    /*
     The token that stands for one that is not known yet.
     */
    uint32_t mask_token;
    /*
     The token that ends a text, -1 if there is none.
     */
    int32_t eos_token;
    /*
     Number of weights.
     */
    uint64_t parameters;
    /*
     Bytes of the weights.
     */
    uint64_t tensor_bytes;
    /*
     Bytes of the whole file.
     */
    uint64_t file_bytes;
    /*
     How long opening took, in microseconds.
     */
    uint64_t load_time_us;
} esolm_model_info;

/*
 The limits of a context. Set by esolm_context_params_init; everywhere 0 is the default.
 */
typedef struct esolm_context_params {
    /*
     sizeof(esolm_context_params)
     */
    size_t struct_size;
    /*
     Most sequences generated side by side (default 1).
     */
    size_t sequences;
    /*
     Longest sequence in tokens (default and maximum: the model's context length).
     */
    size_t length;
    /*
     Most rows that go through the network at once (default 128). Fewer need less memory; the result is the
     same. A text is scored in an order in one pass if this is twice its tokens.
     */
    size_t pass_rows;
    /*
     CPU threads (default: one per core). They sleep between the calls.
     */
    size_t threads;
    /*
     Precision of the K/V cache: ESOLM_KV_F16 or ESOLM_KV_F32.
     */
    int32_t kv_type;
    /*
     Who computes on the CPU: ESOLM_KERNELS_OWN or ESOLM_KERNELS_GGML. (Other devices are always ggml's.)
     */
    int32_t kernels;
} esolm_context_params;

/*
 Where memory goes, in bytes. Set struct_size before a call that fills it.
 */
typedef struct esolm_memory_use {
    /*
     sizeof(esolm_memory_use)
     */
    size_t struct_size;
    /*
     The model's weights, in the mapped file, in memory of their own or on the device. All contexts share them.
     */
    size_t weights;
    /*
     A context's host memory: what esolm_context_arena_size tells. On the CPU the two below are in it, on
     another device they are the device's.
     */
    size_t arena;
    /*
     Keys and values of the known tokens.
     */
    size_t kv_cache;
    /*
     Activations, logits and what the operations work in.
     */
    size_t compute;
} esolm_memory_use;

/*
 A position, and the tokens of which one has to be there. This struct will not change.
 */
typedef struct esolm_allowed {
    /*
     Where in the text.
     */
    uint32_t position;
    /*
     0
     */
    uint32_t reserved;
    /*
     What may be there.
     */
    const uint32_t *tokens;
    /*
     How many, at least 1.
     */
    size_t n_tokens;
} esolm_allowed;

/*
 A token, and what is added to its logits. This struct will not change.
 */
typedef struct esolm_bias {
    /*
     The token.
     */
    uint32_t token;
    /*
     Any finite number.
     */
    float bias;
} esolm_bias;

/*
 Rules for the tokens of a sequence, applied in the order penalty, bias, banned, allowed. Set struct_size; zero
 everywhere else is no rule. Copied when a generation begins.
 */
typedef struct esolm_constraints {
    /*
     sizeof(esolm_constraints)
     */
    size_t struct_size;
    /*
     Positions where only some tokens may be, no position twice.
     */
    const struct esolm_allowed *allowed;
    /*
     How many.
     */
    size_t n_allowed;
    /*
     Tokens that are never written.
     */
    const uint32_t *banned;
    /*
     How many.
     */
    size_t n_banned;
    /*
     Tokens that are made likelier or less likely, none twice.
     */
    const struct esolm_bias *bias;
    /*
     How many.
     */
    size_t n_bias;
    /*
     Above 1 makes tokens less likely that are in the text before the step, wherever: a positive logit is divided by
     it, a negative one multiplied. 0 and 1 are none.
     */
    float repetition_penalty;
    /*
     0
     */
    uint32_t reserved;
} esolm_constraints;

/*
 A token that is about to be drawn, in a logits callback. This struct will not change.
 */
typedef struct esolm_choice {
    /*
     The sequence: the index of its prompt.
     */
    size_t sequence;
    /*
     The place in generation order.
     */
    size_t slot;
    /*
     The place in the text.
     */
    size_t position;
    /*
     The tokens of the vocabulary: how many numbers the two arrays have.
     */
    size_t n_logits;
    /*
     The network's own output.
     */
    const float *model_logits;
} esolm_choice;

/*
 Sees and changes the logits that a token is drawn from: after the constraints were applied, before temperature,
 top_k and top_p. Minus infinity rules a token out; the mask token always is. 0 goes on, anything else stops the step
 with ESOLM_ERR_CANCELLED as if it had not begun. It runs on the thread of esolm_step or esolm_generate, must not throw
 or jump, and may call nothing on the context but esolm_cancel and esolm_cancel_reset.
 */
typedef int32_t (*esolm_logits_callback)(const struct esolm_choice *choice,
                                         float *logits,
                                         void *user_data);

/*
 What to generate. Set by esolm_generate_params_init.
 */
typedef struct esolm_generate_params {
    /*
     sizeof(esolm_generate_params)
     */
    size_t struct_size;
    /*
     Tokens of a sequence, the prompt's included; 0 (the default) is the context's length.
     */
    size_t length;
    /*
     Steps of the diffusion phase, 1 to 1048576 (default 128). Steps that happen to write nothing are left out.
     */
    size_t steps;
    /*
     The same seed, parameters and prompts give the same text on the same machine (default 0).
     */
    uint64_t seed;
    /*
     Share of the unknown tokens that diffusion writes, in parallel, 0 to 1 (default 1); the rest is written
     one by one, left to right.
     */
    double alpha_0;
    /*
     Divides the logits, from 0 (default 1); 0 always takes the most likely token.
     */
    float temperature;
    /*
     Nucleus: only the most likely tokens that together exceed this probability, above 0 to 1 (default 1: no
     limit).
     */
    float top_p;
    /*
     Only so many of the most likely tokens; 0 (the default) is no limit.
     */
    uint32_t top_k;
    /*
     Which positions come when: ESOLM_ORDER_*.
     */
    int32_t order;
    /*
     The number that ESOLM_ORDER_STRIDED, ESOLM_ORDER_STRIDED_SHUFFLED or ESOLM_ORDER_BLOCKS takes.
     */
    size_t order_size;
    /*
     For ESOLM_ORDER_GIVEN: every position of the text once.
     */
    const uint32_t *given_order;
    /*
     How many these are: the length.
     */
    size_t n_given_order;
    /*
     How many tokens each step of the diffusion phase writes; the last number goes on as long as there are tokens.
     NULL (the default): as the noise that the models are trained with has it, or a row per step for strided
     orders.
     */
    const uint32_t *schedule;
    /*
     How many numbers.
     */
    size_t n_schedule;
    /*
     What may be written: n_constraints pointers, each of which may be NULL for no rule.
     */
    const struct esolm_constraints *const *constraints;
    /*
     0: no rules (the default); 1: the same for all sequences; otherwise one for each sequence.
     */
    size_t n_constraints;
    /*
     Sees and may change the logits of every token; NULL (the default): none. It and logits_data must be valid for
     all steps of the generation.
     */
    esolm_logits_callback logits;
    /*
     What logits is given.
     */
    void *logits_data;
    /*
     1 to have esolm_step_info.log_probs, which takes a little time; 0 (the default) not to.
     */
    int32_t log_probs;
    /*
     Steps that write what the model is sure of, by a measure of ESOLM_CONFIDENCE_*; ESOLM_CONFIDENCE_NONE (the
     default): the schedule says how many. Needs alpha_0 = 1 and no schedule; not for autoregressive models.
     */
    int32_t confidence;
    /*
     The positions that such a step looks at, at least 1.
     */
    size_t window;
    /*
     How sure is sure enough, from 0.
     */
    float threshold;
    /*
     0
     */
    uint32_t reserved;
} esolm_generate_params;

/*
 The known tokens of one sequence. This struct will not change.
 */
typedef struct esolm_prompt {
    /*
     The tokens; may be NULL if count is 0.
     */
    const uint32_t *tokens;
    /*
     Their positions in the text, from 0, in any order, none twice. NULL is 0, 1, 2 and so on.
     */
    const uint32_t *positions;
    /*
     How many; 0 leaves the whole text to the model.
     */
    size_t count;
} esolm_prompt;

/*
 A token that a step wrote. This struct will not change.
 */
typedef struct esolm_update {
    /*
     The sequence: the index of its prompt.
     */
    uint32_t sequence;
    /*
     Where in the text.
     */
    uint32_t position;
    /*
     What.
     */
    uint32_t token;
} esolm_update;

/*
 What a step did. This struct will not change.
 */
typedef struct esolm_step_info {
    /*
     The step's number, from 0.
     */
    size_t index;
    /*
     Steps of the whole generation; with esolm_generate_params.confidence the most there can be.
     */
    size_t total;
    /*
     The tokens written. In a callback they are valid until it returns, from esolm_step until the next call
     on the context.
     */
    const struct esolm_update *updates;
    /*
     How many.
     */
    size_t n_updates;
    /*
     The natural logarithm of each token's probability under the model (before constraints, temperature, top_k and
     top_p), in the updates' order and valid as long; NULL unless esolm_generate_params.log_probs asks for it.
     */
    const double *log_probs;
} esolm_step_info;

/*
 Is told what each step did. 0 goes on, anything else stops the generation. It runs on the thread that called
 esolm_generate, must not throw or jump, and may call nothing on the context but esolm_cancel and
 esolm_cancel_reset (everything else returns ESOLM_ERR_BUSY).
 */
typedef int32_t (*esolm_step_callback)(const struct esolm_step_info *step, void *user_data);

/*
 The time of a generation's steps so far, in seconds, by what it was spent on; waiting for other threads counts as what
 they do. Set struct_size before esolm_context_profile.
 */
typedef struct esolm_profile {
    /*
     sizeof(esolm_profile)
     */
    size_t struct_size;
    /*
     Products with the matrices of the blocks.
     */
    double blocks;
    /*
     Attention: queries over keys and values in the cache.
     */
    double attention;
    /*
     Products with the vocabulary's matrix.
     */
    double vocabulary;
    /*
     From logits to tokens: constraints, filters, draws, the logits callback.
     */
    double sampling;
    /*
     Everything else in the steps.
     */
    double rest;
} esolm_profile;

/*
 How a text is scored. Set by esolm_score_params_init.
 */
typedef struct esolm_score_params {
    /*
     sizeof(esolm_score_params)
     */
    size_t struct_size;
    /*
     Orders in which each window of the text is scored (default 1; at most 2^20); 0 leaves this out.
     */
    size_t orders;
    /*
     Times drawn for each window's bound with diffusion (default 0: leaves this out; at most 2^20).
     */
    size_t draws;
    /*
     Chooses orders, times and masks (default 0).
     */
    uint64_t seed;
    /*
     The share of diffusion in that bound, 0 to 1 (default 1: the diffusion bound, NELBO, alone).
     */
    double alpha_0;
    /*
     0 (default): one order, left to right. 1: random orders.
     */
    int32_t random_order;
    /*
     0
     */
    uint32_t reserved;
} esolm_score_params;

/*
 How likely a text is, all of it, in nats (natural logarithms). Set struct_size before esolm_score_text.
 */
typedef struct esolm_text_score {
    /*
     sizeof(esolm_text_score)
     */
    size_t struct_size;
    /*
     -log p(text) is at most this, -log of the mean over the orders of p(text | order): the importance-weighted
     bound, tighter the more orders. Zero without orders.
     */
    double nll;
    /*
     The bound of diffusion: the mean of the draws. -log p(text) is at most diffusion + sequential. Zero without
     draws.
     */
    double diffusion;
    /*
     Its standard error; NaN for one draw.
     */
    double diffusion_error;
    /*
     What the sequential phase adds to that bound where alpha_0 is less than 1.
     */
    double sequential;
    /*
     Its standard error; NaN for one draw.
     */
    double sequential_error;
} esolm_text_score;

/*
 The call did what it says.
 */
#define ESOLM_OK 0

/*
 An argument is NULL, out of range or malformed. Nothing was changed.
 */
#define ESOLM_ERR_INVALID_ARGUMENT 1

/*
 The operating system refused to open, read or map a file.
 */
#define ESOLM_ERR_IO 2

/*
 A file's content is damaged or not what its format promises.
 */
#define ESOLM_ERR_BAD_FILE 3

/*
 A valid request that this version or this build cannot serve.
 */
#define ESOLM_ERR_UNSUPPORTED 4

/*
 There is no such device, or it failed.
 */
#define ESOLM_ERR_DEVICE 5

/*
 Memory could not be had. Nothing was changed.
 */
#define ESOLM_ERR_OUT_OF_MEMORY 6

/*
 esolm_cancel was called, or a callback asked to stop. The tokens written so far can be read, and esolm_step goes
 on after a callback's stop; after esolm_cancel it does so once esolm_cancel_reset is called.
 */
#define ESOLM_ERR_CANCELLED 7

/*
 The context is in use by another call. Nothing was changed.
 */
#define ESOLM_ERR_BUSY 8

/*
 The caller's buffer is too small. Nothing was written to it but, for text, a terminating NUL.
 */
#define ESOLM_ERR_BUFFER_TOO_SMALL 9

/*
 The model has no tokenizer, or the tokenizer cannot do this.
 */
#define ESOLM_ERR_TOKENIZER 10

/*
 The network produced NaN or infinity: the model is damaged, or needs a K/V cache in f32. The message says which.
 */
#define ESOLM_ERR_NOT_FINITE 11

/*
 A defect of this library; please report it.
 */
#define ESOLM_ERR_INTERNAL 12

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the library that is linked, such as "0.1.0". Valid for good.
 */
const char *esolm_version(void);

/*
 ESOLM_ABI_VERSION of the library that is linked. Compare it with the header's where the library is loaded
 at run time.
 */
uint32_t esolm_abi_version(void);

/*
 The message of this thread's last failing call: UTF-8, one line, for people. Empty if no call failed. Valid
 until the next failing call on this thread.
 */
const char *esolm_last_error(void);

/*
 What a status means in general, such as "out of memory". Valid for good; never NULL.
 */
const char *esolm_status_text(esolm_status status);

/*
 Sends all later messages of this process's esolm to callback; NULL, as at the start, is silence. A message
 that another thread is just sending may still arrive at the old callback. Any thread.
 */
void esolm_set_log_callback(esolm_log_callback callback,
                            void *user_data);

/*
 Tells how many devices this build and this machine have, the CPU included. Any thread.
 */
esolm_status esolm_device_count(size_t *out);

/*
 Describes device number index, from 0. info->struct_size must be set; on failure the other fields are zero.
 Any thread.
 */
esolm_status esolm_device_info_get(size_t index,
                                   struct esolm_device_info *info);

/*
 Sets the defaults: device auto, ESOLM_MODE_MAP. size is sizeof(esolm_model_params).
 */
esolm_status esolm_model_params_init(struct esolm_model_params *params, size_t size);

/*
 Opens the GGUF file at path.

 params may be NULL for the defaults. *out is a model with one reference, NULL on failure. In ESOLM_MODE_MAP
 the file must not be changed while the model, or a context of it, lives.

 Errors: ESOLM_ERR_IO, ESOLM_ERR_BAD_FILE, ESOLM_ERR_UNSUPPORTED, ESOLM_ERR_DEVICE, ESOLM_ERR_OUT_OF_MEMORY;
 ESOLM_ERR_CANCELLED if params->progress asks to stop.
 */
esolm_status esolm_model_open(const char *path,
                              const struct esolm_model_params *params,
                              struct esolm_model **out);

/*
 Opens a model whose GGUF file is in memory: size bytes at data.

 In ESOLM_MODE_MAP the memory is used in place: it must stay as it is until the model and all contexts made
 from it are freed. In ESOLM_MODE_COPY it may go after the call. All else is as in esolm_model_open.
 */
esolm_status esolm_model_open_memory(const void *data,
                                     size_t size,
                                     const struct esolm_model_params *params,
                                     struct esolm_model **out);

/*
 Adds a reference, to be released by one more esolm_model_free.
 */
esolm_status esolm_model_retain(const struct esolm_model *model);

/*
 Releases a reference; the last one frees the model. Contexts made from it hold references of their own.
 NULL is allowed.
 */
void esolm_model_free(struct esolm_model *model);

/*
 Describes a model. info->struct_size must be set; on failure the other fields are zero.
 */
esolm_status esolm_model_info_get(const struct esolm_model *model, struct esolm_model_info *info);

/*
 Tells how many keys the file's metadata has. Any thread.
 */
esolm_status esolm_model_metadata_count(const struct esolm_model *model, size_t *out);

/*
 Copies key number index, from 0, of the file's metadata: UTF-8 and a NUL. capacity and *len_out are as in
 esolm_detokenize. Any thread.
 */
esolm_status esolm_model_metadata_key(const struct esolm_model *model,
                                      size_t index,
                                      char *key,
                                      size_t capacity,
                                      size_t *len_out);

/*
 Copies the value of a key of the file's metadata, such as "general.name": UTF-8 and a NUL. Text is as it is, a
 number in decimal, a truth value "true" or "false", an array "[1, 2]" or, with JSON's escapes, "[\"a\", \"b\"]".
 capacity and *len_out are as in esolm_detokenize. Any thread.

 Errors: ESOLM_ERR_INVALID_ARGUMENT also if there is no such key.
 */
esolm_status esolm_model_metadata_get(const struct esolm_model *model,
                                      const char *key,
                                      char *text,
                                      size_t capacity,
                                      size_t *len_out);

/*
 Makes tokens of text_len bytes of UTF-8.

 Writes at most capacity tokens and their number to *n_out. If they do not fit, the result is
 ESOLM_ERR_BUFFER_TOO_SMALL, no token is written, and *n_out is the number needed (the one thing that is not
 cleared on failure); with capacity 0, tokens may be NULL. Special tokens written out in the text are
 recognised; none are added. Any thread; the first use of a model's tokenizer takes longer.

 Errors: also ESOLM_ERR_INVALID_ARGUMENT if the text is not UTF-8; ESOLM_ERR_TOKENIZER.
 */
esolm_status esolm_tokenize(const struct esolm_model *model,
                            const char *text,
                            size_t text_len,
                            uint32_t *tokens,
                            size_t capacity,
                            size_t *n_out);

/*
 Makes text of n tokens: UTF-8 with a NUL behind it.

 *len_out is the text's length in bytes without the NUL, so capacity must be larger. If it does not fit, the
 result is ESOLM_ERR_BUFFER_TOO_SMALL, the text is empty, and *len_out is the length needed, without the NUL.
 With capacity 0, text may be NULL. A mask token becomes U+2591, bytes that are not UTF-8 become U+FFFD. Any
 thread.

 Errors: also ESOLM_ERR_TOKENIZER, for a token outside the vocabulary, too.
 */
esolm_status esolm_detokenize(const struct esolm_model *model,
                              const uint32_t *tokens,
                              size_t n,
                              char *text,
                              size_t capacity,
                              size_t *len_out);

/*
 Makes a prompt of a text with holes: text_len bytes of UTF-8 such as "Once upon a time {{mask 12}} happily ever
 after.", whose hole is 12 tokens for the model to write. "{{{{" stands for two braces.

 Writes the known tokens and their positions, for esolm_prompt, and to *length_out the tokens of the whole text, for
 esolm_generate_params.length. capacity (of both arrays) and *n_out are as in esolm_tokenize; each piece of text between
 holes is made into tokens by itself. Any thread.

 Errors: also ESOLM_ERR_INVALID_ARGUMENT if the template is not well-formed, with its place; ESOLM_ERR_TOKENIZER.
 */
esolm_status esolm_tokenize_template(const struct esolm_model *model,
                                     const char *text,
                                     size_t text_len,
                                     uint32_t *tokens,
                                     uint32_t *positions,
                                     size_t capacity,
                                     size_t *n_out,
                                     size_t *length_out);

/*
 Copies the bytes that one token stands for. They may be a part of a character, and are not followed by a NUL; a
 special token's are those of its name. A program that shows tokens as they come joins them to whole characters.

 At most capacity are written, and their number goes to *n_out; if they do not fit, the result is
 ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *n_out is the number needed. With capacity 0, bytes may be NULL. Any
 thread.

 Errors: also ESOLM_ERR_TOKENIZER, for the mask and for a token outside the vocabulary, too.
 */
esolm_status esolm_token_bytes(const struct esolm_model *model,
                               uint32_t token,
                               uint8_t *bytes,
                               size_t capacity,
                               size_t *n_out);

/*
 Sets the defaults. size is sizeof(esolm_context_params).
 */
esolm_status esolm_context_params_init(struct esolm_context_params *params, size_t size);

/*
 Tells the bytes of memory that esolm_context_new_in needs for these parameters (NULL: the defaults), exactly.
 It depends on the machine, too: do not store it. Any thread.

 On a GPU this is the host's part; caches and activations are on the device.
 */
esolm_status esolm_context_arena_size(const struct esolm_model *model,
                                      const struct esolm_context_params *params,
                                      size_t *out);

/*
 Makes a context with memory of its own.

 params may be NULL for the defaults. *out is NULL on failure. The context holds a reference to the model. All
 memory for generating is taken now.

 Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_OUT_OF_MEMORY; ESOLM_ERR_DEVICE.
 */
esolm_status esolm_context_new(const struct esolm_model *model,
                               const struct esolm_context_params *params,
                               struct esolm_context **out);

/*
 Makes a context in the caller's memory: size bytes at arena, aligned to ESOLM_ARENA_ALIGNMENT, at least as
 many as esolm_context_arena_size tells. They belong to the context until it is freed; their content does not
 matter. (Small handles and the texts' bookkeeping are allocated apart, once.)

 Errors: also ESOLM_ERR_BUFFER_TOO_SMALL; nothing was then written to the arena.
 */
esolm_status esolm_context_new_in(const struct esolm_model *model,
                                  const struct esolm_context_params *params,
                                  void *arena,
                                  size_t size,
                                  struct esolm_context **out);

/*
 Frees a context, which no call may be using. NULL is allowed.
 */
void esolm_context_free(struct esolm_context *context);

/*
 Forgets the generation of a context: its tokens, its texts, and what would come next. Memory and threads stay,
 and so does a cancel.

 Errors: ESOLM_ERR_BUSY.
 */
esolm_status esolm_context_reset(struct esolm_context *context);

/*
 Makes the call that is running on this context end with ESOLM_ERR_CANCELLED soon (on the CPU within a step,
 else after it), and every later one at once, until esolm_cancel_reset. So it does not matter whether it comes just
 before a call or while it runs. What is written can still be copied, and of a finished generation esolm_step still
 says that it is. May be called on a context that is in use: any thread, also a callback. Lock-free.
 */
esolm_status esolm_cancel(const struct esolm_context *context);

/*
 Takes esolm_cancel back: the generation goes on with esolm_step as if nothing had been, or another one can begin.
 A program that cancels calls this before it lets others know of the next piece of work. Any thread, at any time;
 lock-free.
 */
esolm_status esolm_cancel_reset(const struct esolm_context *context);

/*
 Tells the memory that a context of these parameters (NULL: the defaults) takes, to the byte, without making it.
 memory->struct_size must be set; on failure the other fields are zero. Any thread.

 Errors: ESOLM_ERR_INVALID_ARGUMENT if a limit exceeds the model; ESOLM_ERR_UNSUPPORTED.
 */
esolm_status esolm_context_memory_use(const struct esolm_model *model,
                                      const struct esolm_context_params *params,
                                      struct esolm_memory_use *memory);

/*
 Tells the memory that the model in the file at path and a context of it would take. Reads what the file says about
 itself, not the weights, so it is quick. model_params and context_params may be NULL for the defaults.
 memory->struct_size must be set; on failure the other fields are zero. Any thread.

 Errors: as esolm_model_open and esolm_context_memory_use.
 */
esolm_status esolm_memory_estimate(const char *path,
                                   const struct esolm_model_params *model_params,
                                   const struct esolm_context_params *context_params,
                                   struct esolm_memory_use *memory);

/*
 Sets the defaults. size is sizeof(esolm_generate_params).
 */
esolm_status esolm_generate_params_init(struct esolm_generate_params *params, size_t size);

/*
 Generates one sequence per prompt, to the end. callback, which may be NULL, is told of every step; read the
 result with esolm_copy_tokens or esolm_copy_text. params may be NULL for the defaults. On allocations see "Memory"
 above.

 Errors: ESOLM_ERR_INVALID_ARGUMENT if there are too many prompts, a parameter, position or token is out of range, a
 constraint cannot be kept or the logits callback leaves none to draw; ESOLM_ERR_UNSUPPORTED; ESOLM_ERR_CANCELLED;
 ESOLM_ERR_BUSY; ESOLM_ERR_NOT_FINITE; ESOLM_ERR_DEVICE. What was written before a failure stays readable.
 */
esolm_status esolm_generate(struct esolm_context *context,
                            const struct esolm_prompt *prompts,
                            size_t n_prompts,
                            const struct esolm_generate_params *params,
                            esolm_step_callback callback,
                            void *user_data);

/*
 Begins a generation of one sequence per prompt, in place of the last one; esolm_step runs it. Arguments and errors
 are as in esolm_generate. If it fails, the last generation is still there.
 */
esolm_status esolm_begin(struct esolm_context *context,
                         const struct esolm_prompt *prompts,
                         size_t n_prompts,
                         const struct esolm_generate_params *params);

/*
 Goes on from all that is known, without computing it again, in place of the steps that are left: a finished text
 becomes the beginning of one of params->length tokens. There is one prompt for each sequence, of further known tokens
 (count 0: none). params should have another seed. esolm_step runs it. Arguments and errors are as in esolm_generate.

 Errors: also ESOLM_ERR_INVALID_ARGUMENT if the text would be shorter than it is; ESOLM_ERR_UNSUPPORTED for models
 whose keys and values do not outlast a step: Eso-LM (A), MDLM. The last generation is then still there.
 */
esolm_status esolm_extend(struct esolm_context *context,
                          const struct esolm_prompt *prompts,
                          size_t n_prompts,
                          const struct esolm_generate_params *params);

/*
 Runs the next step. *done is 0 and *info says what the step wrote; or the generation is finished, no step was
 run, *done is 1 and *info is zero. info may be NULL. On allocations see "Memory" above.

 Errors: ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY, ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE. The state is then as
 before the call, *done is 0 and *info is zero.
 */
esolm_status esolm_step(struct esolm_context *context,
                        struct esolm_step_info *info,
                        int32_t *done);

/*
 Copies the order in which the positions of a sequence are generated: the known ones first, in any order, then the
 others as the steps write them. It is what esolm_score_order takes. capacity and *n_out are as in esolm_copy_tokens.
 */
esolm_status esolm_copy_order(struct esolm_context *context,
                              size_t sequence,
                              uint32_t *positions,
                              size_t capacity,
                              size_t *n_out);

/*
 Copies the tokens of a sequence by position, the model's mask token where one is not written yet.

 At most capacity are written, and their number goes to *n_out. If they do not fit, the result is
 ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *n_out is the number needed; with capacity 0, tokens may be NULL.
 */
esolm_status esolm_copy_tokens(struct esolm_context *context,
                               size_t sequence,
                               uint32_t *tokens,
                               size_t capacity,
                               size_t *n_out);

/*
 Copies the text of a sequence's finished beginning, up to the first token that is unknown or ends the text:
 whole characters of UTF-8, and a NUL. It only ever grows during a generation. capacity and *len_out are as in
 esolm_detokenize.

 Errors: also ESOLM_ERR_BUSY, ESOLM_ERR_TOKENIZER.
 */
esolm_status esolm_copy_text(struct esolm_context *context,
                             size_t sequence,
                             char *text,
                             size_t capacity,
                             size_t *len_out);

/*
 Copies everything known of the current generation, tokens, order, keys and values, for esolm_state_restore. Steps that
 are left are not part of it, nor are parameters, constraints and random numbers: esolm_extend takes new ones. A
 generation that is saved halfway so goes on from the same tokens, but not to the same text.

 At most capacity bytes are written, and their number goes to *size_out. If they do not fit, the result is
 ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *size_out is the number needed; with capacity 0, data may be NULL. That
 is worked out without saving anything. Otherwise the call takes memory of the same size for its time.

 Errors: also ESOLM_ERR_BUSY; ESOLM_ERR_UNSUPPORTED as in esolm_extend, and for weights that are on a GPU.
 */
esolm_status esolm_state_save(struct esolm_context *context,
                              void *data,
                              size_t capacity,
                              size_t *size_out);

/*
 Takes up a saved state, size bytes at data, in place of the current generation: its tokens are known, no steps are
 left, and esolm_extend goes on. The bytes are checked: those of another model, or damaged ones, are an error.

 Errors: ESOLM_ERR_BAD_FILE; ESOLM_ERR_INVALID_ARGUMENT if the context is too small for it; ESOLM_ERR_UNSUPPORTED as in
 esolm_state_save; ESOLM_ERR_BUSY. The current generation is then still there.
 */
esolm_status esolm_state_restore(struct esolm_context *context,
                                 const void *data,
                                 size_t size);

/*
 Tells where the time of the generation's steps went, since it began or esolm_extend went on with it.
 profile->struct_size must be set; on failure the other fields are zero.

 Errors: ESOLM_ERR_UNSUPPORTED if ggml computes (ESOLM_KERNELS_GGML, another device, or widths that are no multiples of
 8); ESOLM_ERR_BUSY.
 */
esolm_status esolm_context_profile(struct esolm_context *context,
                                   struct esolm_profile *profile);

/*
 Sets the defaults. size is sizeof(esolm_score_params).
 */
esolm_status esolm_score_params_init(struct esolm_score_params *params, size_t size);

/*
 Scores a text of any length: n_tokens tokens. It is cut into windows of the context's length, one after the other,
 and each is scored by itself, as in training.

 params may be NULL for the defaults. log_p, if it is not NULL, has room for capacity numbers and gets for each token
 the natural logarithm of its probability, given those before it in its window's first order. score->struct_size must
 be set; on failure its other fields are zero and log_p is as it was. progress, which may be NULL, is told of each
 window. Ends the context's generation. Unlike esolm_step this takes memory.

 Errors: ESOLM_ERR_INVALID_ARGUMENT for no token, tokens that are not the model's, parameters out of range, and log_p
 without orders; ESOLM_ERR_BUFFER_TOO_SMALL if capacity is less than n_tokens; ESOLM_ERR_UNSUPPORTED for what the
 model cannot do (MDLM: orders; autoregression: random orders, diffusion); ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY,
 ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
 */
esolm_status esolm_score_text(struct esolm_context *context,
                              const uint32_t *tokens,
                              size_t n_tokens,
                              const struct esolm_score_params *params,
                              double *log_p,
                              size_t capacity,
                              struct esolm_text_score *score,
                              esolm_progress_callback progress,
                              void *user_data);

/*
 Writes natural logarithms of probabilities: of each token but the first n_known in an order, given all before it in
 the order, as generation one token at a time would have it; of Eso-LM (A) its sequential phase, in which the given
 ones see each other both ways.

 tokens is the text by position, n_tokens of them, at most the context's length. order names each position once;
 NULL is left to right. log_p gets n_tokens - n_known numbers in the order's sequence, and is as it was on failure.
 Ends the context's generation. Unlike esolm_step this takes memory.

 Errors: ESOLM_ERR_INVALID_ARGUMENT if the order is none, or a token is not the model's; ESOLM_ERR_BUFFER_TOO_SMALL if
 capacity is less than those numbers; ESOLM_ERR_UNSUPPORTED for MDLM; ESOLM_ERR_CANCELLED, ESOLM_ERR_BUSY,
 ESOLM_ERR_NOT_FINITE, ESOLM_ERR_DEVICE.
 */
esolm_status esolm_score_order(struct esolm_context *context,
                               const uint32_t *tokens,
                               const uint32_t *order,
                               size_t n_tokens,
                               size_t n_known,
                               double *log_p,
                               size_t capacity);

/*
 As esolm_score_order, with all tokens but the first n_known in the order unknown at once: one step of diffusion.

 Errors: as in esolm_score_order, but ESOLM_ERR_UNSUPPORTED for an autoregressive model.
 */
esolm_status esolm_score_masked(struct esolm_context *context,
                                const uint32_t *tokens,
                                const uint32_t *order,
                                size_t n_tokens,
                                size_t n_known,
                                double *log_p,
                                size_t capacity);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ESOLM_H */
