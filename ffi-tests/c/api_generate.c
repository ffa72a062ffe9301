/* Generating: invalid requests, esolm_generate and esolm_step, callbacks that stop, threads: api_generate MODEL. */
#include "api.h"

#include <pthread.h>

/* The defaults that the documentation names. NULL stands for them, too. */
static void defaults(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how;
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t tokens[2][LENGTH];
    size_t n;

    STATUS(OK, esolm_generate_params_init(&how, sizeof how));
    CHECK(how.alpha_0 == ESOLM_ALPHA_0_AUTO && how.temperature == ESOLM_AUTO && how.top_p == ESOLM_AUTO &&
          how.top_k == ESOLM_TOP_K_AUTO);
    CHECK(how.order == ESOLM_ORDER_RANDOM && how.seed == 0 && how.length == 0 && how.steps == 0);
    for (int i = 0; i < 2; i++) {
        STATUS(OK, esolm_generate(context, &prompt, 1, i ? NULL : &how, NULL, NULL));
        STATUS(OK, esolm_copy_tokens(context, 0, tokens[i], LENGTH, &n));
    }
    CHECK(memcmp(tokens[0], tokens[1], sizeof tokens[0]) == 0);
    esolm_context_free(context);
}

static void bad_generations(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    uint32_t tokens[LENGTH + 1] = {1, 2, 3}, positions[3] = {4, 0, 4};
    esolm_prompt prompts[4] = {{tokens, NULL, 3}, {NULL, NULL, 0}, {NULL, NULL, 0}, {NULL, NULL, 0}};
    esolm_step_info step = {.struct_size = sizeof step};
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
    how = small_params(), how.temperature = -2;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = small_params(), how.top_p = 0;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = small_params(), how.steps = (1 << 20) + 1;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = small_params(), how.length = LENGTH + 1;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how = small_params(), how.lookahead = 17;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    last_error_says("lookahead");
    how = small_params(), how.struct_size = 48;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    STATUS(INVALID, esolm_begin(NULL, prompts, 1, NULL));

    STATUS(INVALID, esolm_step(NULL, &step, &done));
    CHECK(done == 0);
    step.struct_size = 0;
    STATUS(INVALID, esolm_step(context, &step, &done));
    last_error_says("sizeof");
    step.struct_size = sizeof step;
    STATUS(INVALID, esolm_step(context, &step, NULL));
    STATUS(OK, esolm_step(context, &step, &done));
    CHECK(done == 1 && step.n_updates == 0 && step.updates == NULL);
    STATUS(INVALID, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(INVALID, esolm_copy_text(context, 7, NULL, 0, &n));
    esolm_context_free(context);
}

/* Different prompts, one with holes: esolm_generate and esolm_step give the same tokens. */
static void at_once_and_by_step(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
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
        esolm_step_info step = {.struct_size = sizeof step};
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
    /* NULL means default parameters: one step shows that they are accepted. */
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
        esolm_step_info inner = {.struct_size = sizeof inner};
        int32_t done;
        size_t n;
        uint32_t tokens[LENGTH];
        char text[512];
        esolm_prompt prompt = {NULL, NULL, 0};
        STATUS(ESOLM_ERR_BUSY, esolm_step(call->context, &inner, &done));
        STATUS(OK, esolm_copy_tokens(call->context, 0, tokens, LENGTH, &n));
        CHECK(tokens[step->updates[0].position] == step->updates[0].token);
        STATUS(OK, esolm_copy_text(call->context, 0, text, sizeof text, &n));
        STATUS(ESOLM_ERR_BUSY, esolm_begin(call->context, &prompt, 1, NULL));
        STATUS(ESOLM_ERR_BUSY, esolm_context_reset(call->context));
        STATUS(ESOLM_ERR_BUSY, esolm_generate(call->context, &prompt, 1, NULL, on_step, call));
    }
    if (at == call->cancel_at)
        STATUS(OK, esolm_cancel(call->context));
    return at == call->stop_at ? -3 : 0;
}

static void stopping(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
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
    /* A generation that a callback has stopped can be continued. */
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

    STATUS(OK, esolm_cancel_reset(context));
    do
        STATUS(OK, esolm_step(context, NULL, &done));
    while (!done);
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(tokens, whole, sizeof whole) == 0);
    esolm_context_free(context);
}

