/* Models that fill several places in a step, WeDLM its window that slides and BD3-LM its blocks:
 * api_windows WEDLM_MODEL BD3LM_MODEL. */
#include "api.h"

#include <math.h>

enum { TOKENS = 16, KNOWN = 2, UNKNOWN = TOKENS - KNOWN, BLOCK = 4 };

static const uint32_t words[KNOWN] = {5, 6};

/* What a generation wrote, and in which steps. */
typedef struct {
    uint32_t tokens[TOKENS];
    size_t steps, cached;
    /* The most places that one step filled, and how many rows of logits were drawn from, in the first step and in all. */
    size_t most, first_rows, rows;
    /* The step that filled a position. */
    size_t step_of[TOKENS];
} written;

static esolm_generate_params defaults(void)
{
    esolm_generate_params how;
    STATUS(OK, esolm_generate_params_init(&how, sizeof how));
    how.seed = 7;
    how.ignore_eos = 1;
    return how;
}

static int32_t count_row(const esolm_logits_row *row, float *logits, void *rows)
{
    (void)row, (void)logits;
    ++*(size_t *)rows;
    return 0;
}

static void refused(esolm_generate_params how)
{
    const esolm_prompt prompt = {words, NULL, KNOWN};
    esolm_context_params size = limits();
    esolm_context *context = NULL;
    size.length = TOKENS;
    STATUS(OK, esolm_context_new(model, &size, &context));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, esolm_begin(context, &prompt, 1, &how));
    CHECK(strstr(esolm_last_error(), "take a confidence") != NULL);
    esolm_context_free(context);
}

/* Runs a generation, whose steps fill each unknown position once. */
static written run(esolm_generate_params how)
{
    const esolm_prompt prompt = {words, NULL, KNOWN};
    esolm_context_params size = limits();
    esolm_context *context = NULL;
    written found = {.steps = 0};
    size_t n = 0, filled = 0;
    int32_t done = 0, reason = 99;
    size.length = TOKENS;
    STATUS(OK, esolm_context_new(model, &size, &context));
    how.logits_callback = count_row, how.logits_user_data = &found.rows;
    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    for (;;) {
        esolm_step_info step = {.struct_size = sizeof step};
        STATUS(OK, esolm_step(context, &step, &done));
        if (done || step.n_updates == 0 || step.n_updates > UNKNOWN - filled)
            break;
        for (size_t i = 0; i < step.n_updates; i++) {
            CHECK(step.updates[i].position >= KNOWN && step.updates[i].position < TOKENS);
            found.step_of[step.updates[i].position % TOKENS] = found.steps;
        }
        filled += step.n_updates;
        found.most = step.n_updates > found.most ? step.n_updates : found.most;
        found.first_rows = found.steps == 0 ? found.rows : found.first_rows;
        found.steps++;
    }
    CHECK(done && filled == UNKNOWN);
    STATUS(OK, esolm_copy_tokens(context, 0, found.tokens, TOKENS, &n));
    CHECK(n == TOKENS && memcmp(found.tokens, words, sizeof words) == 0);
    for (size_t i = 0; i < n; i++)
        CHECK(found.tokens[i] < info.vocab_size && found.tokens[i] != info.mask_token);
    STATUS(OK, esolm_stop_reason(context, 0, &reason));
    CHECK(reason == ESOLM_STOP_LENGTH);
    STATUS(OK, esolm_sequence_cached_tokens(context, 0, &found.cached));
    CHECK(found.cached <= TOKENS);
    esolm_context_free(context);
    return found;
}

static int same(const written *one, const written *other)
{
    return memcmp(one->tokens, other->tokens, sizeof one->tokens) == 0 && one->steps == other->steps &&
           one->rows == other->rows && memcmp(one->step_of, other->step_of, sizeof one->step_of) == 0;
}

