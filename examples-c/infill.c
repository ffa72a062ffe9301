/* Writes what is missing between a beginning and an end: infill MODEL [BEGINNING END]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 48, TEXT = 4096 };

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: infill MODEL [BEGINNING END]\n");
        return EXIT_FAILURE;
    }
    const char *beginning = argc > 3 ? argv[2] : "Once upon a time";
    const char *end = argc > 3 ? argv[3] : " and they lived happily ever after.";
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[LENGTH], positions[LENGTH];
    char text[TEXT];
    size_t first, last, length;

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    check(esolm_tokenize(model, beginning, strlen(beginning), tokens, LENGTH, &first));
    check(esolm_tokenize(model, end, strlen(end), tokens + first, LENGTH - first, &last));

    /* The known tokens may lie anywhere: these are the first positions and the last. */
    for (size_t i = 0; i < first; i++)
        positions[i] = (uint32_t)i;
    for (size_t i = 0; i < last; i++)
        positions[first + i] = (uint32_t)(LENGTH - last + i);
    esolm_prompt prompt = {.tokens = tokens, .positions = positions, .count = first + last};
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.steps = 24;
    how.seed = 1;
    check(esolm_generate(context, &prompt, 1, &how, NULL, NULL));

    check(esolm_copy_tokens(context, 0, tokens, LENGTH, &length));
    check(esolm_detokenize(model, tokens, length, text, sizeof text, &length));
    puts(text);
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
