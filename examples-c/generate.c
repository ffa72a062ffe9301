/* Continues a prompt, and reports each step: generate MODEL [PROMPT]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, esolm_last_error());
    return EXIT_FAILURE;
}

/* Called after each step, with the tokens that it wrote; their positions may be anywhere in the text. */
static int32_t on_step(const esolm_step_info *step, void *user_data)
{
    size_t *written = user_data;
    *written += step->n_updates;
    fprintf(stderr, "\rstep %zu of %zu, %zu tokens", step->index + 1, step->total, *written);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: generate MODEL [PROMPT]\n");
        return EXIT_FAILURE;
    }
    const char *words = argc > 2 ? argv[2] : "Once upon a time";
    int result = EXIT_FAILURE;
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t *tokens = NULL;
    char *text = NULL;
    size_t count = 0, length = 0, written = 0;

    if (esolm_model_open(argv[1], NULL, &model) != ESOLM_OK)
        return fail(argv[1]);
    esolm_model_info info = {.struct_size = sizeof info};
    esolm_model_info_get(model, &info);
    if (esolm_context_new(model, NULL, &context) != ESOLM_OK) {
        fail("context");
        goto end;
    }

    tokens = malloc(info.context_length * sizeof *tokens);
    if (!tokens || esolm_tokenize(model, words, strlen(words), tokens, info.context_length, &count) != ESOLM_OK) {
        fail("prompt");
        goto end;
    }
    esolm_prompt prompt = {.tokens = tokens, .count = count};
    if (esolm_generate(context, &prompt, 1, NULL, on_step, &written) != ESOLM_OK) {
        fail("generate");
        goto end;
    }
    fputc('\n', stderr);

    /* With a capacity of 0, the call only says how long the text is. */
    esolm_copy_text(context, 0, NULL, 0, &length);
    text = malloc(length + 1);
    if (text && esolm_copy_text(context, 0, text, length + 1, &length) == ESOLM_OK) {
        puts(text);
        result = EXIT_SUCCESS;
    }
end:
    free(text);
    free(tokens);
    esolm_context_free(context);
    esolm_model_free(model);
    return result;
}
