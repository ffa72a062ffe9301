/* Contexts: parameters, memory, reset and cancel: api_context MODEL. */
#include "api.h"

static void contexts(void)
{
    esolm_context_params params = limits();
    esolm_context *out = (esolm_context *)&info;
    size_t size = 0;
    STATUS(INVALID, esolm_context_new(NULL, &params, &out));
    CHECK(out == NULL);
    STATUS(INVALID, esolm_context_new(model, &params, NULL));
    params.kv_type = 3;
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
    params.kernels = 2;
    STATUS(INVALID, esolm_context_new(model, &params, &out));
    last_error_says("kernels 2");
    params.kernels = -1;
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
    esolm_generate_params how = small_params();
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
    aligned_free(arena);
}

static void memory_use(const char *path)
{
    esolm_context_params params = limits();
    esolm_memory_use use = {.struct_size = sizeof use}, estimate = {.struct_size = sizeof estimate}, more = use;
    size_t arena = 0;
    STATUS(OK, esolm_context_memory_use(model, &params, &use));
    STATUS(OK, esolm_context_arena_size(model, &params, &arena));
    CHECK(use.arena == arena && use.weights == info.tensor_bytes);
    CHECK(use.kv_cache > 0 && use.compute > 0 && use.kv_cache + use.compute <= arena);
    params.kv_type = ESOLM_KV_F32;
    STATUS(OK, esolm_context_memory_use(model, &params, &more));
    CHECK(more.kv_cache == 2 * use.kv_cache && more.arena > use.arena);
    params.kernels = ESOLM_KERNELS_GGML;
    STATUS(OK, esolm_context_memory_use(model, &params, &more));

    /* The estimate without opening the model is the same. */
    params = limits();
    STATUS(OK, esolm_memory_estimate(path, NULL, &params, &estimate));
    CHECK(memcmp(&use, &estimate, sizeof use) == 0);
    STATUS(OK, esolm_memory_estimate(path, NULL, NULL, &estimate));
    STATUS(OK, esolm_context_memory_use(model, NULL, &use));
    CHECK(memcmp(&use, &estimate, sizeof use) == 0);

    STATUS(INVALID, esolm_context_memory_use(NULL, &params, &use));
    CHECK(use.struct_size == sizeof use && use.weights == 0 && use.arena == 0);
    STATUS(INVALID, esolm_context_memory_use(model, &params, NULL));
    use.struct_size = 8;
    STATUS(INVALID, esolm_context_memory_use(model, &params, &use));
    STATUS(INVALID, esolm_memory_estimate(path, NULL, &params, NULL));
    STATUS(INVALID, esolm_memory_estimate(NULL, NULL, &params, &estimate));
    CHECK(estimate.weights == 0);
    STATUS(ESOLM_ERR_IO, esolm_memory_estimate("/nowhere.gguf", NULL, &params, &estimate));
    esolm_model_params device;
    STATUS(OK, esolm_model_params_init(&device, sizeof device));
    device.device = "abacus";
    STATUS(ESOLM_ERR_DEVICE, esolm_memory_estimate(path, &device, &params, &estimate));
    params.length = info.context_length + 1;
    STATUS(INVALID, esolm_memory_estimate(path, NULL, &params, &estimate));
    params = limits();
    params.kv_type = 7;
    STATUS(INVALID, esolm_memory_estimate(path, NULL, &params, &estimate));
    STATUS(INVALID, esolm_context_memory_use(model, &params, &more));
}

/* ggml's kernels round differently, so only the length and the prompt's tokens are compared. */
static void kernels(void)
{
    esolm_context_params params = limits();
    esolm_generate_params how = small_params();
    esolm_context *context = NULL;
    uint32_t words[3] = {5, 6, 7}, tokens[LENGTH];
    esolm_prompt prompt = {words, NULL, 3};
    size_t n = 0, masks = 0;
    params.kernels = ESOLM_KERNELS_GGML;
    STATUS(OK, esolm_context_new(model, &params, &context));
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    for (size_t i = 0; i < n; i++)
        masks += tokens[i] == info.mask_token;
    CHECK(n == LENGTH && masks == 0 && memcmp(tokens, words, sizeof words) == 0);
    esolm_context_free(context);
}

/* A cancel, before or during a call, stays in force until esolm_cancel_reset. */
static void cancelling(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t whole[LENGTH], tokens[LENGTH];
    double log_p[LENGTH];
    size_t n;
    int32_t done;
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, whole, LENGTH, &n));

    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    STATUS(OK, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_cancel(context));
    for (int i = 0; i < 2; i++) {
        STATUS(ESOLM_ERR_CANCELLED, esolm_begin(context, &prompt, 1, &how));
        STATUS(ESOLM_ERR_CANCELLED, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
        STATUS(ESOLM_ERR_CANCELLED, esolm_score_order(context, whole, NULL, LENGTH, 0, log_p, LENGTH));
        STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
        CHECK(done == 0);
    }
    /* The tokens so far are still there, and the generation continues as if it had not been cancelled. */
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(OK, esolm_cancel_reset(context));
    do
        STATUS(OK, esolm_step(context, NULL, &done));
    while (!done);
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(tokens, whole, sizeof whole) == 0);
    STATUS(OK, esolm_cancel_reset(context));
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(INVALID, esolm_cancel(NULL));
    STATUS(INVALID, esolm_cancel_reset(NULL));
    esolm_context_free(context);
}

static void resetting(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t tokens[LENGTH];
    char text[8];
    size_t n;
    int32_t done;
    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    STATUS(OK, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_context_reset(context));
    STATUS(INVALID, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(INVALID, esolm_copy_text(context, 0, text, sizeof text, &n));
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(done == 1);
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(INVALID, esolm_context_reset(NULL));
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    contexts();
    memory_use(argv[1]);
    kernels();
    cancelling();
    resetting();
    esolm_model_free(model);
    return report();
}