static void windows(void)
{
    CHECK(!esolm_model_supports(model, ESOLM_FEATURE_ORDERS));
    /* By default a window of 16 places, here as many as are left. */
    esolm_generate_params how = defaults();
    const written own = run(how), again = run(how);
    CHECK(same(&own, &again) && own.steps <= UNKNOWN && own.first_rows == UNKNOWN);

    /* A window and a threshold of its own: each place is certain enough, so each step fills the whole window. */
    how.confidence = ESOLM_CONFIDENCE_ENTROPY;
    how.window = 4, how.threshold = 100;
    const written certain = run(how), once_more = run(how);
    CHECK(same(&certain, &once_more));
    CHECK(certain.steps == 4 && certain.most == 4 && certain.rows == UNKNOWN && certain.first_rows == 4);
    for (size_t position = KNOWN; position < TOKENS; position++)
        CHECK(certain.step_of[position] == (position - KNOWN) / 4);
    /* Final are those whose keys and values have been computed behind all before them: not those of the last step. */
    CHECK(certain.cached >= TOKENS - 4);
    /* No place is: each step fills the best one. */
    how.threshold = 0, how.penalty = 0.5f;
    const written uncertain = run(how);
    CHECK(uncertain.steps == UNKNOWN && uncertain.most == 1 && uncertain.first_rows == 4);

    /* A window alone is WeDLM's own rule with another window. */
    how = defaults();
    how.window = 2;
    const written narrow = run(how);
    CHECK(narrow.first_rows == 2 && narrow.most <= 2);
    how.confidence = ESOLM_CONFIDENCE_ENTROPY;
    how.threshold = 0.4f, how.penalty = 0.02f, how.in_order = 1;
    const written spelled = run(how);
    CHECK(same(&narrow, &spelled));
    /* What is certain enough takes a measure. */
    how.confidence = ESOLM_CONFIDENCE_NONE;
    refused(how);
    how = defaults();
    how.penalty = 0.02f;
    refused(how);
    how = defaults();
    how.confidence = ESOLM_CONFIDENCE_ENTROPY;
    how.threshold = 0.4f, how.penalty = 0.02f, how.in_order = 1;
    /* The default in full. */
    how.window = 16;
    const written whole = run(how);
    CHECK(same(&own, &whole));
}

static void blocks(void)
{
    /* By default one place in each step. */
    esolm_generate_params how = defaults();
    const written own = run(how), again = run(how);
    CHECK(same(&own, &again) && own.steps == UNKNOWN && own.most == 1);
    CHECK(own.cached % BLOCK == 0);
    /* Block by block, whatever the order within. */
    for (size_t position = KNOWN + 1; position < TOKENS; position++)
        if (position % BLOCK == 0)
            for (size_t before = KNOWN; before < position; before++)
                CHECK(own.step_of[before] < own.step_of[position]);

    /* A number of steps is of each block. */
    how.steps = 2;
    const written fewer = run(how);
    CHECK(fewer.steps < UNKNOWN && fewer.steps <= 2 * TOKENS / BLOCK);
    /* Whole blocks. */
    const uint32_t schedule[1] = {BLOCK};
    how = defaults();
    how.schedule = schedule, how.n_schedule = 1;
    const written at_once = run(how), once_more = run(how);
    CHECK(same(&at_once, &once_more) && at_once.steps == TOKENS / BLOCK && at_once.most == BLOCK);
    for (size_t position = KNOWN; position < TOKENS; position++)
        CHECK(at_once.step_of[position] == position / BLOCK);
    CHECK(at_once.cached % BLOCK == 0);
}

/* What a pass costs: measured, and said to a context, whose generation it ends. */
static void overhead(void)
{
    const esolm_prompt prompt = {words, NULL, KNOWN};
    const float none[] = {-1, 257, NAN};
    esolm_generate_params how = defaults();
    esolm_context_params size = limits();
    esolm_context *context = NULL;
    float rows = -1;
    int32_t done = 0;
    size.length = TOKENS;
    STATUS(OK, esolm_context_new(model, &size, &context));
    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    STATUS(OK, esolm_context_measure_pass_overhead(context, &rows));
    CHECK(rows > 0.05f && rows <= 256);
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(done);
    STATUS(OK, esolm_context_set_pass_overhead(context, rows));
    STATUS(OK, esolm_context_set_pass_overhead(context, 0));
    for (int i = 0; i < 3; i++)
        STATUS(INVALID, esolm_context_set_pass_overhead(context, none[i]));
    STATUS(INVALID, esolm_context_set_pass_overhead(NULL, 1));
    STATUS(INVALID, esolm_context_measure_pass_overhead(context, NULL));
    STATUS(INVALID, esolm_context_measure_pass_overhead(NULL, &rows));
    CHECK(rows == 0);
    esolm_cancel(context);
    STATUS(ESOLM_ERR_CANCELLED, esolm_context_measure_pass_overhead(context, &rows));
    esolm_context_free(context);
    /* (Batches of BD3-LM have room for a block.) */
    size.length = 3;
    STATUS(OK, esolm_context_new(model, &size, &context));
    STATUS(INVALID, esolm_context_measure_pass_overhead(context, &rows));
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    void (*const tests[2])(void) = {windows, blocks};
    for (int i = 0; i < 2; i++) {
        char *one[2] = {argv[0], argv[1 + i]};
        open_model(2, one);
        tests[i]();
        overhead();
        esolm_model_free(model);
    }
    return report();
}
