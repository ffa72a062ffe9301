/* Orders, schedules, constraints, the logits callback, log-probabilities: api_rules MODEL. */
#include "api.h"

#include <math.h>
#include <stddef.h>

static esolm_context *context;
static const esolm_prompt EMPTY = {NULL, NULL, 0};

static void run(const esolm_generate_params *how, uint32_t tokens[LENGTH])
{
    size_t n = 0;
    STATUS(OK, esolm_generate(context, &EMPTY, 1, how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(n == LENGTH);
}

static void orders(void)
{
    esolm_generate_params how = small_params();
    uint32_t order[LENGTH], reversed[LENGTH];
    size_t n = 0, wrong = 0;
    how.order = ESOLM_ORDER_LEFT_TO_RIGHT;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    CHECK(n == LENGTH);
    for (uint32_t i = 0; i < LENGTH; i++) {
        wrong += order[i] != i;
        reversed[i] = LENGTH - 1 - i;
    }
    how.order = ESOLM_ORDER_CUSTOM;
    how.custom_order = reversed;
    how.n_custom_order = LENGTH;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    wrong += memcmp(order, reversed, sizeof order) != 0;
    how.n_custom_order--;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.n_custom_order++;
    reversed[3] = reversed[4];
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.custom_order = NULL;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    /* The previous generation is still there. */
    STATUS(OK, esolm_copy_order(context, 0, reversed, LENGTH, &n));
    wrong += memcmp(order, reversed, sizeof order) != 0;

    how = small_params();
    how.alpha_0 = 1;
    how.order = ESOLM_ORDER_STRIDED;
    how.order_size = 8;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    for (uint32_t i = 0; i < LENGTH; i++)
        wrong += order[i] != i / 4 + i % 4 * 8;
    how.order = ESOLM_ORDER_STRIDED_SHUFFLED;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    for (uint32_t i = 0; i < LENGTH; i++)
        wrong += order[i] % 8 != order[i / 4 * 4] % 8;
    how.order = ESOLM_ORDER_BLOCKS;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    for (uint32_t i = 0; i < LENGTH; i++)
        wrong += order[i] / 8 != i / 8;
    CHECK(wrong == 0);
    how.order_size = 0;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.order = ESOLM_ORDER_STRIDED;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.order_size = LENGTH + 1;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.order = ESOLM_ORDER_CUSTOM + 1;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("order 6");
    how.order = -1;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_copy_order(context, 0, order, LENGTH - 1, &n));
    CHECK(n == LENGTH);
    STATUS(INVALID, esolm_copy_order(context, 1, order, LENGTH, &n));
    STATUS(INVALID, esolm_copy_order(NULL, 0, order, LENGTH, &n));
    STATUS(INVALID, esolm_copy_order(context, 0, NULL, LENGTH, &n));
    STATUS(INVALID, esolm_copy_order(context, 0, order, LENGTH, NULL));
}

static void schedules(void)
{
    esolm_generate_params how = small_params();
    const uint32_t counts[3] = {1, 3, 10}, expected[5] = {1, 3, 10, 10, 8}, none[2] = {4, 0};
    esolm_step_info step = {.struct_size = sizeof step};
    int32_t done = 0;
    size_t steps = 0;
    how.alpha_0 = 1;
    how.schedule = counts;
    how.n_schedule = 3;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    for (;;) {
        STATUS(OK, esolm_step(context, &step, &done));
        if (done)
            break;
        CHECK(steps < 5 && step.n_updates == expected[steps] && step.total == 5);
        CHECK(step.log_probs == NULL);
        steps++;
    }
    CHECK(steps == 5);
    how.schedule = none;
    how.n_schedule = 2;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.schedule = NULL;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
}

static void constraints(void)
{
    esolm_generate_params how = small_params();
    uint32_t tokens[LENGTH], plain[LENGTH], prompt_tokens[1] = {9};
    uint32_t first[2] = {11, 12}, last[1] = {13}, banned[2];
    esolm_allowed_tokens allowed[2] = {{LENGTH - 1, 0, last, 1}, {0, 0, first, 2}};
    esolm_logit_bias bias[1] = {{20, 1000}};
    esolm_constraints constraint = {.struct_size = sizeof constraint}, other = constraint;
    const esolm_constraints *one[1] = {&constraint}, *two[2] = {&constraint, NULL};
    const esolm_prompt both[2] = {EMPTY, EMPTY}, known = {prompt_tokens, NULL, 1};
    size_t n;
    run(&how, plain);
    /* Empty constraints change nothing. */
    how.constraints = one;
    how.n_constraints = 1;
    run(&how, tokens);
    CHECK(memcmp(tokens, plain, sizeof plain) == 0);

    constraint.allowed = allowed, constraint.n_allowed = 2;
    run(&how, tokens);
    CHECK((tokens[0] == 11 || tokens[0] == 12) && tokens[LENGTH - 1] == 13);
    constraint.allowed = NULL, constraint.n_allowed = 0;

    banned[0] = plain[3], banned[1] = plain[17];
    constraint.banned = banned, constraint.n_banned = 2;
    run(&how, tokens);
    for (size_t i = 0; i < LENGTH; i++)
        CHECK(tokens[i] != banned[0] && tokens[i] != banned[1]);
    constraint.banned = NULL, constraint.n_banned = 0;

    constraint.bias = bias, constraint.n_bias = 1;
    run(&how, tokens);
    for (size_t i = 0; i < LENGTH; i++)
        CHECK(tokens[i] == 20);
    /* With a very high penalty and one token per step, no token occurs twice. */
    constraint.bias = NULL, constraint.n_bias = 0, constraint.repetition_penalty = 1e9f;
    how.alpha_0 = 0;
    run(&how, tokens);
    size_t twice = 0;
    for (size_t i = 0; i < LENGTH; i++)
        for (size_t j = 0; j < i; j++)
            twice += tokens[i] == tokens[j];
    CHECK(twice == 0);
    how = small_params();
    constraint.repetition_penalty = 0;

    /* Constraints for each sequence; NULL means none. */
    constraint.bias = bias, constraint.n_bias = 1;
    how.constraints = two, how.n_constraints = 2;
    STATUS(OK, esolm_generate(context, both, 2, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(tokens[0] == 20 && tokens[LENGTH - 1] == 20);
    STATUS(OK, esolm_copy_tokens(context, 1, tokens, LENGTH, &n));
    CHECK(tokens[0] != 20 || tokens[1] != 20);
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.constraints = NULL;
    STATUS(INVALID, esolm_begin(context, both, 2, &how));
    how.constraints = one, how.n_constraints = 1;

    const struct {
        esolm_allowed_tokens allowed;
        uint32_t banned;
        esolm_logit_bias bias;
        float penalty;
        uint32_t reserved;
    } bad[] = {
        {{LENGTH, 0, first, 2}, 5, {5, 0}, 1, 0},      {{0, 0, first, 0}, 5, {5, 0}, 1, 0},
        {{0, 0, NULL, 1}, 5, {5, 0}, 1, 0},            {{0, 3, first, 2}, 5, {5, 0}, 1, 0},
        {{0, 0, first, 2}, 4000000000u, {5, 0}, 1, 0}, {{0, 0, first, 2}, info.mask_token, {5, 0}, 1, 0},
        {{0, 0, first, 2}, 5, {4000000000u, 0}, 1, 0}, {{0, 0, first, 2}, 5, {5, INFINITY}, 1, 0},
        {{0, 0, first, 2}, 5, {5, 0}, -1, 0},          {{0, 0, first, 2}, 5, {5, 0}, NAN, 0},
        {{0, 0, first, 2}, 5, {5, 0}, 1, 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        other.allowed = &bad[i].allowed, other.n_allowed = 1;
        other.banned = &bad[i].banned, other.n_banned = 1;
        other.bias = &bad[i].bias, other.n_bias = 1;
        other.repetition_penalty = bad[i].penalty;
        other.reserved = bad[i].reserved;
        one[0] = &other;
        STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    }
    memset(&other, 0, sizeof other);
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("struct_size");
    other.struct_size = sizeof other;
    other.n_banned = 2;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    /* A prompt that violates the constraints. */
    other.n_banned = 0, other.allowed = &allowed[1], other.n_allowed = 1;
    STATUS(INVALID, esolm_begin(context, &known, 1, &how));
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
}

struct editing {
    int calls, mode;
    uint32_t wanted;
};

enum { FORCE, LOOK, STOP, NANS, BAN_ALL, REENTER };

static int32_t edit_logits(const esolm_logits_row *row, float *logits, void *user_data)
{
    struct editing *editing = user_data;
    int32_t done;
    editing->calls++;
    CHECK(row->n_logits == info.vocab_size && row->sequence == 0 && row->reserved == 0);
    CHECK(row->position < LENGTH && row->slot < LENGTH);
    CHECK(logits[info.mask_token] == -INFINITY && isfinite(row->model_logits[5]));
    CHECK(logits[5] == row->model_logits[5]);
    for (size_t i = 0; i < row->n_logits; i++)
        if (editing->mode == BAN_ALL || (editing->mode == FORCE && i != editing->wanted))
            logits[i] = -INFINITY;
    if (editing->mode == NANS)
        logits[7] = NAN;
    if (editing->mode == REENTER)
        STATUS(ESOLM_ERR_BUSY, esolm_step(context, NULL, &done));
    return editing->mode == STOP;
}

static void logits(void)
{
    esolm_generate_params how = small_params();
    struct editing editing = {0, LOOK, 30};
    uint32_t plain[LENGTH], tokens[LENGTH];
    int32_t done = 0;
    run(&how, plain);
    how.logits_callback = edit_logits;
    how.logits_user_data = &editing;
    run(&how, tokens);
    CHECK(memcmp(plain, tokens, sizeof plain) == 0 && editing.calls == LENGTH);
    editing.mode = REENTER;
    run(&how, tokens);
    editing.mode = FORCE;
    run(&how, tokens);
    for (size_t i = 0; i < LENGTH; i++)
        CHECK(tokens[i] == 30);

    /* A step that fails or is cancelled changes nothing. */
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    editing.mode = STOP;
    STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
    editing.mode = NANS;
    STATUS(INVALID, esolm_step(context, NULL, &done));
    editing.mode = BAN_ALL;
    STATUS(INVALID, esolm_step(context, NULL, &done));
    last_error_says("position");
    editing.mode = LOOK;
    do
        STATUS(OK, esolm_step(context, NULL, &done));
    while (!done);
    size_t n;
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(plain, tokens, sizeof plain) == 0);

    /* The next generation has no logits callback. */
    how = small_params();
    editing.calls = 0;
    run(&how, tokens);
    CHECK(editing.calls == 0 && memcmp(plain, tokens, sizeof plain) == 0);
}

/* The log-probabilities that steps report are those that esolm_score_order computes for the same text and order. */
static void log_probabilities(void)
{
    esolm_generate_params how = small_params();
    uint32_t tokens[LENGTH], order[LENGTH];
    double reported[LENGTH], scored[LENGTH];
    int32_t done = 0;
    size_t n, wrong = 0;
    esolm_step_info step = {.struct_size = sizeof step};
    how.log_probs = 1;
    how.alpha_0 = 0; /* one token per step, as in esolm_score_order */
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    for (size_t i = 0;; i++) {
        STATUS(OK, esolm_step(context, &step, &done));
        if (done)
            break;
        CHECK(step.n_updates == 1 && step.log_probs && i < LENGTH);
        reported[step.updates[0].position] = step.log_probs[0];
    }
    CHECK(step.log_probs == NULL);
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    STATUS(OK, esolm_score_order(context, tokens, order, LENGTH, 0, scored, LENGTH));
    for (size_t i = 0; i < LENGTH; i++)
        /* Cache and activations are rounded, to 16 and 8 bits. */
        wrong += fabs(reported[order[i]] - scored[i]) > 3e-2;
    CHECK(wrong == 0);
    how.log_probs = 2;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
}

/* A program compiled with an earlier header, whose parameters ended before `order_size`. */
static void earlier_header(void)
{
    esolm_generate_params how = small_params(), earlier;
    uint32_t a[LENGTH], b[LENGTH];
    run(&how, a);
    memset(&earlier, 255, sizeof earlier);
    STATUS(OK, esolm_generate_params_init(&earlier, offsetof(esolm_generate_params, order_size)));
    earlier.steps = STEPS, earlier.seed = 7, earlier.alpha_0 = 0.8;
    run(&earlier, b);
    CHECK(memcmp(a, b, sizeof a) == 0);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    context = new_context();
    orders();
    schedules();
    constraints();
    logits();
    log_probabilities();
    earlier_header();
    esolm_context_free(context);
    esolm_model_free(model);
    return report();
}
