/* Every promise of esolm.h that a C program can check: api MODEL. */
#include "check.h"

#include <pthread.h>
#include <stdlib.h>

#define OK ESOLM_OK
#define INVALID ESOLM_ERR_INVALID_ARGUMENT

enum { LENGTH = 32, STEPS = 6 };

static esolm_model *model;
static esolm_model_info info;

/* Small parameters, so that valgrind gets through. */
static esolm_context_params limits(void)
{
    esolm_context_params params;
    STATUS(OK, esolm_context_params_init(&params, sizeof params));
    params.sequences = 3;
    params.length = LENGTH;
    params.pass_rows = 40;
    params.threads = 1;
    return params;
}

static esolm_generate_params wish(void)
{
    esolm_generate_params params;
    STATUS(OK, esolm_generate_params_init(&params, sizeof params));
    params.steps = STEPS;
    params.seed = 7;
    params.alpha_0 = 0.8;
    return params;
}

static esolm_context *new_context(void)
{
    esolm_context_params params = limits();
    esolm_context *context = NULL;
    STATUS(OK, esolm_context_new(model, &params, &context));
    return context;
}

static void last_error_says(const char *part)
{
    CHECK(strstr(esolm_last_error(), part) != NULL);
    if (!strstr(esolm_last_error(), part))
        printf("    '%s' does not contain '%s'\n", esolm_last_error(), part);
}

static void versions(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", ESOLM_VERSION_MAJOR, ESOLM_VERSION_MINOR, ESOLM_VERSION_PATCH);
    CHECK(strcmp(text, esolm_version()) == 0);
    CHECK(esolm_abi_version() == ESOLM_ABI_VERSION);
    for (esolm_status status = -1; status < 20; status++)
        CHECK(strlen(esolm_status_text(status)) > 1);
    CHECK(strcmp(esolm_status_text(OK), "ok") == 0);
}

static void log_callback(int32_t level, const char *message, void *user_data)
{
    CHECK(level >= ESOLM_LOG_ERROR && level <= ESOLM_LOG_DEBUG && message && user_data == &info);
}

static void device(void)
{
    size_t count = 0;
    STATUS(OK, esolm_device_count(&count));
    CHECK(count >= 1);
    esolm_device_info found = {.struct_size = sizeof found};
    int cpus = 0;
    for (size_t i = 0; i < count; i++) {
        STATUS(OK, esolm_device_info_get(i, &found));
        CHECK(found.name[0] && found.struct_size == sizeof found);
        cpus += found.kind == ESOLM_DEVICE_CPU;
    }
    CHECK(cpus == 1);
    STATUS(INVALID, esolm_device_info_get(count, &found));
    CHECK(!found.name[0] && found.struct_size == sizeof found);
    STATUS(INVALID, esolm_device_info_get(0, NULL));
    STATUS(INVALID, esolm_device_count(NULL));
    found.struct_size = 8;
    STATUS(INVALID, esolm_device_info_get(0, &found));
}

static void opening(const char *path)
{
    esolm_model *out = (esolm_model *)&info;
    STATUS(ESOLM_ERR_IO, esolm_model_open("/nowhere/model.gguf", NULL, &out));
    CHECK(out == NULL);
    last_error_says("/nowhere/model.gguf");
    out = (esolm_model *)&info;
    STATUS(INVALID, esolm_model_open(NULL, NULL, &out));
    CHECK(out == NULL);
    last_error_says("path is NULL");
    STATUS(INVALID, esolm_model_open(path, NULL, NULL));
    last_error_says("out is NULL");

    esolm_model_params params;
    STATUS(INVALID, esolm_model_params_init(NULL, sizeof params));
    STATUS(INVALID, esolm_model_params_init(&params, sizeof params - 1));
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mode = 9;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    last_error_says("mode 9");
    params.mode = ESOLM_MODE_MAP;
    params.device = "abacus";
    STATUS(ESOLM_ERR_DEVICE, esolm_model_open(path, &params, &out));
    params.device = "\xff";
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.device = "cpu";
    params.struct_size = 4;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.struct_size = 0;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    last_error_says("struct_size");
    params.struct_size = (size_t)-1;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.struct_size = sizeof params;
    params.reserved = 1;
    STATUS(INVALID, esolm_model_open(path, &params, &out));

    /* A program of a later header, with fields that this library does not know. */
    struct {
        esolm_model_params known;
        uint64_t later[3];
    } larger;
    memset(&larger, 255, sizeof larger);
    STATUS(OK, esolm_model_params_init(&larger.known, sizeof larger));
    CHECK(larger.later[0] == 0 && larger.later[2] == 0 && larger.known.struct_size == sizeof larger);
    larger.known.device = "cpu";
    STATUS(OK, esolm_model_open(path, &larger.known, &out));
    esolm_model_free(out);
    larger.later[2] = 1;
    STATUS(INVALID, esolm_model_open(path, &larger.known, &out));
    CHECK(out == NULL);

    STATUS(INVALID, esolm_model_retain(NULL));
    esolm_model_free(NULL);
    esolm_context_free(NULL);
}

