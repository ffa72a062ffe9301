/* Scoring: api_score MODEL. */
#include "api.h"

#include <math.h>

/* Sums in another order differ by 1e-7, and then an activation may be rounded to the next of 8 bits: 2e-3 in a log-probability. */
static const double CLOSE = 1e-2;

static double sum(const double *numbers, size_t count)
{
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += numbers[i];
    return total;
}

/* Scores a short text left to right and in other orders. */
static void orders(void)
{
    esolm_context *context = new_context();
    const char *text = "Once upon a time there was a little girl.";
    uint32_t tokens[LENGTH], order[LENGTH];
    double log_p[LENGTH], again[LENGTH];
    size_t n = 0;
    STATUS(OK, esolm_tokenize(model, text, strlen(text), tokens, LENGTH, &n));
    STATUS(OK, esolm_score_order(context, tokens, NULL, n, 0, log_p, LENGTH));
    for (size_t i = 0; i < n; i++)
        CHECK(log_p[i] < 0 && log_p[i] > -40);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    STATUS(OK, esolm_score_order(context, tokens, order, n, 0, again, n));
    CHECK(memcmp(log_p, again, n * sizeof *log_p) == 0);
    /* With 4 known tokens, the others' scores are the same. */
    STATUS(OK, esolm_score_order(context, tokens, order, n, 4, again, n - 4));
    for (size_t i = 4; i < n; i++)
        CHECK(fabs(log_p[i] - again[i - 4]) < CLOSE);
    /* With one unknown token, both functions compute the same. */
    STATUS(OK, esolm_score_masked(context, tokens, order, n, n - 1, again, 1));
    CHECK(fabs(log_p[n - 1] - again[0]) < CLOSE);
    /* Right to left: results are in generation order, so the first one is that of the last position. */
    for (uint32_t i = 0; i < n; i++)
        order[i] = (uint32_t)n - 1 - i;
    STATUS(OK, esolm_score_order(context, tokens, order, n, 0, log_p, LENGTH));
    STATUS(OK, esolm_score_masked(context, tokens, order, n, 0, again, LENGTH));
    CHECK(fabs(log_p[0] - again[0]) < CLOSE);
    STATUS(OK, esolm_score_order(context, tokens, NULL, n, n, again, LENGTH));

    again[0] = 7;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_score_order(context, tokens, NULL, n, 0, again, n - 1));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_score_masked(context, tokens, NULL, n, 0, again, n - 1));
    STATUS(INVALID, esolm_score_order(NULL, tokens, NULL, n, 0, again, LENGTH));
    STATUS(INVALID, esolm_score_order(context, NULL, NULL, n, 0, again, LENGTH));
    STATUS(INVALID, esolm_score_order(context, tokens, NULL, n, 0, NULL, LENGTH));
    STATUS(INVALID, esolm_score_order(context, tokens, NULL, n, n + 1, again, LENGTH));
    STATUS(INVALID, esolm_score_order(context, tokens, NULL, LENGTH + 1, LENGTH, again, LENGTH));
    last_error_says("33 tokens");
    order[0] = order[1];
    STATUS(INVALID, esolm_score_order(context, tokens, order, n, 0, again, LENGTH));
    order[0] = 4000000000u;
    STATUS(INVALID, esolm_score_masked(context, tokens, order, n, 0, again, LENGTH));
    tokens[1] = info.mask_token;
    STATUS(INVALID, esolm_score_order(context, tokens, NULL, n, 0, again, LENGTH));
    tokens[1] = (uint32_t)info.vocab_size;
    STATUS(INVALID, esolm_score_masked(context, tokens, NULL, n, 0, again, LENGTH));
    CHECK(again[0] == 7);
    esolm_context_free(context);
}

struct watch {
    esolm_context *context;
    int reports, stop_at;
    double last;
};

static int32_t on_window(double fraction, void *user_data)
{
    struct watch *watch = user_data;
    CHECK(fraction > watch->last && fraction <= 1);
    watch->last = fraction;
    double log_p;
    uint32_t token = 5;
    STATUS(ESOLM_ERR_BUSY, esolm_score_order(watch->context, &token, NULL, 1, 0, &log_p, 1));
    return watch->reports++ == watch->stop_at;
}

