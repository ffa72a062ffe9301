/* Filters, penalties, logits and probabilities on demand, the most likely tokens: api_sampling MODEL. */
#include "api.h"

#include <math.h>

static esolm_context *context;
static const esolm_prompt EMPTY = {NULL, NULL, 0};

static void run_behind(const esolm_prompt *prompt, const esolm_generate_params *how, uint32_t *tokens)
{
    size_t n;
    STATUS(OK, esolm_generate(context, prompt, 1, how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
}

static void run(const esolm_generate_params *how, uint32_t *tokens) { run_behind(&EMPTY, how, tokens); }

static void filters(void)
{
    esolm_generate_params greedy = small_params(), how = small_params();
    uint32_t best[LENGTH], tokens[LENGTH];
    CHECK(how.min_p == ESOLM_AUTO && how.typical_p == ESOLM_AUTO && how.top_n_sigma == ESOLM_AUTO);
    CHECK(how.top_log_probs == 0);
    greedy.temperature = 0;
    run(&greedy, best);
    /* The tightest filters leave the most likely token. */
    how.min_p = 1;
    run(&how, tokens);
    CHECK(memcmp(tokens, best, sizeof best) == 0);
    how = small_params();
    how.top_n_sigma = 1e-6f;
    run(&how, tokens);
    CHECK(memcmp(tokens, best, sizeof best) == 0);
    how = small_params();
    run(&how, tokens);
    CHECK(memcmp(tokens, best, sizeof best) != 0);
    how.typical_p = 0.2f;
    run(&how, best);
    CHECK(memcmp(tokens, best, sizeof best) != 0);

    how = small_params();
    how.min_p = 1.5f;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("min_p");
    how.min_p = 0, how.typical_p = 0;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.typical_p = 1, how.top_n_sigma = NAN;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    how.top_n_sigma = 0, how.top_log_probs = (uint32_t)info.vocab_size;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("top_log_probs");
}

static size_t repeated(const uint32_t *tokens)
{
    size_t twice = 0;
    for (size_t i = 0; i < LENGTH; i++)
        for (size_t j = 0; j < i; j++)
            twice += tokens[i] == tokens[j];
    return twice;
}

static void penalties(void)
{
    esolm_generate_params how = small_params();
    esolm_constraints rules = {.struct_size = sizeof rules};
    const esolm_constraints *one[1] = {&rules};
    uint32_t plain[LENGTH], tokens[LENGTH], known[LENGTH], breaker[1];
    size_t n = 0;
    how.alpha_0 = 0, how.temperature = 0;
    how.constraints = one, how.n_constraints = 1;
    run(&how, tokens);
    CHECK(repeated(tokens) > 0);
    rules.presence_penalty = 1e6f;
    run(&how, tokens);
    CHECK(repeated(tokens) == 0);
    rules.presence_penalty = 0, rules.frequency_penalty = 1e6f;
    run(&how, tokens);
    CHECK(repeated(tokens) == 0);
    /* No two tokens follow each other twice. */
    rules.frequency_penalty = 0, rules.dry_multiplier = 1e6f, rules.dry_allowed_length = 1;
    run(&how, tokens);
    size_t pairs = 0;
    for (size_t i = 1; i < LENGTH; i++)
        for (size_t j = 1; j < i; j++)
            pairs += tokens[i] == tokens[j] && tokens[i - 1] == tokens[j - 1];
    CHECK(pairs == 0);
    /* A prompt that repeats itself goes on otherwise, unless each of its tokens ends a repetition. */
    const char text[] = "Once upon a time. Once upon a";
    STATUS(OK, esolm_tokenize(model, text, strlen(text), known, LENGTH, &n));
    const esolm_prompt again = {known, NULL, n};
    rules.dry_multiplier = 0;
    run_behind(&again, &how, plain);
    rules.dry_multiplier = 1e6f;
    run_behind(&again, &how, tokens);
    CHECK(memcmp(plain, tokens, sizeof plain) != 0);
    rules.dry_breakers = plain, rules.n_dry_breakers = LENGTH;
    run_behind(&again, &how, tokens);
    CHECK(memcmp(plain, tokens, sizeof plain) == 0);

    /* Two tokens are too short for a repetition. */
    rules.n_dry_breakers = 0, rules.dry_allowed_length = 3, rules.dry_range = 2;
    run_behind(&again, &how, tokens);
    CHECK(memcmp(plain, tokens, sizeof plain) == 0);
    rules.dry_range = 0;
    run_behind(&again, &how, tokens);
    CHECK(memcmp(plain, tokens, sizeof plain) != 0);

    breaker[0] = info.mask_token;
    rules.dry_breakers = breaker, rules.n_dry_breakers = 1;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("breakers");
    rules.dry_breakers = NULL;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    rules.n_dry_breakers = 0, rules.dry_base = 0.5f;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    rules.dry_base = 0, rules.presence_penalty = NAN;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    rules.presence_penalty = 0;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
}

/* A library without the feature "grammar" says so. */
static void grammars(void)
{
    esolm_generate_params how = small_params();
    esolm_constraints rules = {.struct_size = sizeof rules};
    const esolm_constraints *one[1] = {&rules};
    char text[256];
    size_t n;
    how.alpha_0 = 0;
    how.constraints = one, how.n_constraints = 1;
    rules.regex = "[ab]{3}c";
    esolm_status status = esolm_generate(context, &EMPTY, 1, &how, NULL, NULL);
    if (status == ESOLM_ERR_UNSUPPORTED) {
        last_error_says("grammar");
        rules.regex = NULL, rules.json_schema = "{}";
        STATUS(ESOLM_ERR_UNSUPPORTED, esolm_begin(context, &EMPTY, 1, &how));
        puts("grammars: not in this build");
    } else {
        STATUS(OK, status);
        STATUS(OK, esolm_copy_text(context, 0, text, sizeof text, &n));
        CHECK(n == 4 && strspn(text, "ab") == 3 && text[3] == 'c');
        rules.regex = "(";
        STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
        rules.regex = NULL, rules.json_schema = "{\"enum\": [17]}";
        STATUS(OK, esolm_generate(context, &EMPTY, 1, &how, NULL, NULL));
        STATUS(OK, esolm_copy_text(context, 0, text, sizeof text, &n));
        CHECK(strcmp(text, "17") == 0);
        rules.json_schema = "{\"$ref\": \"#\"}";
        STATUS(INVALID, esolm_generate(context, &EMPTY, 1, &how, NULL, NULL));
        last_error_says("matches no text");
        how.alpha_0 = 1;
        STATUS(ESOLM_ERR_UNSUPPORTED, esolm_begin(context, &EMPTY, 1, &how));
    }
    rules.regex = "a", rules.json_schema = "{}";
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("take one");
    rules.regex = "\xff", rules.json_schema = NULL;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
}

/* Parameters that were not initialised name the function that does it. */
static void uninitialised(void)
{
    esolm_generate_params how;
    memset(&how, 0, sizeof how);
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("esolm_generate_params_init");
    how.struct_size = sizeof how;
    STATUS(INVALID, esolm_begin(context, &EMPTY, 1, &how));
    last_error_says("esolm_generate_params_init");
    esolm_context_params limits;
    esolm_context *none = (esolm_context *)&limits; /* anything */
    memset(&limits, 0, sizeof limits);
    STATUS(INVALID, esolm_context_new(model, &limits, &none));
    last_error_says("esolm_context_params_init");
    esolm_model_params opening;
    esolm_model *no_model = (esolm_model *)&opening;
    memset(&opening, 0, sizeof opening);
    STATUS(INVALID, esolm_model_open("no-such-file", &opening, &no_model));
    last_error_says("esolm_model_params_init");
    esolm_pool_params threads;
    esolm_pool *no_pool = (esolm_pool *)&threads;
    memset(&threads, 0, sizeof threads);
    STATUS(INVALID, esolm_pool_new(&threads, &no_pool));
    last_error_says("esolm_pool_params_init");
    CHECK(none == NULL && no_model == NULL && no_pool == NULL);
    uint32_t token = 5;
    esolm_score_params scoring;
    esolm_text_score score = {.struct_size = sizeof score};
    memset(&scoring, 0, sizeof scoring);
    STATUS(INVALID, esolm_score_text(context, &token, 1, &scoring, NULL, 0, &score, NULL, NULL));
    last_error_says("esolm_score_params_init");
    esolm_tokenize_params special;
    size_t n;
    memset(&special, 0, sizeof special);
    STATUS(INVALID, esolm_tokenize_with_params(model, "a", 1, &special, &token, 1, &n));
    last_error_says("esolm_tokenize_params_init");
    const esolm_message message = {"user", "Hi"};
    esolm_chat_params format;
    char text[8];
    memset(&format, 0, sizeof format);
    STATUS(INVALID, esolm_chat_apply(model, &message, 1, &format, text, sizeof text, &n));
    last_error_says("esolm_chat_params_init");
}

/* A program that was compiled with the first header does not have the new fields. */
static void earlier_header(void)
{
    esolm_generate_params how = small_params();
    esolm_constraints rules = {.struct_size = offsetof(esolm_constraints, frequency_penalty)};
    const esolm_constraints *one[1] = {&rules};
    uint32_t tokens[LENGTH], same[LENGTH];
    run(&how, tokens);
    how.struct_size = offsetof(esolm_generate_params, min_p);
    how.constraints = one, how.n_constraints = 1;
    how.min_p = 9, rules.dry_multiplier = -9;
    run(&how, same);
    CHECK(memcmp(tokens, same, sizeof same) == 0);
}

static int32_t look(const esolm_step_info *step, void *user_data)
{
    esolm_token_log_prob top[3];
    size_t n, *steps = user_data;
    for (size_t i = 0; i < step->n_updates; i++) {
        STATUS(OK, esolm_copy_top_log_probs(context, i, top, 3, &n));
        CHECK(n == 3 && top[0].log_prob >= top[1].log_prob && top[1].log_prob >= top[2].log_prob);
        for (size_t j = 0; j < 3; j++)
            CHECK(top[j].token != step->updates[i].token || fabs(top[j].log_prob - step->log_probs[i]) < 1e-4);
        CHECK(step->log_probs[i] <= top[0].log_prob + 1e-4);
    }
    STATUS(INVALID, esolm_copy_top_log_probs(context, step->n_updates, top, 3, &n));
    ++*steps;
    return 0;
}

static void most_likely(void)
{
    esolm_generate_params how = small_params();
    esolm_token_log_prob top[3];
    size_t n, steps = 0;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_step(context, NULL, &(int32_t){0}));
    STATUS(INVALID, esolm_copy_top_log_probs(context, 0, top, 3, &n));
    how.top_log_probs = 3;
    STATUS(OK, esolm_generate(context, &EMPTY, 1, &how, look, &steps));
    CHECK(steps > 3);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_copy_top_log_probs(context, 0, top, 2, &n));
    CHECK(n == 3);
    STATUS(INVALID, esolm_copy_top_log_probs(context, 0, NULL, 3, &n));
    STATUS(INVALID, esolm_copy_top_log_probs(NULL, 0, top, 3, &n));
    STATUS(INVALID, esolm_copy_top_log_probs(context, 0, top, 3, NULL));
}