static void model_info(void)
{
    memset(&info, 255, sizeof info);
    info.struct_size = sizeof info;
    STATUS(OK, esolm_model_info_get(model, &info));
    CHECK(info.context_length >= LENGTH && info.vocab_size > 2 && info.mask_token < info.vocab_size);
    CHECK(info.eos_token >= -1 && info.eos_token < (int32_t)info.vocab_size);
    CHECK(info.parameters > 0 && info.tensor_bytes > 0 && info.file_bytes >= info.tensor_bytes);
    STATUS(INVALID, esolm_model_info_get(model, NULL));
    esolm_model_info other = {.struct_size = sizeof other, .vocab_size = 3};
    STATUS(INVALID, esolm_model_info_get(NULL, &other));
    CHECK(other.vocab_size == 0);
    other.struct_size = sizeof other - 8;
    STATUS(INVALID, esolm_model_info_get(model, &other));
}

static void tokenizing(void)
{
    const char *text = "Once upon a time";
    uint32_t tokens[64];
    char back[128];
    size_t n = 99, len = 99, again;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_tokenize(model, text, strlen(text), NULL, 0, &n));
    CHECK(n > 0 && n < 64);
    tokens[0] = 12345678;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_tokenize(model, text, strlen(text), tokens, n - 1, &again));
    CHECK(again == n && tokens[0] == 12345678);
    STATUS(OK, esolm_tokenize(model, text, strlen(text), tokens, n, &again));
    CHECK(again == n);
    STATUS(OK, esolm_tokenize(model, NULL, 0, tokens, 64, &again));
    CHECK(again == 0);
    STATUS(INVALID, esolm_tokenize(model, NULL, 1, tokens, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, "\xff", 1, tokens, 64, &again));
    last_error_says("UTF-8");
    STATUS(INVALID, esolm_tokenize(NULL, text, 1, tokens, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, text, 1, NULL, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, text, 1, tokens, 64, NULL));

    STATUS(OK, esolm_detokenize(model, tokens, n, back, sizeof back, &len));
    CHECK(len == strlen(text) && strcmp(back, text) == 0);
    STATUS(OK, esolm_detokenize(model, tokens, n, back, len + 1, &again));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_detokenize(model, tokens, n, back, len, &again));
    CHECK(again == len && back[0] == 0);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_detokenize(model, tokens, n, NULL, 0, &again));
    CHECK(again == len);
    STATUS(OK, esolm_detokenize(model, NULL, 0, back, 1, &again));
    CHECK(again == 0 && back[0] == 0);
    STATUS(INVALID, esolm_detokenize(model, NULL, 2, back, 1, &again));
    STATUS(INVALID, esolm_detokenize(model, tokens, n, NULL, 64, &again));
    tokens[0] = 4000000000u;
    STATUS(ESOLM_ERR_TOKENIZER, esolm_detokenize(model, tokens, n, back, sizeof back, &again));
    CHECK(again == 0);
}

