/* What ends a text, and its text as it grows: api_stopping MODEL. */
#include "api.h"

/* What ends a text: its length, a token, a string; and what is no rule. */
static void stop_rules(void)
{
    esolm_context *context = new_context();
    esolm_generate_params how = small_params();
    uint32_t words[3] = {5, 6, 7}, whole[LENGTH], tokens[LENGTH], stop[2];
    esolm_prompt prompts[2] = {{words, NULL, 3}, {NULL, NULL, 0}};
    char text[512], ended[512], needle[4] = {0};
    const char *strings[2] = {needle, "no such text"};
    size_t n = 0, len = 0, first = 0;
    int32_t reason = 99, done;

    how.alpha_0 = 0, how.ignore_eos = 1;
    STATUS(INVALID, esolm_stop_reason(context, 0, &reason));
    CHECK(reason == ESOLM_STOP_NONE);
    STATUS(OK, esolm_begin(context, prompts, 2, &how));
    STATUS(OK, esolm_stop_reason(context, 1, &reason));
    CHECK(reason == ESOLM_STOP_NONE);
    finish(context, whole, LENGTH);
    STATUS(OK, esolm_stop_reason(context, 1, &reason));
    CHECK(reason == ESOLM_STOP_LENGTH);
    STATUS(OK, esolm_copy_text(context, 0, text, sizeof text, &len));

    /* The first of the tokens behind the prompt that is one of these. */
    stop[0] = whole[12], stop[1] = words[1];
    for (first = 3; whole[first] != stop[0] && whole[first] != stop[1]; first++)
        ;
    how.stop_tokens = stop, how.n_stop_tokens = 2;
    STATUS(OK, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(n == first + 1 && memcmp(tokens, whole, n * sizeof *tokens) == 0);
    STATUS(OK, esolm_stop_reason(context, 0, &reason));
    CHECK(reason == ESOLM_STOP_TOKEN);
    /* Its text is up to that token. */
    STATUS(OK, esolm_copy_text(context, 0, ended, sizeof ended, &len));
    CHECK(strncmp(ended, text, len) == 0 && len < strlen(text));

    how.n_stop_tokens = 0;
    memcpy(needle, text + strlen(text) - 20, 3);
    how.stop_strings = strings, how.n_stop_strings = 2;
    STATUS(OK, esolm_generate(context, prompts, 1, &how, NULL, NULL));
    STATUS(OK, esolm_stop_reason(context, 0, &reason));
    CHECK(reason == ESOLM_STOP_STRING);
    STATUS(OK, esolm_copy_text(context, 0, ended, sizeof ended, &len));
    CHECK(strncmp(ended, text, len) == 0 && strncmp(text + len, needle, 3) == 0);

    how.n_stop_strings = 0, how.max_tokens = 4;
    STATUS(OK, esolm_generate(context, prompts, 2, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(n == 7);
    STATUS(OK, esolm_copy_tokens(context, 1, tokens, LENGTH, &n));
    CHECK(n == 4);
    STATUS(OK, esolm_begin(context, prompts, 1, &how));
    STATUS(OK, esolm_cancel(context));
    STATUS(ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
    STATUS(OK, esolm_stop_reason(context, 0, &reason));
    CHECK(reason == ESOLM_STOP_CANCELLED);
    STATUS(OK, esolm_cancel_reset(context));

    strings[1] = "";
    how.n_stop_strings = 2;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    strings[1] = NULL;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how.n_stop_strings = 0, how.n_stop_tokens = 1, stop[0] = (uint32_t)info.vocab_size;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    how.n_stop_tokens = 0, how.ignore_eos = 2;
    STATUS(INVALID, esolm_begin(context, prompts, 1, &how));
    STATUS(INVALID, esolm_stop_reason(context, 0, NULL));
    STATUS(INVALID, esolm_stop_reason(context, 5, &reason));
    esolm_context_free(context);
}

/* What esolm_step_info.texts give, joined, is what esolm_copy_text copies: also in a callback. */
struct stream {
    esolm_context *context;
    char joined[2][1024];
    size_t len[2];
    int calls, ended;
};

static int32_t on_text(const esolm_step_info *step, void *user_data)
{
    struct stream *stream = user_data;
    char text[1024];
    size_t len;
    CHECK(step->struct_size == sizeof *step && step->n_texts == 2);
    for (uint32_t s = 0; s < 2; s++) {
        const esolm_step_text *new_text = &step->texts[s];
        CHECK(new_text->sequence == s && strlen(new_text->text) == new_text->len);
        memcpy(stream->joined[s] + stream->len[s], new_text->text, new_text->len + 1);
        stream->len[s] += new_text->len;
        STATUS(OK, esolm_copy_text(stream->context, s, text, sizeof text, &len));
        CHECK(len == stream->len[s] && strcmp(text, stream->joined[s]) == 0);
        int32_t reason = 99;
        STATUS(OK, esolm_stop_reason(stream->context, s, &reason));
        CHECK(reason == new_text->stop_reason);
        stream->ended += reason != ESOLM_STOP_NONE;
    }
    stream->calls++;
    return 0;
}

static void texts_of_steps(void)
{
    esolm_context *context = new_context();
    uint32_t words[3] = {5, 6, 7};
    const esolm_prompt prompts[2] = {{words, NULL, 3}, {NULL, NULL, 0}};
    const char *stop[1] = {"e"};
    for (int way = 0; way < 3; way++) {
        esolm_generate_params how = small_params();
        struct stream stream = {.context = context};
        how.step_text = 1;
        how.alpha_0 = way == 0 ? 0.5 : 0;
        how.stop_strings = stop;
        how.n_stop_strings = way == 2;
        /* The prompt's text is there before the first step. */
        STATUS(OK, esolm_begin(context, prompts, 2, &how));
        STATUS(OK, esolm_copy_text(context, 0, stream.joined[0], sizeof stream.joined[0], &stream.len[0]));
        CHECK(stream.len[0] > 0);
        STATUS(OK, esolm_generate(context, prompts, 2, &how, on_text, &stream));
        CHECK(stream.calls > 0 && stream.ended >= 2);
    }
    esolm_generate_params how = small_params();
    esolm_step_info step = {.struct_size = sizeof step};
    int32_t done;
    STATUS(OK, esolm_begin(context, prompts, 2, &how));
    STATUS(OK, esolm_step(context, &step, &done));
    CHECK(step.n_updates > 0 && step.texts == NULL && step.n_texts == 0);
    how.step_text = 2;
    STATUS(INVALID, esolm_begin(context, prompts, 2, &how));
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    stop_rules();
    texts_of_steps();
    esolm_model_free(model);
    return report();
}
