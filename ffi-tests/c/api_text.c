/* Tokenizing, detokenizing and templates: api_text MODEL. */
#include "api.h"

static void tokenizing(void)
{
    const char *text = "Once upon a time";
    uint32_t tokens[64];
    char back[128];
    size_t n = 99, len = 99, again;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_tokenize(model, text, strlen(text), NULL, 0, &n));
    CHECK(n > 0 && n < 64);
    tokens[0] = 12345678;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_tokenize(model, text, strlen(text), tokens, n - 1, &again));
    CHECK(again == n && tokens[0] == 12345678);
    STATUS(OK, esolm_tokenize(model, text, strlen(text), tokens, n, &again));
    CHECK(again == n);
    STATUS(OK, esolm_tokenize(model, NULL, 0, tokens, 64, &again));
    CHECK(again == 0);
    STATUS(INVALID, esolm_tokenize(model, NULL, 1, tokens, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, "\xff", 1, tokens, 64, &again));
    last_error_says("UTF-8");
    STATUS(INVALID, esolm_tokenize(NULL, text, 1, tokens, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, text, 1, NULL, 64, &again));
    STATUS(INVALID, esolm_tokenize(model, text, 1, tokens, 64, NULL));

    STATUS(OK, esolm_detokenize(model, tokens, n, back, sizeof back, &len));
    CHECK(len == strlen(text) && strcmp(back, text) == 0);
    STATUS(OK, esolm_detokenize(model, tokens, n, back, len + 1, &again));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_detokenize(model, tokens, n, back, len, &again));
    CHECK(again == len && back[0] == 0);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_detokenize(model, tokens, n, NULL, 0, &again));
    CHECK(again == len);
    STATUS(OK, esolm_detokenize(model, NULL, 0, back, 1, &again));
    CHECK(again == 0 && back[0] == 0);
    STATUS(INVALID, esolm_detokenize(model, NULL, 2, back, 1, &again));
    STATUS(INVALID, esolm_detokenize(model, tokens, n, NULL, 64, &again));
    tokens[0] = 4000000000u;
    STATUS(ESOLM_ERR_TOKENIZER, esolm_detokenize(model, tokens, n, back, sizeof back, &again));
    CHECK(again == 0);
}

static void token_bytes(void)
{
    /* Characters of two to four bytes, and control characters. */
    const char text[] = "Zo\xc3\xab, \xe2\x82\xac 5 \xf0\x9f\x90\x9f!\n\t";
    uint32_t tokens[64];
    uint8_t bytes[64];
    char joined[256];
    size_t n = 0, at = 0, len = 0;
    STATUS(OK, esolm_tokenize(model, text, strlen(text), tokens, 64, &n));
    for (size_t i = 0; i < n; i++) {
        STATUS(OK, esolm_token_bytes(model, tokens[i], bytes, sizeof bytes, &len));
        memcpy(joined + at, bytes, len);
        at += len;
    }
    CHECK(at == strlen(text) && memcmp(joined, text, at) == 0);

    /* Every token has bytes. */
    size_t empty = 0;
    for (uint32_t token = 0; token < info.vocab_size; token++)
        empty += esolm_token_bytes(model, token, bytes, sizeof bytes, &len) != ESOLM_OK || len == 0;
    CHECK(empty == 0);
    STATUS(OK, esolm_token_bytes(model, info.mask_token, bytes, sizeof bytes, &len));
    CHECK(len == 6 && memcmp(bytes, "[MASK]", len) == 0);
    STATUS(ESOLM_ERR_TOKENIZER, esolm_token_bytes(model, (uint32_t)info.vocab_size, bytes, sizeof bytes, &len));
    CHECK(!esolm_token_is_special(model, tokens[0]) && !esolm_token_is_end(model, tokens[0]));
    CHECK(esolm_token_is_special(model, info.mask_token) && !esolm_token_is_end(model, info.mask_token));
    CHECK(esolm_token_is_special(model, (uint32_t)info.vocab_size) && !esolm_token_is_end(model, ESOLM_NO_TOKEN));
    CHECK(!esolm_token_is_special(NULL, info.mask_token) && !esolm_token_is_end(NULL, 0));
    if (info.eos_token != ESOLM_NO_TOKEN)
        CHECK(esolm_token_is_special(model, info.eos_token) && esolm_token_is_end(model, info.eos_token));
    CHECK(len == 0);
    if (info.eos_token != ESOLM_NO_TOKEN) {
        STATUS(OK, esolm_token_bytes(model, info.eos_token, bytes, sizeof bytes, &len));
        CHECK(len == 13 && memcmp(bytes, "<|endoftext|>", len) == 0);
        bytes[0] = 7;
        STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_token_bytes(model, info.eos_token, bytes, 12, &len));
        CHECK(len == 13 && bytes[0] == 7);
    }
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_token_bytes(model, tokens[0], NULL, 0, &len));
    CHECK(len > 0);
    STATUS(INVALID, esolm_token_bytes(model, tokens[0], NULL, 4, &len));
    STATUS(INVALID, esolm_token_bytes(model, tokens[0], bytes, 4, NULL));
    STATUS(INVALID, esolm_token_bytes(NULL, tokens[0], bytes, 4, &len));
}

