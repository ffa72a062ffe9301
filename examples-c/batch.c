/* Continues several prompts in one batch, which is faster than one after the other: batch MODEL [PROMPT..]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 48, TEXT = 4096, MAX_PROMPTS = 8 };

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    static char *defaults[] = {"Once upon a time", "The king", "In the forest there was a"};
    if (argc < 2 || argc > 2 + MAX_PROMPTS) {
        fprintf(stderr, "usage: batch MODEL [PROMPT..], at most %d\n", MAX_PROMPTS);
        return EXIT_FAILURE;
    }
    char **words = argc > 2 ? argv + 2 : defaults;
    size_t sequences = argc > 2 ? (size_t)argc - 2 : sizeof defaults / sizeof *defaults;
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[MAX_PROMPTS][LENGTH];
    esolm_prompt prompts[MAX_PROMPTS] = {{0}};
    char text[TEXT];

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .sequences = sequences, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    for (size_t i = 0; i < sequences; i++) {
        prompts[i].tokens = tokens[i];
        check(esolm_tokenize(model, words[i], strlen(words[i]), tokens[i], LENGTH, &prompts[i].count));
    }
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.seed = 1;
    check(esolm_generate(context, prompts, sequences, &how, NULL, NULL));
    for (size_t i = 0; i < sequences; i++) {
        size_t length;
        check(esolm_copy_text(context, i, text, sizeof text, &length));
        printf("%zu: %s\n", i + 1, text);
    }
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
