/* A model on a device by its name, beside the same model on the CPU: texts, states that move between the two, cancelling, and
 * memory that is not there: device MODEL [DEVICE]. DEVICE is cpu if it is not given; `esolm devices` lists others. */
#include "api.h"

#include <math.h>

static const esolm_prompt EMPTY = {NULL, NULL, 0};

static esolm_model *open_on(const char *path, const char *device)
{
    esolm_model_params params;
    esolm_model *opened = NULL;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.device = device;
    STATUS(OK, esolm_model_open(path, &params, &opened));
    if (!opened)
        exit(report());
    return opened;
}

static esolm_context *context_of(const esolm_model *opened)
{
    esolm_context_params params = limits();
    esolm_context *context = NULL;
    STATUS(OK, esolm_context_new(opened, &params, &context));
    if (!context)
        exit(report());
    return context;
}

/* The most likely tokens one by one, so that a text depends on nothing else. */
static esolm_generate_params greedy(size_t length)
{
    esolm_generate_params how = small_params();
    how.alpha_0 = 0;
    how.temperature = 0;
    how.length = length;
    return how;
}

static void devices(const char *device)
{
    size_t count = 0, found = 0;
    STATUS(OK, esolm_device_count(&count));
    for (size_t i = 0; i < count; i++) {
        esolm_device_info one = {.struct_size = sizeof one};
        STATUS(OK, esolm_device_info_get(i, &one));
        if (strcmp(one.name, device) != 0)
            continue;
        found++;
        CHECK((one.kind == ESOLM_DEVICE_CPU) == (strcmp(device, "cpu") == 0));
        CHECK(one.memory_free > 0 && one.memory_free <= one.memory_total);
        printf("%s: %s\n", one.name, one.description);
    }
    CHECK(found == 1);
    /* What reports of bugs have names it, too. */
    const char *line = strstr(esolm_system_info(), "devices: ");
    char listed[64];
    snprintf(listed, sizeof listed, " %s ", device);
    CHECK(line && strstr(line, listed));
    esolm_model_params params;
    esolm_model *none = NULL;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.device = "gpu:77";
    STATUS(ESOLM_ERR_DEVICE, esolm_model_open("nowhere", &params, &none));
    CHECK(none == NULL);
    last_error_says(device);
}

/* Both models make the same of a position, up to how the device rounds. */
static void logits(const esolm_model *here)
{
    const esolm_model *models[2] = {here, model};
    float *found[2];
    const uint32_t word = 5, position = 1;
    const esolm_prompt prompt = {&word, NULL, 1};
    esolm_generate_params how = greedy(8);
    size_t n = 0;
    double largest = 0;
    for (int i = 0; i < 2; i++) {
        esolm_context *context = context_of(models[i]);
        found[i] = malloc(info.vocab_size * sizeof(float));
        if (!found[i])
            exit(1);
        STATUS(OK, esolm_begin(context, &prompt, 1, &how));
        STATUS(OK, esolm_evaluate_logits(context, 0, &position, 1, found[i], info.vocab_size, &n));
        CHECK(n == info.vocab_size);
        esolm_context_free(context);
    }
    for (size_t i = 0; i < info.vocab_size; i++)
        if (i != info.mask_token)
            largest = fmax(largest, fabs((double)found[0][i] - found[1][i]));
    printf("logits differ from the CPU's by %g at most\n", largest);
    CHECK(largest < 0.5);
    free(found[0]);
    free(found[1]);
}

/* The state of `context`, whose size goes to *size. */
static unsigned char *saved(esolm_context *context, size_t *size)
{
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_state_save(context, NULL, 0, size));
    unsigned char *state = malloc(*size);
    if (!state)
        exit(1);
    STATUS(OK, esolm_state_save(context, state, *size, size));
    return state;
}

