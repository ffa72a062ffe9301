/* Fills the holes of a text; {{mask N}} is a hole of N tokens: infill MODEL [TEMPLATE]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 128, TEXT = 4096 };

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
        fprintf(stderr, "usage: infill MODEL [TEMPLATE]\n");
        return EXIT_FAILURE;
    }
    const char *template = argc > 2 ? argv[2] : "Once upon a time {{mask 24}} and they lived happily ever after.";
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[LENGTH], positions[LENGTH];
    char text[TEXT];
    size_t length;

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    /* A prompt is known tokens at any positions: here all that is not a hole. Special tokens in the text are characters
       (esolm_tokenize_template_with_params has an option), and the space before a hole is the hole's. */
    esolm_prompt prompt = {.tokens = tokens, .positions = positions};
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    check(esolm_tokenize_template(model, template, strlen(template), tokens, positions, LENGTH, &prompt.count,
                                  &how.length));
    how.seed = 1;
    check(esolm_generate(context, &prompt, 1, &how, NULL, NULL));

    /* esolm_copy_text would end at the first end-of-text token; this is everything, whatever fills the holes. */
    check(esolm_copy_tokens(context, 0, tokens, LENGTH, &length));
    check(esolm_detokenize(model, tokens, length, text, sizeof text, &length));
    puts(text);
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
