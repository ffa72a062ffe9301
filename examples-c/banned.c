/* Generates a text without a certain letter, with a logits callback: banned MODEL [LETTER [PROMPT]]. */
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

/* Called before each token is drawn: rules out the tokens that contain the letter. (esolm_constraints.banned is simpler
 * for a fixed list like this one; a callback can decide anew for each token.) */
static int32_t ban_letter(const esolm_logits_row *row, float *logits, void *user_data)
{
    const unsigned char *banned = user_data;
    for (size_t token = 0; token < row->n_logits; token++)
        if (banned[token])
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
    const char *start = argc > 3 ? argv[3] : "A girl had a big dog";
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_model_info info = {.struct_size = sizeof info};
    uint32_t tokens[LENGTH];
    char text[TEXT];
    size_t length;

    check(esolm_model_open(argv[1], NULL, &model));
    check(esolm_model_info_get(model, &info));
    unsigned char *banned = calloc(info.vocab_size, 1); /* by token: whether it contains the letter */
    if (!banned)
        return EXIT_FAILURE;
    for (uint32_t token = 0; token < info.vocab_size; token++) {
        uint8_t bytes[TOKEN];
        size_t n;
        if (token != info.mask_token) {
            check(esolm_token_bytes(model, token, bytes, sizeof bytes, &n));
            banned[token] = memchr(bytes, letter, n) != NULL;
        }
    }

    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    esolm_prompt prompt = {.tokens = tokens};
    check(esolm_tokenize(model, start, strlen(start), tokens, LENGTH, &prompt.count));
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.alpha_0 = 0.5;
    how.seed = 1;
    how.logits_callback = ban_letter;
    how.logits_user_data = banned;
    check(esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    puts(text);
    esolm_context_free(context);
    esolm_model_free(model);
    free(banned);
    return EXIT_SUCCESS;
}
