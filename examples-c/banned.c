/* Writes a text in which a letter does not occur, by changing the logits: banned MODEL [LETTER [PROMPT]]. */
#include "esolm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 64, TEXT = 4096, TOKEN = 256 };

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Rules out all marked tokens. (For a fixed list esolm_constraints.banned does the same; a function can do anything.) */
static int32_t rule_out(const esolm_choice *choice, float *logits, void *user_data)
{
    const unsigned char *marks = user_data;
    for (size_t token = 0; token < choice->n_logits; token++)
        if (marks[token])
            logits[token] = -INFINITY;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2 || (argc > 2 && strlen(argv[2]) != 1)) {
        fprintf(stderr, "usage: banned MODEL [LETTER [PROMPT]]\n");
        return EXIT_FAILURE;
    }
    const char letter = argc > 2 ? argv[2][0] : 'e';
    const char *words = argc > 3 ? argv[3] : "A girl had a big dog";
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_model_info info = {.struct_size = sizeof info};
    uint32_t tokens[LENGTH];
    char text[TEXT];
    size_t length;

    check(esolm_model_open(argv[1], NULL, &model));
    check(esolm_model_info_get(model, &info));
    unsigned char *marks = calloc(info.vocab_size, 1);
    if (!marks)
        return EXIT_FAILURE;
    for (uint32_t token = 0; token < info.vocab_size; token++) {
        uint8_t bytes[TOKEN];
        size_t n;
        if (token != info.mask_token) {
            check(esolm_token_bytes(model, token, bytes, sizeof bytes, &n));
            marks[token] = memchr(bytes, letter, n) != NULL;
        }
    }

    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    esolm_prompt prompt = {.tokens = tokens};
    check(esolm_tokenize(model, words, strlen(words), tokens, LENGTH, &prompt.count));
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.alpha_0 = 0.5;
    how.seed = 1;
    how.logits = rule_out;
    how.logits_data = marks;
    check(esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    puts(text);
    esolm_context_free(context);
    esolm_model_free(model);
    free(marks);
    return EXIT_SUCCESS;
}