static void contexts(void)
{
    esolm_context_params params = limits();
    esolm_context *out = (esolm_context *)&info;
    size_t size = 0;
    STATUS(INVALID, esolm_context_new(NULL, &params, &out));
    CHECK(out == NULL);
    STATUS(INVALID, esolm_context_new(model, &params, NULL));
    params.kv_type = 2;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    STATUS(INVALID, esolm_context_arena_size(model, &params, &size));
    params.kv_type = -1;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    params = limits();
    params.length = info.context_length + 1;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    params = limits();
    params.threads = 100000;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    params = limits();
    params.sequences = (size_t)-1;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    params = limits();
    params.struct_size = 16;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    params = limits();
    params.reserved = 5;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    STATUS(INVALID, esolm_context_params_init(&params, 8));

    params = limits();
    STATUS(OK, esolm_context_arena_size(model, &params, &size));
    CHECK(size > 0 && size % ESOLM_ARENA_ALIGNMENT == 0);
    STATUS(OK, esolm_context_arena_size(model, NULL, &size));
    STATUS(OK, esolm_context_arena_size(model, &params, &size));
    STATUS(INVALID, esolm_context_arena_size(NULL, &params, &size));
    CHECK(size == 0);
    STATUS(INVALID, esolm_context_arena_size(model, &params, NULL));
    STATUS(OK, esolm_context_arena_size(model, &params, &size));

    unsigned char *arena = aligned_alloc(ESOLM_ARENA_ALIGNMENT, size + ESOLM_ARENA_ALIGNMENT);
    if (!arena)
        exit(1);
    memset(arena, 170, size + ESOLM_ARENA_ALIGNMENT);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_context_new_in(model, &params, arena, size - 1, &out));
    CHECK(out == NULL && arena[0] == 170);
    STATUS(INVALID, esolm_context_new_in(model, &params, arena + 8, size, &out));
    STATUS(INVALID, esolm_context_new_in(model, &params, NULL, size, &out));
    STATUS(OK, esolm_context_new_in(model, &params, arena, size, &out));

    esolm_context *own = new_context();
    esolm_generate_params how = wish();
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t a[LENGTH] = {0}, b[LENGTH] = {0};
    size_t n;
    STATUS(OK, esolm_generate(out, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_generate(own, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(out, 0, a, LENGTH, &n));
    STATUS(OK, esolm_copy_tokens(own, 0, b, LENGTH, &n));
    CHECK(memcmp(a, b, sizeof a) == 0);
    esolm_context_free(out);
    esolm_context_free(own);
    size_t touched = 0;
    for (size_t i = 0; i < ESOLM_ARENA_ALIGNMENT; i++)
        touched += arena[size + i] != 170;
    CHECK(touched == 0);
    free(arena);
}

static void bad_generations(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = wish();
    uint32_t tokens[LENGTH + 1] = {1, 2, 3}, positions[3] = {4, 0, 4};
    esolm_prompt prompts[4] = {{tokens, NULL, 3}, {NULL, NULL, 0}, {NULL, NULL, 0}, {NULL, NULL, 0}};
    esolm_step_info step;
    int32_t done = 9;
    size_t n;

    STATUS(INVALID, esolm_generate(NULL, prompts, 1, &how, NULL, NULL));
    STATUS(INVALID, esolm_generate(context, NULL, 1, &how, NULL, NULL));
    STATUS(INVALID, esolm_generate(context, prompts, 0, &how, NULL, NULL));
    STATUS(INVALID, esolm_generate(context, prompts, 4, &how, NULL, NULL));
    prompts[0].count = LENGTH + 1;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    prompts[0].count = 3;
    prompts[0].positions = positions;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    last_error_says("twice");
    positions[0] = LENGTH;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    prompts[0].positions = NULL;
    tokens[1] = (uint32_t)info.vocab_size;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    tokens[1] = info.mask_token;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    tokens[1] = 2;
    prompts[0].tokens = NULL;
    STATUS(INVALID, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    prompts[0].tokens = tokens;
    volatile double zero = 0;
    how.alpha_0 = zero / zero;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.temperature = -1;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.top_p = 0;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.steps = 0;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.length = LENGTH + 1;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.reserved = 1;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = wish(), how.struct_size--;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    STATUS(INVALID, esolm_begin(NULL, prompts, 1, NULL));

    STATUS(INVALID, esolm_step(NULL, &step, &done));
    CHECK(done == 0);
    STATUS(INVALID, esolm_step(context, &step, NULL));
    STATUS(OK, esolm_step(context, &step, &done));
    CHECK(done == 1 && step.n_updates == 0 && step.updates == NULL);
    STATUS(INVALID, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(INVALID, esolm_copy_text(context, 7, NULL, 0, &n));
    STATUS(INVALID, esolm_cancel(NULL));
    esolm_context_free(context);
}

/* Different prompts, one with holes; the same at once and step by step. */
static void both_styles(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = wish();
    uint32_t words[5] = {5, 6, 7, 8, 9}, positions[3] = {20, 3, 9};
    esolm_prompt prompts[3] = {{words, NULL, 5}, {words, positions, 3}, {NULL, NULL, 0}};
    uint32_t once[3][LENGTH], stepped[LENGTH], seen[3][LENGTH];
    size_t n = 0, len = 0, writes = 0, index = 0;
    char text[4096];

    STATUS(OK, esolm_generate(context, prompts, 3, &how, NULL, NULL));
    for (size_t s = 0; s < 3; s++) {
        STATUS(OK, esolm_copy_tokens(context, s, once[s], LENGTH, &n));
        CHECK(n == LENGTH);
    }
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_copy_tokens(context, 0, stepped, LENGTH - 1, &n));
    CHECK(n == LENGTH);
    STATUS(INVALID, esolm_copy_tokens(context, 3, stepped, LENGTH, &n));
    STATUS(INVALID, esolm_copy_tokens(NULL, 0, stepped, LENGTH, &n));
    STATUS(INVALID, esolm_copy_tokens(context, 0, stepped, LENGTH, NULL));
    STATUS(INVALID, esolm_copy_tokens(context, 0, NULL, LENGTH, &n));
    CHECK(memcmp(once[0], words, sizeof words) == 0);
    CHECK(once[1][20] == 5 && once[1][3] == 6 && once[1][9] == 7);

    STATUS(OK, esolm_begin(context, prompts, 3, &how));
    memset(seen, 255, sizeof seen);
    for (;;) {
        esolm_step_info step;
        int32_t done;
        STATUS(OK, esolm_step(context, &step, &done));
        if (done)
            break;
        CHECK(step.index == index++ && step.total >= index && step.updates);
        for (size_t i = 0; i < step.n_updates; i++, writes++)
            seen[step.updates[i].sequence][step.updates[i].position] = step.updates[i].token;
    }
    CHECK(writes == 3 * LENGTH - 8);
    for (size_t s = 0; s < 3; s++) {
        STATUS(OK, esolm_copy_tokens(context, s, stepped, LENGTH, &n));
        CHECK(memcmp(stepped, once[s], sizeof stepped) == 0);
        size_t wrong = 0;
        for (size_t i = 0; i < LENGTH; i++)
            wrong += seen[s][i] != UINT32_MAX && seen[s][i] != stepped[i];
        CHECK(wrong == 0);
    }
    STATUS(OK, esolm_copy_text(context, 0, text, sizeof text, &len));
    CHECK(strlen(text) == len);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_copy_text(context, 0, NULL, 0, &n));
    CHECK(n == len);
    STATUS(OK, esolm_copy_text(context, 0, text, len + 1, &n));
    if (len > 0) {
        STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_copy_text(context, 0, text, len, &n));
        CHECK(text[0] == 0 && n == len);
    }
    STATUS(INVALID, esolm_copy_text(context, 0, NULL, 9, &n));
    /* NULL parameters are the defaults: one step is enough to see that they are taken. */
    int32_t done;
    STATUS(OK, esolm_begin(context, prompts, 1, NULL));
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(done == 0);
    esolm_context_free(context);
}