static int32_t keep_logits(const esolm_logits_row *row, float *logits, void *user_data)
{
    float **kept = user_data;
    (void)logits;
    memcpy(kept[row->position], row->model_logits, row->n_logits * sizeof(float));
    return 0;
}

static void on_demand(void)
{
    esolm_generate_params how = small_params();
    const size_t vocab = info.vocab_size;
    uint32_t order[LENGTH], tokens[LENGTH], plain[LENGTH], at[2];
    float *numbers = malloc(2 * vocab * sizeof(float)), *kept[LENGTH];
    size_t n, steps = 0;
    int32_t done = 0;
    if (!numbers)
        exit(2);
    for (size_t i = 0; i < LENGTH; i++)
        if (!(kept[i] = calloc(vocab, sizeof(float))))
            exit(2);
    how.alpha_0 = 0;
    run(&how, plain);
    how.logits_callback = keep_logits, how.logits_user_data = kept;
    STATUS(OK, esolm_begin(context, &EMPTY, 1, &how));
    STATUS(OK, esolm_copy_order(context, 0, order, LENGTH, &n));
    for (; steps < LENGTH - 1; steps++) {
        double sum = 0, difference = 0;
        at[0] = order[steps], at[1] = order[LENGTH - 1];
        STATUS(OK, esolm_evaluate_probabilities(context, 0, at, 1, numbers, 2 * vocab, &n));
        for (size_t i = 0; i < vocab; i++)
            sum += numbers[i];
        CHECK(n == vocab && fabs(sum - 1) < 1e-4 && numbers[info.mask_token] == 0);
        STATUS(OK, esolm_evaluate_logits(context, 0, at, 2, numbers, 2 * vocab, &n));
        CHECK(n == 2 * vocab);
        STATUS(OK, esolm_step(context, NULL, &done));
        for (size_t i = 0; i < vocab; i++)
            difference = fmax(difference, fabs(numbers[i] - kept[at[0]][i]));
        CHECK(difference < 1e-3);
    }
    STATUS(INVALID, esolm_evaluate_logits(context, 0, order, 1, numbers, 2 * vocab, &n));
    CHECK(n == 0);
    last_error_says("written already");
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_evaluate_logits(context, 0, at, 2, numbers, 2 * vocab - 1, &n));
    CHECK(n == 2 * vocab);
    STATUS(INVALID, esolm_evaluate_logits(context, 1, at, 1, numbers, vocab, &n));
    STATUS(INVALID, esolm_evaluate_logits(context, 0, NULL, 1, numbers, vocab, &n));
    STATUS(INVALID, esolm_evaluate_logits(context, 0, at, 1, NULL, vocab, &n));
    STATUS(INVALID, esolm_evaluate_logits(context, 0, at, 1, numbers, vocab, NULL));
    STATUS(INVALID, esolm_evaluate_probabilities(NULL, 0, at, 1, numbers, vocab, &n));
    STATUS(OK, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(memcmp(tokens, plain, sizeof plain) == 0);
    for (size_t i = 0; i < LENGTH; i++)
        free(kept[i]);
    free(numbers);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    context = new_context();
    filters();
    penalties();
    grammars();
    uninitialised();
    earlier_header();
    most_likely();
    on_demand();
    esolm_context_free(context);
    esolm_model_free(model);
    return report();
}
