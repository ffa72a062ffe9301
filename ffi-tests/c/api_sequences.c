/* Sequences that join a generation and leave it: api_sequences MODEL. */
#include "sequences.h"

enum { SEQUENCES = 3, REQUESTS = 7 };

/* Requests that have little in common join while others run, one leaves and comes again, and each gets what it gets
 * alone. */
static void same_as_alone(void)
{
    static const uint32_t words[20] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    static const uint32_t positions[3] = {20, 3, 9}, banned[2] = {30, 31};
    const esolm_constraints rules = {.struct_size = sizeof rules, .banned = banned, .n_banned = 2};
    const esolm_constraints *constraints[1] = {&rules};
    esolm_context *context = new_context(), *single = new_context();
    request requests[REQUESTS];
    size_t calls = 0;
    for (size_t i = 0; i < REQUESTS; i++) {
        requests[i].prompt = (esolm_prompt){words, NULL, i * 3};
        requests[i].how = small_params();
        requests[i].how.seed = i;
        requests[i].how.steps = 3 + i;
    }
    requests[0].how.alpha_0 = 0;
    requests[1].how.max_tokens = 5;
    requests[2].how.temperature = 0.5f, requests[2].how.top_k = 20;
    requests[3].prompt = (esolm_prompt){words, positions, 3};
    requests[4].how.constraints = constraints, requests[4].how.n_constraints = 1;
    requests[5].how.order = ESOLM_ORDER_LEFT_TO_RIGHT, requests[5].how.length = 25;
    /* Looks ahead, also beside one whose logits a function changes. */
    requests[5].how.alpha_0 = 0, requests[5].how.lookahead = 2;
    requests[6].how.logits_callback = thirty_and_one, requests[6].how.logits_user_data = &calls;
    for (size_t i = 0; i < REQUESTS; i++)
        run_alone(single, &requests[i]);
    size_t alone_calls = calls;
    calls = 0;

    /* The request of each sequence; REQUESTS: free. */
    size_t of[SEQUENCES] = {REQUESTS, REQUESTS, REQUESTS}, next = 0, finished = 0, joined = 0, left = 0;
    for (size_t step = 0; finished < REQUESTS && step < 500; step++) {
        /* One joins after each second step. */
        if (step % 2 == 0 && next < REQUESTS && finished + SEQUENCES > next) {
            uint32_t sequence = add(context, &requests[next].prompt, &requests[next].how);
            CHECK(sequence < SEQUENCES && of[sequence] == REQUESTS);
            CHECK(reason_of(context, sequence) == ESOLM_STOP_NONE);
            of[sequence] = next++;
            joined += step > 0;
        }
        esolm_step_info info = {.struct_size = sizeof info};
        int32_t done = 0;
        STATUS(OK, esolm_step(context, &info, &done));
        CHECK(info.index == step && info.n_updates > 0 && !done);
        for (size_t i = 0; i < info.n_updates; i++)
            CHECK(info.updates[i].sequence < SEQUENCES && of[info.updates[i].sequence] < REQUESTS);
        for (uint32_t sequence = 0; sequence < SEQUENCES; sequence++) {
            if (of[sequence] == REQUESTS)
                continue;
            if (step == 5 && of[sequence] == 2) {
                CHECK(reason_of(context, sequence) == ESOLM_STOP_NONE);
                STATUS(OK, esolm_sequence_remove(context, sequence));
                of[sequence] = REQUESTS;
                uint32_t again = add(context, &requests[2].prompt, &requests[2].how);
                CHECK(again < SEQUENCES && of[again] == REQUESTS);
                of[again] = 2;
                left++;
            } else if (reason_of(context, sequence) != ESOLM_STOP_NONE) {
                same(context, sequence, &requests[of[sequence]]);
                STATUS(OK, esolm_sequence_remove(context, sequence));
                of[sequence] = REQUESTS;
                finished++;
            }
        }
    }
    CHECK(finished == REQUESTS && joined == REQUESTS - 1 && left == 1 && calls == alone_calls);
    int32_t done = 0;
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(done == 1);
    /* A generation of all sequences can follow. */
    STATUS(OK, esolm_generate(context, &requests[0].prompt, 1, &requests[0].how, NULL, NULL));
    same(context, 0, &requests[0]);
    esolm_context_free(single);
    esolm_context_free(context);
}