/* Special tokens and the mask by their names, in a text and in a template. */
static void special_tokens(void)
{
    const char text[] = "a<|endoftext|>[MASK]{{mask 2}}b", plain[] = "a<|endoftext|>[MASK]";
    uint32_t tokens[64], positions[64];
    char back[64];
    size_t n = 0, len = 0, length = 0;
    esolm_tokenize_params params;
    STATUS(OK, esolm_tokenize_params_init(&params, sizeof params));
    CHECK(params.parse_special == 0 && params.continues == 0);
    STATUS(OK, esolm_tokenize(model, plain, strlen(plain), tokens, 64, &n));
    CHECK(n > 3);
    for (size_t i = 0; i < n; i++)
        CHECK(tokens[i] != info.eos_token && tokens[i] != info.mask_token);
    STATUS(OK, esolm_detokenize(model, tokens, n, back, sizeof back, &len));
    CHECK(strcmp(back, plain) == 0);
    params.parse_special = 1;
    STATUS(OK, esolm_tokenize_with_params(model, plain, strlen(plain), &params, tokens, 64, &n));
    CHECK(n == 3 && tokens[1] == info.eos_token && tokens[2] == info.mask_token);
    STATUS(OK, esolm_detokenize(model, tokens, n, back, sizeof back, &len));
    CHECK(strcmp(back, plain) == 0);
    STATUS(OK, esolm_tokenize_template_with_params(model, text, strlen(text), &params, tokens, positions, 64, &n, &length));
    /* The mask is a hole, too. */
    CHECK(n == 3 && length == 6 && tokens[1] == info.eos_token && positions[1] == 1 && positions[2] == 5);
    params.continues = 1;
    STATUS(OK, esolm_tokenize_with_params(model, " and on", 7, &params, tokens, 64, &n));
    STATUS(OK, esolm_detokenize(model, tokens, n, back, sizeof back, &len));
    CHECK(n > 0 && strcmp(back, " and on") == 0);
    params.continues = 2;
    STATUS(INVALID, esolm_tokenize_with_params(model, plain, 1, &params, tokens, 64, &n));
    last_error_says("continues is 2");
    params.continues = 0;
    params.struct_size = 3;
    STATUS(INVALID,
           esolm_tokenize_template_with_params(model, text, 1, &params, tokens, positions, 64, &n, &length));
    CHECK(n == 0 && length == 0);
    STATUS(INVALID, esolm_tokenize_params_init(NULL, sizeof params));
}

static void templates(void)
{
    const char text[] = "Once upon a time {{mask 12}} happily ever after.";
    const char *pieces[2] = {"Once upon a time", " happily ever after."}; /* the space before a hole is the hole's */
    uint32_t tokens[64], positions[64], piece[64];
    size_t n = 9, length = 9, counts[2], wrong = 0;
    STATUS(OK, esolm_tokenize_template(model, text, strlen(text), tokens, positions, 64, &n, &length));
    for (int i = 0; i < 2; i++)
        STATUS(OK, esolm_tokenize(model, pieces[i], strlen(pieces[i]), piece, 64, &counts[i]));
    CHECK(n == counts[0] + counts[1] && length == n + 12);
    for (size_t i = 0; i < n; i++)
        wrong += positions[i] != i + (i < counts[0] ? 0 : 12);
    CHECK(wrong == 0 && memcmp(tokens + counts[0], piece, counts[1] * sizeof *piece) == 0);

    size_t needed = n;
    tokens[0] = positions[0] = 12345678;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL,
           esolm_tokenize_template(model, text, strlen(text), tokens, positions, needed - 1, &n, &length));
    CHECK(n == needed && length == 0 && tokens[0] == 12345678 && positions[0] == 12345678);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL,
           esolm_tokenize_template(model, text, strlen(text), NULL, NULL, 0, &n, &length));
    CHECK(n == needed);
    STATUS(OK, esolm_tokenize_template(model, "{{mask 5}}", 10, NULL, NULL, 0, &n, &length));
    CHECK(n == 0 && length == 5);
    STATUS(INVALID, esolm_tokenize_template(model, "ab {{mask", 9, tokens, positions, 64, &n, &length));
    last_error_says("at character 4");
    STATUS(INVALID, esolm_tokenize_template(model, "\xff", 1, tokens, positions, 64, &n, &length));
    STATUS(INVALID, esolm_tokenize_template(NULL, text, 4, tokens, positions, 64, &n, &length));
    STATUS(INVALID, esolm_tokenize_template(model, NULL, 4, tokens, positions, 64, &n, &length));
    STATUS(INVALID, esolm_tokenize_template(model, text, 4, NULL, positions, 64, &n, &length));
    STATUS(INVALID, esolm_tokenize_template(model, text, 4, tokens, NULL, 64, &n, &length));
    CHECK(n == 0 && length == 0);
    STATUS(INVALID, esolm_tokenize_template(model, text, 4, tokens, positions, 64, NULL, &length));
    STATUS(INVALID, esolm_tokenize_template(model, text, 4, tokens, positions, 64, &n, NULL));
}

