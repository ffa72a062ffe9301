/* The end-of-text token ends a text, and the work on it, where the model writes it: api_end_of_text MODEL. The model is one
 * that writes one by one: an Eso-LM in its sequential phase, or an autoregressive one. */
#include "api.h"

enum { TOKENS = 16, KNOWN = 2, LAST = 9 };

static esolm_context *context;

/* Runs a generation. Returns the number of its steps. */
static size_t run(const esolm_generate_params *how, uint32_t *tokens, size_t *n, int32_t *reason)
{
    const uint32_t words[KNOWN] = {5, 6};
    const esolm_prompt prompt = {words, NULL, KNOWN};
    int32_t done = 0;
    size_t steps = 0;
    STATUS(OK, esolm_begin(context, &prompt, 1, how));
    while (esolm_step(context, NULL, &done) == ESOLM_OK && !done)
        steps++;
    CHECK(done);
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, TOKENS, n));
    STATUS(OK, esolm_stop_reason(context, 0, reason));
    return steps;
}

int main(int argc, char **argv)
{
    uint32_t whole[TOKENS], tokens[TOKENS];
    char text[512], shown[512];
    size_t n = 0, len = 0, shown_len = 0, end = KNOWN;
    int32_t reason = 99;
    open_model(argc, argv);
    CHECK(info.eos_token != ESOLM_NO_TOKEN);

    esolm_context_params size = limits();
    size.length = TOKENS;
    STATUS(OK, esolm_context_new(model, &size, &context));
    /* At one position nothing but that token is allowed. */
    const esolm_allowed_tokens allowed = {LAST, 0, &info.eos_token, 1};
    const esolm_constraints rules = {.struct_size = sizeof rules, .allowed = &allowed, .n_allowed = 1};
    const esolm_constraints *one[1] = {&rules};
    esolm_generate_params how = small_params();
    how.steps = 0, how.alpha_0 = 0, how.constraints = one, how.n_constraints = 1;

    how.ignore_eos = 1;
    CHECK(run(&how, whole, &n, &reason) == TOKENS - KNOWN);
    CHECK(n == TOKENS && reason == ESOLM_STOP_LENGTH && whole[LAST] == info.eos_token);
    while (end < LAST && whole[end] != info.eos_token)
        end++;
    /* The same tokens up to that one, and no step behind it. */
    how.ignore_eos = 0;
    CHECK(run(&how, tokens, &n, &reason) == end + 1 - KNOWN);
    CHECK(reason == ESOLM_STOP_END_OF_TEXT);
    CHECK(n == end + 1 && memcmp(tokens, whole, n * sizeof *tokens) == 0);
    /* The text does not show it. */
    STATUS(OK, esolm_copy_text(context, 0, text, sizeof text, &len));
    STATUS(OK, esolm_detokenize(model, tokens, end, shown, sizeof shown, &shown_len));
    CHECK(len == shown_len && memcmp(text, shown, len) == 0);
    esolm_context_free(context);
    esolm_model_free(model);
    return report();
}