struct call {
    esolm_context *context;
    int calls, stop_at, cancel_at, reenter;
};

static int32_t on_step(const esolm_step_info *step, void *user_data)
{
    struct call *call = user_data;
    int at = call->calls++;
    CHECK(step->n_updates > 0 && step->index == (size_t)at);
    if (call->reenter) {
        esolm_step_info inner;
        int32_t done;
        size_t n;
        uint32_t tokens[LENGTH];
        char text[64];
        esolm_prompt prompt = {NULL, NULL, 0};
        STATUS(ESOLM_ERR_BUSY, esolm_step(call->context, &inner, &done));
        STATUS(ESOLM_ERR_BUSY, esolm_copy_tokens(call->context, 0, tokens, LENGTH, &n));
        STATUS(ESOLM_ERR_BUSY, esolm_copy_text(call->context, 0, text, sizeof text, &n));
        STATUS(ESOLM_ERR_BUSY, esolm_begin(call->context, &prompt, 1, NULL));
        STATUS(ESOLM_ERR_BUSY, esolm_generate(call->context, &prompt, 1, NULL, on_step, call));
    }
    if (at == call->cancel_at)
        STATUS(OK, esolm_cancel(call->context));
    return at == call->stop_at ? -3 : 0;
}

static void stopping(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = wish();
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t whole[LENGTH], tokens[LENGTH];
    size_t n;
    int32_t done;

    struct call call = {context, 0, -1, -1, 1};
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, on_step, &call));
    CHECK(call.calls > 2);
    STATUS(OK, esolm_copy_tokens(context, 0, whole, LENGTH, &n));

    call = (struct call){context, 0, 1, -1, 0};
    STATUS(ESOLM_ERR_CANCELLED, esolm_generate(context, &prompt, 1, &how, on_step, &call));
    CHECK(call.calls == 2);
    /* A callback's stop leaves a generation that goes on. */
    do
        STATUS(OK, esolm_step(context, NULL, &done));
    while (!done);
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(tokens, whole, sizeof whole) == 0);

    call = (struct call){context, 0, -1, 0, 0};
    STATUS(ESOLM_ERR_CANCELLED, esolm_generate(context, &prompt, 1, &how, on_step, &call));
    CHECK(call.calls == 1);
    STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
    CHECK(done == 0);

    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    STATUS(OK, esolm_cancel(context));
    STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(tokens, whole, sizeof whole) == 0);
    esolm_context_free(context);
}