/* Conversations. A library without the feature "chat" says so. */
static void conversations(void)
{
    const esolm_message messages[3] = {{"user", "Hi"}, {"assistant", "Yes"}, {"user", "So?"}};
    esolm_chat_params how;
    uint32_t tokens[256], behind[256];
    char text[256];
    size_t n, m, len;
    STATUS(OK, esolm_chat_params_init(&how, sizeof how));
    CHECK(how.struct_size == sizeof how && !how.chat_template && !how.chat_template_kwargs && how.behind == 0 && how.add_generation_prompt == 1);
    STATUS(ESOLM_ERR_UNSUPPORTED, esolm_chat_apply(model, messages, 1, NULL, text, sizeof text, &len));
    last_error_says("chat template");
    how.chat_template = "chatml";
    esolm_status status = esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len);
    if (status == ESOLM_ERR_UNSUPPORTED) {
        last_error_says("feature 'chat'");
        STATUS(ESOLM_ERR_UNSUPPORTED, esolm_chat_tokenize(model, messages, 1, &how, tokens, 256, &n));
        STATUS(ESOLM_ERR_UNSUPPORTED, esolm_chat_answer_end(model, &how, text, sizeof text, &len));
        puts("chat templates: not in this build");
        return;
    }
    STATUS(OK, status);
    CHECK(!strcmp(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n") && len == strlen(text));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_chat_apply(model, messages, 1, &how, text, 8, &m));
    CHECK(m == len && text[0] == 0);
    how.add_generation_prompt = 0;
    STATUS(OK, esolm_chat_apply(model, messages, 2, &how, text, sizeof text, &len));
    CHECK(!strcmp(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"));
    how.add_generation_prompt = 1;
    STATUS(OK, esolm_chat_answer_end(model, &how, text, sizeof text, &len));
    CHECK(!strcmp(text, "<|im_end|>"));
    STATUS(OK, esolm_chat_tokenize(model, messages, 3, &how, tokens, 256, &n));
    how.behind = 2;
    STATUS(OK, esolm_chat_tokenize(model, messages, 3, &how, behind, 256, &m));
    CHECK(m < n && !memcmp(behind + m - 4, tokens + n - 4, 4 * sizeof *tokens));
    how.behind = 4;
    STATUS(INVALID, esolm_chat_tokenize(model, messages, 3, &how, behind, 256, &m));
    how.behind = 0;
    how.chat_template = "{{ messages[0].role }}: {{ messages[0].content }}{{ bos_token }}";
    STATUS(OK, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    CHECK(!strncmp(text, "user: Hi", 8) && len > 8);
    how.chat_template = "{{ think }}{{ tools|tojson }}", how.chat_template_kwargs = "{\"think\": false, \"tools\": [{\"b\": 1, \"a\": 2}]}";
    STATUS(OK, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    CHECK(!strcmp(text, "False[{\"b\": 1, \"a\": 2}]"));
    how.struct_size = offsetof(esolm_chat_params, chat_template_kwargs); /* A caller who does not know them yet. */
    STATUS(OK, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    CHECK(!strcmp(text, "null"));
    how.struct_size = sizeof how, how.chat_template_kwargs = "[]";
    STATUS(INVALID, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    last_error_says("no object in JSON");
    how.chat_template_kwargs = NULL;
    how.chat_template = "{% for %}";
    STATUS(INVALID, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    last_error_says("line 1");
    how.chat_template = "{{ raise_exception('not so') }}";
    STATUS(INVALID, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    last_error_says("not so");
    how.chat_template = "chatml", how.add_generation_prompt = 2;
    STATUS(INVALID, esolm_chat_apply(model, messages, 1, &how, text, sizeof text, &len));
    how.add_generation_prompt = 1;
    const esolm_message bad[2] = {{"user", NULL}, {"user", "\xff"}};
    for (int i = 0; i < 2; i++)
        STATUS(INVALID, esolm_chat_apply(model, bad + i, 1, &how, text, sizeof text, &len));
    STATUS(INVALID, esolm_chat_apply(model, NULL, 1, &how, text, sizeof text, &len));
    STATUS(INVALID, esolm_chat_apply(NULL, messages, 1, &how, text, sizeof text, &len));
    STATUS(INVALID, esolm_chat_tokenize(model, messages, 1, &how, tokens, 256, NULL));
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    tokenizing();
    token_bytes();
    special_tokens();
    templates();
    conversations();
    esolm_model_free(model);
    return report();
}