/* Fewer steps, the same greedy text; what was proposed and accepted is counted. */
static void lookahead(void)
{
    esolm_context_params params = {.struct_size = sizeof params, .length = LENGTH};
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t tokens[3][LENGTH];
    const uint32_t ways[] = {0, 4, ESOLM_LOOKAHEAD_AUTO};
    size_t steps[3] = {0}, proposed[3] = {0}, accepted[3] = {0}, n;
    STATUS(OK, esolm_context_new(model, &params, &context));
    for (int i = 0; i < 3; i++) {
        esolm_generate_params how = small_params();
        int32_t done = 0;
        how.alpha_0 = 0, how.temperature = 0, how.lookahead = ways[i], how.ignore_eos = 1;
        STATUS(OK, esolm_begin(context, &prompt, 1, &how));
        for (;; steps[i]++) {
            esolm_step_info step = {.struct_size = sizeof step};
            STATUS(OK, esolm_step(context, &step, &done));
            if (done)
                break;
            CHECK(step.n_accepted <= step.n_proposed && step.n_accepted <= step.n_updates);
            proposed[i] += step.n_proposed, accepted[i] += step.n_accepted;
        }
        STATUS(OK, esolm_copy_tokens(context, 0, tokens[i], LENGTH, &n));
        CHECK(memcmp(tokens[i], tokens[0], sizeof tokens[0]) == 0);
    }
    CHECK(steps[0] == LENGTH && proposed[0] == 0 && accepted[0] == 0);
    CHECK(steps[1] < steps[0] && accepted[1] > 0 && proposed[1] >= accepted[1]);
    CHECK(steps[2] <= steps[0]);
    /* A program that was built before there were these fields. */
    esolm_step_info old = {.struct_size = offsetof(esolm_step_info, n_proposed), .n_proposed = 99};
    int32_t done;
    esolm_generate_params how = small_params();
    STATUS(OK, esolm_begin(context, &prompt, 1, &how));
    STATUS(OK, esolm_step(context, &old, &done));
    CHECK(old.n_updates > 0 && old.n_proposed == 99);
    esolm_context_free(context);
}

/* Any number as lookahead or prompt_rows: refused, or the same greedy texts, with holes and in sequences that join. */
static void hostile_lookahead(void)
{
    esolm_context_params params = {.struct_size = sizeof params, .length = LENGTH, .sequences = 2, .batch_rows = 12};
    esolm_context *context = NULL;
    uint32_t words[20], positions[3] = {LENGTH - 1, 3, 9}, expected[2][LENGTH], tokens[LENGTH], sequence;
    esolm_prompt holes = {words, positions, 3}, prompt = {words, NULL, 20};
    const uint32_t refused[] = {17, 1u << 31, UINT32_MAX / 3 + 1, UINT32_MAX - 1};
    const size_t rows[] = {0, 1, 2, SIZE_MAX, SIZE_MAX / 2 + 1};
    esolm_generate_params how = small_params();
    size_t n;
    int32_t done;

    CHECK(ESOLM_LOOKAHEAD_AUTO == UINT32_MAX);
    for (uint32_t i = 0; i < 20; i++)
        words[i] = 5 + i;
    STATUS(OK, esolm_context_new(model, &params, &context));
    how.lookahead = 4;
    STATUS(INVALID, esolm_begin(context, &holes, 1, &how));
    last_error_says("batch_rows of 13");
    STATUS(INVALID, esolm_sequence_add(context, &holes, &how, &sequence));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        how.lookahead = refused[i];
        STATUS(INVALID, esolm_begin(context, &holes, 1, &how));
        last_error_says("at most 16");
        STATUS(INVALID, esolm_sequence_add(context, &holes, &how, &sequence));
        STATUS(INVALID, esolm_sequence_extend(context, 0, &holes, &how));
    }
    esolm_context_free(context);
    params.batch_rows = 49;
    how.alpha_0 = 0, how.temperature = 0, how.ignore_eos = 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        params.prompt_rows = rows[i];
        STATUS(OK, esolm_context_new(model, &params, &context));
        for (int ahead = 0; ahead < 2; ahead++) {
            how.lookahead = ahead ? 16 : 0, how.order = ahead ? ESOLM_ORDER_LEFT_TO_RIGHT : ESOLM_ORDER_RANDOM;
            STATUS(OK, esolm_context_reset(context));
            STATUS(OK, esolm_sequence_add(context, &holes, &how, &sequence));
            for (int step = 0; step < 3; step++)
                STATUS(OK, esolm_step(context, NULL, &done));
            how.lookahead = ahead ? ESOLM_LOOKAHEAD_AUTO : 0;
            STATUS(OK, esolm_sequence_add(context, &prompt, &how, &sequence));
            CHECK(sequence == 1);
            do
                STATUS(OK, esolm_step(context, NULL, &done));
            while (!done);
            for (uint32_t s = 0; s < 2; s++) {
                STATUS(OK, esolm_copy_tokens(context, s, tokens, LENGTH, &n));
                if (i == 0 && ahead == 0)
                    memcpy(expected[s], tokens, sizeof tokens);
                CHECK(n == LENGTH && memcmp(tokens, expected[s], sizeof tokens) == 0);
            }
        }
        esolm_context_free(context);
    }
}

struct job {
    esolm_status status;
    uint32_t tokens[LENGTH];
    int no_error;
};

/* No CHECK here: its counters are not atomic. */
static void *work(void *argument)
{
    struct job *job = argument;
    esolm_context_params params = {.struct_size = sizeof params, .length = LENGTH, .threads = 1};
    esolm_generate_params how;
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n;
    job->no_error = esolm_last_error()[0] == 0;
    esolm_generate_params_init(&how, sizeof how);
    how.steps = STEPS, how.seed = 7, how.alpha_0 = 0.8, how.ignore_eos = 1;
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
        CHECK(jobs[i].status == OK && jobs[i].no_error);
        CHECK(memcmp(jobs[i].tokens, expected, sizeof expected) == 0);
    }
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    defaults();
    bad_generations();
    at_once_and_by_step();
    stopping();
    lookahead();
    hostile_lookahead();
    threads();
    esolm_model_free(model);
    return report();
}
