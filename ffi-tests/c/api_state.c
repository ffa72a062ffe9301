/* Extending a text, saved states, adaptive steps, profiles: api_state MODEL. */
#include "api.h"

#include <math.h>

enum { SHORT = 12 };
static const esolm_prompt EMPTY = {NULL, NULL, 0};

static void states(void)
{
    esolm_context *context = new_context(), *other = new_context();
    esolm_generate_params how = small_params(), longer = how;
    uint32_t begun[LENGTH] = {0}, whole[LENGTH] = {0}, again[LENGTH] = {1}, words[1] = {9}, positions[1] = {20};
    const esolm_prompt further = {words, positions, 1};
    size_t size = 0, n = 0;
    how.length = SHORT;
    longer.seed = 8;
    STATUS(OK, esolm_generate(context, &EMPTY, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, begun, LENGTH, &n));
    CHECK(n == SHORT);

    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_state_save(context, NULL, 0, &size));
    CHECK(size > SHORT * 8);
    unsigned char *state = malloc(size);
    if (!state)
        exit(1);
    state[0] = 170;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_state_save(context, state, size - 1, &n));
    CHECK(n == size && state[0] == 170);
    STATUS(OK, esolm_state_save(context, state, size, &n));
    CHECK(n == size);

    STATUS(OK, esolm_extend(context, &further, 1, &longer));
    finish(context, whole, LENGTH);
    CHECK(memcmp(whole, begun, SHORT * sizeof *begun) == 0 && whole[20] == 9);
    /* Another context continues from the saved state with the same tokens. */
    STATUS(OK, esolm_state_restore(other, state, size));
    STATUS(OK, esolm_copy_tokens(other, 0, again, LENGTH, &n));
    CHECK(n == SHORT && memcmp(again, begun, SHORT * sizeof *begun) == 0);
    STATUS(OK, esolm_extend(other, &further, 1, &longer));
    finish(other, again, LENGTH);
    CHECK(memcmp(again, whole, sizeof whole) == 0);

    /* A damaged state is refused, and the context keeps its own. */
    for (size_t at = 0; at < size; at += size / 7) {
        state[at] ^= 64;
        STATUS(ESOLM_ERR_BAD_FILE, esolm_state_restore(other, state, size));
        state[at] ^= 64;
    }
    STATUS(ESOLM_ERR_BAD_FILE, esolm_state_restore(other, state, size - 1));
    STATUS(ESOLM_ERR_BAD_FILE, esolm_state_restore(other, state, 0));
    STATUS(OK, esolm_copy_tokens(other, 0, again, LENGTH, &n));
    CHECK(memcmp(again, whole, sizeof whole) == 0);
    STATUS(INVALID, esolm_extend(other, &EMPTY, 1, &how)); /* shorter */
    STATUS(INVALID, esolm_extend(NULL, &EMPTY, 1, &longer));
    STATUS(INVALID, esolm_state_save(NULL, state, size, &n));
    STATUS(INVALID, esolm_state_save(other, NULL, 8, &n));
    STATUS(INVALID, esolm_state_save(other, state, size, NULL));
    STATUS(INVALID, esolm_state_restore(NULL, state, size));
    STATUS(INVALID, esolm_state_restore(other, NULL, size));
    STATUS(OK, esolm_cancel(other));
    STATUS(ESOLM_ERR_CANCELLED, esolm_extend(other, &EMPTY, 1, &longer));
    free(state);
    esolm_context_free(context);
    esolm_context_free(other);
}

static void adaptive(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    uint32_t tokens[LENGTH];
    const uint32_t schedule[1] = {2};
    esolm_step_info step = {.struct_size = sizeof step};
    int32_t done = 0;
    how.alpha_0 = 1;
    how.window = 8;
    /* A threshold that no token meets: one token per step. One that every token meets: a window per step. */
    const struct {
        int32_t confidence;
        float threshold;
        size_t each;
    } cases[] = {{ESOLM_CONFIDENCE_PROBABILITY, 2, 1}, {ESOLM_CONFIDENCE_PROBABILITY, 0, 8},
                 {ESOLM_CONFIDENCE_MARGIN, 2, 1},      {ESOLM_CONFIDENCE_MARGIN, 0, 8},
                 {ESOLM_CONFIDENCE_ENTROPY, 0, 1},     {ESOLM_CONFIDENCE_ENTROPY, 100, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        how.confidence = cases[i].confidence;
        how.threshold = cases[i].threshold;
        STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
        STATUS(OK, esolm_step(context, &step, &done));
        CHECK(step.n_updates == cases[i].each && step.total >= LENGTH / cases[i].each);
        finish(context, tokens, LENGTH);
    }
    how.confidence = 4;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("confidence 4");
    how.confidence = ESOLM_CONFIDENCE_MARGIN;
    how.threshold = NAN;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    /* A size that is found out, where the window slides. */
    how.threshold = 0.5f, how.window = ESOLM_WINDOW_AUTO, how.in_order = 1;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    finish(context, tokens, LENGTH);
    how.in_order = 0;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.threshold = 0.5f, how.window = 0;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.window = 4, how.alpha_0 = 0.5;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.alpha_0 = 1, how.schedule = schedule, how.n_schedule = 1;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    esolm_context_free(context);
}

static double total(const esolm_profile *profile)
{
    return profile->blocks + profile->attention + profile->vocabulary + profile->sampling + profile->rest;
}

static void profiles(void)
{
    esolm_context *context = new_context(), *other = NULL;
    esolm_profile profile = {.struct_size = sizeof profile, .rest = 3};
    STATUS(OK, esolm_context_profile(context, &profile));
    CHECK(total(&profile) == 0 && profile.struct_size == sizeof profile);
    esolm_generate_params how = small_params();
    STATUS(OK, esolm_generate(context, &EMPTY, 1, &how, NULL, NULL));
    STATUS(OK, esolm_context_profile(context, &profile));
    CHECK(profile.blocks > 0 && profile.attention > 0 && profile.vocabulary > 0 && profile.sampling > 0);
    /* Seconds: a plausible number, under valgrind too. */
    CHECK(total(&profile) > 1e-6 && total(&profile) < 600);
    STATUS(INVALID, esolm_context_profile(NULL, &profile));
    CHECK(total(&profile) == 0);
    STATUS(INVALID, esolm_context_profile(context, NULL));
    profile.struct_size = 8;
    STATUS(INVALID, esolm_context_profile(context, &profile));

    esolm_context_params params = limits();
    params.kernels = ESOLM_KERNELS_GGML;
    profile.struct_size = sizeof profile, profile.rest = 3;
    STATUS(OK, esolm_context_new(model, &params, &other));
    STATUS(ESOLM_ERR_UNSUPPORTED, esolm_context_profile(other, &profile));
    CHECK(total(&profile) == 0);
    esolm_context_free(context);
    esolm_context_free(other);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    states();
    adaptive();
    profiles();
    esolm_model_free(model);
    return report();
}
