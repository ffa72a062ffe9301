/* Steps of sequences that have joined: a failure concerns its sequence only, and new texts: api_joining MODEL. */
#include "sequences.h"

typedef struct {
    int calls, fail_at, cancel_at;
} failing;

static int32_t fail(const esolm_logits_row *row, float *logits, void *user_data)
{
    failing *when = user_data;
    int call = when->calls++;
    for (size_t i = 0; call >= when->fail_at && i < row->n_logits; i++)
        logits[i] = -INFINITY;
    return call == when->cancel_at;
}

/* A callback that excludes all tokens, or cancels, concerns its own sequence only. */
static void failures(void)
{
    static const uint32_t words[2] = {5, 6};
    esolm_context *context = new_context(), *single = new_context();
    size_t calls = 0;
    request plain = {{words, NULL, 2}, small_params(), {0}, 0, 0}, forced = plain;
    forced.how.logits_callback = thirty_and_one, forced.how.logits_user_data = &calls;
    run_alone(single, &plain);
    run_alone(single, &forced);
    CHECK(forced.alone[20] == 30 && forced.alone[21] == 31);

    failing when = {0, 9, -1};
    esolm_generate_params how = small_params();
    how.alpha_0 = 0;
    how.logits_callback = fail, how.logits_user_data = &when;
    uint32_t bad = add(context, &EMPTY, &how), good = add(context, &plain.prompt, &plain.how),
             third = add(context, &forced.prompt, &forced.how), tokens[LENGTH];
    int32_t done = 0;
    esolm_status status;
    size_t steps = 0, n, known = 0;
    while (!(status = esolm_step(context, NULL, &done)) && !done)
        steps++;
    CHECK(status == INVALID && steps == 9 && done == 0);
    for (int again = 0; again < 2; again++) {
        CHECK(reason_of(context, bad) == ESOLM_STOP_ERROR);
        CHECK(reason_of(context, good) != ESOLM_STOP_ERROR && reason_of(context, third) != ESOLM_STOP_ERROR);
        STATUS(INVALID, esolm_step(context, NULL, &done));
        last_error_says("sequence 0");
    }
    /* What was written stays readable until the sequence is removed. */
    STATUS(OK, esolm_copy_tokens(context, bad, tokens, LENGTH, &n));
    for (size_t i = 0; i < n; i++)
        known += tokens[i] != info.mask_token;
    CHECK(known == 9);
    STATUS(OK, esolm_sequence_remove(context, bad));
    run(context);
    same(context, good, &plain);
    same(context, third, &forced);
    STATUS(OK, esolm_sequence_remove(context, good));
    STATUS(OK, esolm_sequence_remove(context, third));

    when = (failing){0, 999, 3};
    bad = add(context, &EMPTY, &how), good = add(context, &plain.prompt, &plain.how);
    while (!(status = esolm_step(context, NULL, &done)) && !done)
        ;
    CHECK(status == ESOLM_ERR_CANCELLED);
    CHECK(reason_of(context, bad) == ESOLM_STOP_CANCELLED && reason_of(context, good) != ESOLM_STOP_CANCELLED);
    /* The step was undone: it may be tried again. */
    run(context);
    CHECK(reason_of(context, bad) == ESOLM_STOP_LENGTH);
    same(context, good, &plain);
    esolm_context_free(single);
    esolm_context_free(context);
}

/* The new texts of a sequence that joined, one behind the other, are its text; one that does not want them has none. */
static void texts_of_steps(void)
{
    static const uint32_t words[3] = {5, 6, 7};
    const esolm_prompt prompt = {words, NULL, 3};
    esolm_context *context = new_context();
    esolm_generate_params silent = small_params(), how = small_params();
    esolm_step_info step = {.struct_size = sizeof step};
    int32_t done = 0;
    silent.alpha_0 = 0;
    how.alpha_0 = 0, how.step_text = 1, how.seed = 3;
    uint32_t first = add(context, &prompt, &silent);
    STATUS(OK, esolm_step(context, &step, &done));
    CHECK(step.texts == NULL && step.n_texts == 0);
    uint32_t second = add(context, &prompt, &how);
    how.max_tokens = 5;
    uint32_t third = add(context, &prompt, &how);
    CHECK(first == 0 && second == 1 && third == 2);

    char joined[2][1024], text[1024];
    size_t len[2], n = 0, grown = 0;
    for (uint32_t i = 0; i < 2; i++) {
        STATUS(OK, esolm_copy_text(context, 1 + i, joined[i], sizeof joined[i], &len[i]));
        CHECK(len[i] > 0);
    }
    while (esolm_step(context, &step, &done) == OK && !done) {
        int gone = step.n_texts == 2;
        CHECK(step.texts && (gone || step.n_texts == 3) && step.texts[0].len == 0 && step.texts[0].text[0] == 0);
        for (uint32_t i = 0; i < 2 - (uint32_t)gone; i++) {
            const esolm_step_text *new_text = &step.texts[1 + i];
            CHECK(new_text->sequence == 1 + i && len[i] + new_text->len < sizeof joined[i]);
            memcpy(joined[i] + len[i], new_text->text, new_text->len + 1);
            len[i] += new_text->len;
            STATUS(OK, esolm_copy_text(context, 1 + i, text, sizeof text, &n));
            CHECK(n == len[i] && strcmp(text, joined[i]) == 0);
            CHECK(new_text->stop_reason == reason_of(context, 1 + i));
            grown += new_text->len > 0;
        }
        if (!gone && step.texts[2].stop_reason != ESOLM_STOP_NONE) {
            CHECK(step.texts[2].stop_reason == ESOLM_STOP_LENGTH && strncmp(joined[0], joined[1], len[1]) == 0);
            STATUS(OK, esolm_sequence_remove(context, third));
        }
    }
    CHECK(done && grown > 20 && len[0] > len[1]);
    STATUS(INVALID, esolm_sequence_remove(context, third));
    esolm_context_free(context);
}