static void run_briefly(const esolm_model *other, uint32_t *tokens)
{
    esolm_context_params params = limits();
    esolm_generate_params how = wish();
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n;
    STATUS(OK, esolm_context_new(other, &params, &context));
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    esolm_context_free(context);
}

static void memory(const char *path)
{
    uint32_t expected[LENGTH], found[LENGTH];
    run_briefly(model, expected);
    FILE *file = fopen(path, "rb");
    size_t size = info.file_bytes;
    unsigned char *data = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!file || !data || fread(data, 1, size, file) != size)
        exit(1);
    fclose(file);

    esolm_model *out = NULL;
    esolm_model_params params;
    STATUS(OK, esolm_model_open_memory(data, size, NULL, &out));
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);

    STATUS(INVALID, esolm_model_open_memory(NULL, size, NULL, &out));
    CHECK(out == NULL);
    STATUS(INVALID, esolm_model_open_memory(data, size, NULL, NULL));
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory(data, 0, NULL, &out));
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory(data, size - 1, NULL, &out));
    last_error_says("(memory)");
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory("not a model", 11, NULL, &out));

    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mode = ESOLM_MODE_COPY;
    STATUS(OK, esolm_model_open_memory(data, size, &params, &out));
    memset(data, 255, size);
    free(data);
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);

    STATUS(OK, esolm_model_open(path, &params, &out));
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);
}

struct job {
    esolm_status status;
    uint32_t tokens[LENGTH];
    int quiet;
};

/* No CHECK in here: its counters are not for threads. */
static void *work(void *argument)
{
    struct job *job = argument;
    esolm_context_params params = {.struct_size = sizeof params, .length = LENGTH, .threads = 1};
    esolm_generate_params how;
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n;
    job->quiet = esolm_last_error()[0] == 0;
    esolm_generate_params_init(&how, sizeof how);
    how.steps = STEPS, how.seed = 7, how.alpha_0 = 0.8;
    job->status = esolm_context_new(model, &params, &context);
    if (!job->status)
        job->status = esolm_generate(context, &prompt, 1, &how, NULL, NULL);
    if (!job->status)
        job->status = esolm_copy_tokens(context, 0, job->tokens, LENGTH, &n);
    esolm_context_free(context);
    return NULL;
}

static void threads(void)
{
    struct job jobs[2] = {0};
    pthread_t ids[2];
    uint32_t expected[LENGTH];
    run_briefly(model, expected);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]))
            exit(1);
    for (int i = 0; i < 2; i++) {
        pthread_join(ids[i], NULL);
        CHECK(jobs[i].status == OK && jobs[i].quiet);
        CHECK(memcmp(jobs[i].tokens, expected, sizeof expected) == 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    CHECK(esolm_last_error()[0] == 0);
    esolm_set_log_callback(log_callback, &info);
    versions();
    device();
    opening(argv[1]);
    STATUS(OK, esolm_model_open(argv[1], NULL, &model));
    if (!model)
        return report();
    model_info();
    tokenizing();
    contexts();
    bad_generations();
    both_styles();
    stopping();
    memory(argv[1]);
    threads();

    /* A context keeps its model. */
    esolm_context *context = new_context();
    STATUS(OK, esolm_model_retain(model));
    esolm_model_free(model);
    esolm_model_free(model);
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_generate_params how = wish();
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    esolm_context_free(context);
    esolm_set_log_callback(NULL, NULL);
    return report();
}