static int32_t is_busy(const esolm_step_info *step, void *user_data)
{
    uint32_t sequence;
    size_t n;
    CHECK(step->n_updates > 0);
    STATUS(ESOLM_ERR_BUSY, esolm_sequence_add(user_data, NULL, NULL, &sequence));
    STATUS(ESOLM_ERR_BUSY, esolm_sequence_extend(user_data, 0, NULL, NULL));
    STATUS(ESOLM_ERR_BUSY, esolm_sequence_remove(user_data, 0));
    STATUS(ESOLM_ERR_BUSY, esolm_sequence_cached_tokens(user_data, 0, &n));
    return 0;
}

static void numbers(void)
{
    static const uint32_t words[2] = {5, 6}, twice[2] = {4, 4};
    const esolm_constraints *constraints[2] = {NULL, NULL};
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    esolm_prompt prompt = {words, NULL, 2};
    uint32_t sequence = 99;
    size_t n = 99;

    STATUS(INVALID, esolm_sequence_add(NULL, &EMPTY, &how, &sequence));
    CHECK(sequence == 0);
    STATUS(INVALID, esolm_sequence_add(context, &EMPTY, &how, NULL));
    STATUS(INVALID, esolm_sequence_extend(NULL, 0, &EMPTY, &how));
    STATUS(INVALID, esolm_sequence_remove(NULL, 0));
    STATUS(INVALID, esolm_sequence_cached_tokens(NULL, 0, &n));
    CHECK(n == 0);
    /* No sequence is there yet. */
    STATUS(INVALID, esolm_sequence_extend(context, 0, &EMPTY, &how));
    STATUS(INVALID, esolm_sequence_remove(context, 0));
    last_error_says("no sequence 0");
    n = 99;
    STATUS(INVALID, esolm_sequence_cached_tokens(context, 0, &n));
    CHECK(n == 0);

    /* What is refused takes no place. */
    prompt.positions = twice;
    STATUS(INVALID, esolm_sequence_add(context, &prompt, &how, &sequence));
    last_error_says("twice");
    prompt.positions = NULL, prompt.tokens = NULL;
    STATUS(INVALID, esolm_sequence_add(context, &prompt, &how, &sequence));
    prompt.tokens = words;
    how.lookahead = 17;
    STATUS(INVALID, esolm_sequence_add(context, &prompt, &how, &sequence));
    how.lookahead = 0, how.constraints = constraints, how.n_constraints = 2;
    STATUS(INVALID, esolm_sequence_add(context, &prompt, &how, &sequence));
    how.n_constraints = 1;
    CHECK(add(context, &prompt, &how) == 0);
    CHECK(cached(context, 0) == 0);
    STATUS(INVALID, esolm_sequence_cached_tokens(context, 0, NULL));
    /* No prompt, and no parameters: the defaults. */
    CHECK(add(context, NULL, &how) == 1);
    CHECK(add(context, &prompt, NULL) == 2);
    sequence = 99;
    STATUS(INVALID, esolm_sequence_add(context, &prompt, &how, &sequence));
    last_error_says("in use");
    CHECK(sequence == 0);

    /* A number is used again, and the others keep theirs. */
    int32_t done = 0;
    STATUS(OK, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_sequence_remove(context, 1));
    STATUS(INVALID, esolm_sequence_remove(context, 1));
    uint32_t tokens[LENGTH];
    int32_t reason;
    STATUS(INVALID, esolm_copy_tokens(context, 1, tokens, LENGTH, &n));
    STATUS(INVALID, esolm_stop_reason(context, 1, &reason));
    STATUS(OK, esolm_copy_tokens(context, 2, tokens, LENGTH, &n));
    CHECK(tokens[0] == words[0] && tokens[1] == words[1]);
    CHECK(add(context, NULL, &how) == 1);
    run(context);
    request empty = {EMPTY, how, {0}, 0, 0}, defaults = {prompt, how, {0}, 0, 0};
    STATUS(OK, esolm_generate_params_init(&defaults.how, sizeof defaults.how));
    esolm_context *single = new_context();
    run_alone(single, &empty);
    run_alone(single, &defaults);
    same(context, 1, &empty);
    same(context, 2, &defaults);
    esolm_context_free(single);

    /* In a callback the context is in use. */
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, is_busy, context));
    esolm_context_free(context);
}