/* From `from` to `to` and back: the same bytes, from which the first goes on as if it had never been away. */
static void move_state(const esolm_model *from, const esolm_model *to)
{
    esolm_context *first = context_of(from), *second = context_of(to), *third = context_of(from);
    esolm_generate_params how = greedy(12), longer = greedy(LENGTH);
    uint32_t begun[LENGTH] = {0}, there[LENGTH] = {0}, whole[LENGTH] = {0}, again[LENGTH] = {1};
    size_t size = 0, size_there = 0, n = 0;
    STATUS(OK, esolm_generate(first, &EMPTY, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(first, 0, begun, LENGTH, &n));
    unsigned char *state = saved(first, &size);

    STATUS(OK, esolm_state_restore(second, state, size));
    STATUS(OK, esolm_copy_tokens(second, 0, there, LENGTH, &n));
    CHECK(n == 12 && memcmp(there, begun, sizeof begun) == 0);
    unsigned char *state_there = saved(second, &size_there);
    CHECK(size_there == size && memcmp(state_there, state, size) == 0);
    STATUS(OK, esolm_extend(second, &EMPTY, 1, &longer));
    finish(second, there, LENGTH);
    CHECK(memcmp(there, begun, 12 * sizeof *begun) == 0);

    STATUS(OK, esolm_state_restore(third, state_there, size));
    STATUS(OK, esolm_extend(first, &EMPTY, 1, &longer));
    STATUS(OK, esolm_extend(third, &EMPTY, 1, &longer));
    finish(first, whole, LENGTH);
    finish(third, again, LENGTH);
    CHECK(memcmp(again, whole, sizeof whole) == 0);

    state[size / 2] ^= 1;
    STATUS(ESOLM_ERR_BAD_FILE, esolm_state_restore(third, state, size));
    free(state);
    free(state_there);
    esolm_context_free(first);
    esolm_context_free(second);
    esolm_context_free(third);
}

static int32_t cancel_at_third(const esolm_step_info *step, void *user_data)
{
    int *calls = user_data;
    return step->n_updates > 0 && ++*calls == 3;
}

/* From a callback, and between steps; the text is the one that it would have been. */
static void cancelling(void)
{
    esolm_context *context = context_of(model), *other = context_of(model);
    esolm_generate_params how = greedy(LENGTH);
    uint32_t whole[LENGTH] = {0}, tokens[LENGTH] = {1};
    size_t n = 0, known = 0;
    int calls = 0;
    int32_t done = 0;
    STATUS(OK, esolm_begin(other, &EMPTY, 1, &how));
    finish(other, whole, LENGTH);
    STATUS(ESOLM_ERR_CANCELLED, esolm_generate(context, &EMPTY, 1, &how, cancel_at_third, &calls));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    for (size_t i = 0; i < n; i++)
        known += tokens[i] != info.mask_token;
    CHECK(calls == 3 && known == 3);
    STATUS(OK, esolm_cancel(context));
    STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_cancel_reset(context));
    finish(context, tokens, LENGTH);
    CHECK(memcmp(tokens, whole, sizeof whole) == 0);
    esolm_context_free(context);
    esolm_context_free(other);
}

/* What is missing is said in numbers, and nothing is lost. */
static void too_large(void)
{
    esolm_context_params params = limits();
    esolm_context *context = NULL;
    esolm_memory_use use = {.struct_size = sizeof use};
    uint32_t tokens[LENGTH];
    params.length = 0;
    params.sequences = 1 << 16;
    params.batch_rows = 512;
    STATUS(OK, esolm_context_memory_use(model, &params, &use));
    CHECK(use.kv_cache > (size_t)1 << 36);
    STATUS(ESOLM_ERR_OUT_OF_MEMORY, esolm_context_new(model, &params, &context));
    CHECK(context == NULL);
    last_error_says(" free there");
    printf("%s\n", esolm_last_error());
    run_briefly(model, tokens);
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3)
        return 2;
    const char *device = argc == 3 ? argv[2] : "cpu";
    esolm_model *here = open_on(argv[1], "cpu");
    devices(device);
    model = open_on(argv[1], device);
    info.struct_size = sizeof info;
    STATUS(OK, esolm_model_info_get(model, &info));
    CHECK(strcmp(info.device, device) == 0);
    CHECK(esolm_model_supports(model, ESOLM_FEATURE_STATES) == 1);
    logits(here);
    move_state(model, here);
    move_state(here, model);
    cancelling();
    /* The CPU's memory is provided when it is touched, so it is never too small. */
    if (strcmp(device, "cpu") != 0)
        too_large();
    esolm_model_free(here);
    esolm_model_free(model);
    return report();
}