/* A text of more than two windows. */
static void whole_text(void)
{
    enum { TOKENS = 2 * LENGTH + 5 };
    esolm_context *context = new_context();
    esolm_text_score score = {.struct_size = sizeof score};
    esolm_score_params how;
    uint32_t tokens[TOKENS];
    double log_p[TOKENS], window[LENGTH];
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = 5 + i % 50;
    STATUS(OK, esolm_score_text(context, tokens, TOKENS, NULL, log_p, TOKENS, &score, NULL, NULL));
    CHECK(fabs(score.nll + sum(log_p, TOKENS)) < CLOSE);
    CHECK(score.diffusion == 0 && score.sequential == 0 && score.scored_tokens == TOKENS);
    /* A caller compiled before the number of tokens was there. */
    score = (esolm_text_score){.struct_size = offsetof(esolm_text_score, scored_tokens), .scored_tokens = 77};
    STATUS(OK, esolm_score_text(context, tokens, TOKENS, NULL, NULL, 0, &score, NULL, NULL));
    CHECK(score.nll > 0 && score.scored_tokens == 77);
    score.struct_size = sizeof score;
    STATUS(OK, esolm_score_order(context, tokens + LENGTH, NULL, LENGTH, 0, window, LENGTH));
    CHECK(fabs(sum(window, LENGTH) - sum(log_p + LENGTH, LENGTH)) < CLOSE);

    STATUS(OK, esolm_score_params_init(&how, sizeof how));
    how.random_order = 1, how.orders = 2, how.draws = 2, how.alpha_0 = 0.5, how.seed = 3;
    struct watch watch = {context, 0, -1, 0};
    STATUS(OK, esolm_score_text(context, tokens, TOKENS, &how, NULL, 0, &score, on_window, &watch));
    CHECK(watch.reports == 3 && watch.last == 1);
    CHECK(score.nll > 0 && score.diffusion > 0 && score.sequential > 0);
    CHECK(score.diffusion_error > 0 && score.sequential_error > 0);
    how.orders = 0, how.draws = 1;
    STATUS(OK, esolm_score_text(context, tokens, 9, &how, NULL, 0, &score, NULL, NULL));
    CHECK(score.nll == 0 && isnan(score.diffusion_error));

    watch = (struct watch){context, 0, 1, 0};
    log_p[0] = 7;
    how.orders = 1;
    STATUS(ESOLM_ERR_CANCELLED,
           esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, on_window, &watch));
    CHECK(watch.reports == 2 && log_p[0] == 7 && score.nll == 0 && score.struct_size == sizeof score);

    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL,
           esolm_score_text(context, tokens, TOKENS, NULL, log_p, TOKENS - 1, &score, NULL, NULL));
    STATUS(INVALID, esolm_score_text(NULL, tokens, TOKENS, NULL, log_p, TOKENS, &score, NULL, NULL));
    STATUS(INVALID, esolm_score_text(context, NULL, TOKENS, NULL, log_p, TOKENS, &score, NULL, NULL));
    STATUS(INVALID, esolm_score_text(context, tokens, 0, NULL, log_p, TOKENS, &score, NULL, NULL));
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, NULL, log_p, TOKENS, NULL, NULL, NULL));
    how.orders = 0;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    /* Parameters of which nothing but the size was set name the function that does it. */
    how = (esolm_score_params){.struct_size = sizeof how};
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, NULL, 0, &score, NULL, NULL));
    last_error_says("neither orders nor draws");
    last_error_says("esolm_score_params_init");
    STATUS(OK, esolm_score_params_init(&how, sizeof how));
    how.orders = 2;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    how.orders = 1, how.random_order = 2;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    how.random_order = 0, how.alpha_0 = 1.5;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    how.alpha_0 = 1, how.reserved = 1;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    how.reserved = 0, how.struct_size = 8;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, &how, log_p, TOKENS, &score, NULL, NULL));
    STATUS(INVALID, esolm_score_params_init(NULL, sizeof how));
    STATUS(INVALID, esolm_score_params_init(&how, 3));
    score.struct_size = 8;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, NULL, log_p, TOKENS, &score, NULL, NULL));
    tokens[LENGTH + 1] = info.mask_token;
    score.struct_size = sizeof score;
    STATUS(INVALID, esolm_score_text(context, tokens, TOKENS, NULL, log_p, TOKENS, &score, NULL, NULL));
    CHECK(log_p[0] == 7);
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    orders();
    whole_text();
    esolm_model_free(model);
    return report();
}