/* A long prompt joins in parts: meanwhile the other sequence writes, and both get the texts that they get alone. */
static void long_prompt(void)
{
    enum { ROWS = 4, PROMPT = 18 };
    uint32_t words[PROMPT];
    for (uint32_t i = 0; i < PROMPT; i++)
        words[i] = 5 + i;
    esolm_context_params params = limits();
    params.prompt_rows = ROWS;
    esolm_context *context = NULL, *single = new_context();
    STATUS(OK, esolm_context_new(model, &params, &context));
    request first = {{words, NULL, 1}, small_params(), {0}, 0, 0}, second = {{words + 1, NULL, PROMPT - 1}, first.how, {0}, 0, 0};
    first.how.alpha_0 = second.how.alpha_0 = 0;
    run_alone(single, &first);
    run_alone(single, &second);
    int32_t done = 0;
    CHECK(add(context, &first.prompt, &first.how) == 0);
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(add(context, &second.prompt, &second.how) == 1);
    for (size_t fed = 0; fed < PROMPT - 1; fed += ROWS) {
        esolm_step_info step = {.struct_size = sizeof step};
        int last = fed + ROWS >= PROMPT - 1;
        STATUS(OK, esolm_step(context, &step, &done));
        CHECK(step.n_updates == 1 + (size_t)last && step.updates[0].sequence == 0 && !done);
        CHECK(cached(context, 1) == (last ? PROMPT - 1 : fed + ROWS));
    }
    run(context);
    same(context, 0, &first);
    same(context, 1, &second);
    /* Alone it is fed in whole batches, and no step has to write a token. */
    STATUS(OK, esolm_context_reset(context));
    CHECK(add(context, &second.prompt, &second.how) == 0);
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(cached(context, 0) == PROMPT - 1);
    esolm_context_free(single);
    esolm_context_free(context);
}

/* Behind a finished text a prompt goes on: only what is new is computed, and the others are not disturbed. */
static void appending(void)
{
    static const uint32_t question[3] = {5, 6, 7}, next[2] = {8, 9};
    const esolm_prompt first = {question, NULL, 3}, second = {next, NULL, 2};
    esolm_context *context = new_context(), *single = new_context();
    esolm_generate_params how = small_params(), again;
    uint32_t before[LENGTH], after[LENGTH], anew[LENGTH];
    size_t n, m, k;
    how.alpha_0 = 0, how.max_tokens = 5;
    again = how;
    again.seed = 8;
    uint32_t number = add(context, &first, &how);
    run(context);
    STATUS(OK, esolm_copy_tokens(context, number, before, LENGTH, &n));
    STATUS(OK, esolm_sequence_append(context, number, SIZE_MAX, &second, &again));
    CHECK(n == 8 && cached(context, number) == 7);
    run(context);
    STATUS(OK, esolm_copy_tokens(context, number, after, LENGTH, &m));
    CHECK(m == 15 && !memcmp(before, after, n * sizeof *before) && after[8] == 8 && after[9] == 9);
    /* The same as a prompt that is computed anew. */
    const esolm_prompt all = {after, NULL, 10};
    STATUS(OK, esolm_generate(single, &all, 1, &again, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(single, 0, anew, LENGTH, &k));
    CHECK(k == m && !memcmp(anew, after, m * sizeof *anew));
    /* Only a part of it stays. */
    STATUS(OK, esolm_sequence_append(context, number, 3, &second, &again));
    run(context);
    STATUS(OK, esolm_copy_tokens(context, number, after, LENGTH, &m));
    CHECK(m == 10 && !memcmp(before, after, 3 * sizeof *before) && after[3] == 8);
    /* Another has its place for a while. */
    static unsigned char state[1 << 20], other[1 << 20];
    size_t size, needed;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_sequence_save(context, number, NULL, 0, &needed));
    STATUS(OK, esolm_sequence_save(context, number, state, sizeof state, &size));
    CHECK(size == needed);
    STATUS(OK, esolm_sequence_remove(context, number));
    STATUS(INVALID, esolm_sequence_save(context, number, state, sizeof state, &needed));
    const uint32_t guest = add(context, &second, &how);
    STATUS(OK, esolm_step(context, NULL, &(int32_t){0}));
    STATUS(OK, esolm_sequence_restore(context, state, size, &number));
    CHECK(number != guest);
    STATUS(OK, esolm_copy_tokens(context, number, anew, LENGTH, &k));
    CHECK(k == m && !memcmp(anew, after, m * sizeof *anew));
    STATUS(OK, esolm_sequence_save(context, number, other, sizeof other, &needed));
    CHECK(size == needed && !memcmp(state, other, size));
    state[size / 2] ^= 1;
    STATUS(ESOLM_ERR_BAD_FILE, esolm_sequence_restore(single, state, size, &number));
    STATUS(INVALID, esolm_sequence_restore(single, NULL, size, &number));
    STATUS(INVALID, esolm_sequence_restore(single, other, size, NULL));
    STATUS(INVALID, esolm_sequence_append(context, 9, SIZE_MAX, &second, &again));
    STATUS(INVALID, esolm_sequence_append(NULL, number, SIZE_MAX, &second, &again));
    esolm_context_free(single);
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    failures();
    texts_of_steps();
    long_prompt();
    appending();
    esolm_model_free(model);
    return report();
}