/* A beginning that is there already is not computed again, and changes no text. */
static void shared_beginnings(void)
{
    uint32_t words[20], others[20];
    esolm_context *context = new_context(), *single = new_context();
    for (uint32_t i = 0; i < 20; i++)
        words[i] = 5 + i, others[i] = i < 12 ? 5 + i : 100 + i;
    request first = {{words, NULL, 20}, small_params(), {0}, 0, 0}, second = first, third = first, fourth = first;
    second.how.seed = 1;
    third.prompt.tokens = others;
    fourth.prompt = (esolm_prompt){others, NULL, 15};
    fourth.how.seed = 2;
    for (request *one[] = {&first, &second, &third, &fourth}, **at = one; at < one + 4; at++)
        run_alone(single, *at);

    int32_t done = 0;
    CHECK(add(context, &first.prompt, &first.how) == 0 && cached(context, 0) == 0);
    STATUS(OK, esolm_step(context, NULL, &done));
    CHECK(cached(context, 0) >= 20);
    CHECK(add(context, &second.prompt, &second.how) == 1 && cached(context, 1) == 20);
    CHECK(add(context, &third.prompt, &third.how) == 2 && cached(context, 2) == 12);
    run(context);
    same(context, 0, &first);
    same(context, 1, &second);
    same(context, 2, &third);
    /* Also from one that has left. */
    STATUS(OK, esolm_sequence_remove(context, 2));
    STATUS(OK, esolm_sequence_remove(context, 0));
    CHECK(add(context, &fourth.prompt, &fourth.how) == 2 && cached(context, 2) == 15);
    run(context);
    same(context, 2, &fourth);
    STATUS(OK, esolm_context_reset(context));
    CHECK(cached(context, add(context, &first.prompt, &first.how)) == 0);
    esolm_context_free(single);
    esolm_context_free(context);
}

/* One text goes on beside others. */
static void extended(void)
{
    static const uint32_t words[2] = {5, 6}, more[1] = {7}, at[1] = {12};
    const esolm_prompt prompt = {words, NULL, 2}, known = {more, at, 1};
    esolm_context *context = new_context(), *single = new_context();
    esolm_generate_params begin = small_params(), go_on = small_params();
    request other = {{words, NULL, 1}, small_params(), {0}, 0, 0}, whole = other;
    begin.length = 12;
    go_on.seed = 8, go_on.length = 30;
    STATUS(OK, esolm_begin(single, &prompt, 1, &begin));
    run(single);
    STATUS(OK, esolm_extend(single, &known, 1, &go_on));
    run(single);
    STATUS(OK, esolm_copy_tokens(single, 0, whole.alone, LENGTH, &whole.n_alone));
    whole.reason = reason_of(single, 0);
    CHECK(whole.n_alone == 30 && whole.alone[12] == 7);
    other.how.alpha_0 = 0;
    run_alone(single, &other);

    uint32_t beside = add(context, &other.prompt, &other.how), sequence = add(context, &prompt, &begin);
    int32_t done = 0;
    while (reason_of(context, sequence) == ESOLM_STOP_NONE && esolm_step(context, NULL, &done) == OK)
        ;
    CHECK(reason_of(context, beside) == ESOLM_STOP_NONE);
    go_on.length = 11;
    STATUS(INVALID, esolm_sequence_extend(context, sequence, &known, &go_on));
    go_on.length = 30;
    STATUS(INVALID, esolm_sequence_extend(context, 2, &known, &go_on));
    STATUS(OK, esolm_sequence_extend(context, sequence, &known, &go_on));
    CHECK(reason_of(context, sequence) == ESOLM_STOP_NONE && cached(context, sequence) >= 2);
    run(context);
    same(context, sequence, &whole);
    same(context, beside, &other);
    /* No further tokens, no parameters: to the context's length. */
    size_t n = 0;
    uint32_t tokens[LENGTH];
    STATUS(OK, esolm_sequence_extend(context, sequence, NULL, NULL));
    run(context);
    STATUS(OK, esolm_copy_tokens(context, sequence, tokens, LENGTH, &n));
    CHECK(n >= 30 && memcmp(tokens, whole.alone, 30 * sizeof *tokens) == 0);
    esolm_context_free(single);
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    same_as_alone();
    numbers();
    shared_beginnings();
    extended();
    esolm_model_free(model);
    return report();
}
