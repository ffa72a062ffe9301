/* Has the model write JSON that matches a schema: json MODEL [PROMPT [SCHEMA]]. Needs a library with the feature "grammar".
 * The built-in model knows only stories: what it writes has the form, and little sense. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 96, TEXT = 4096 };

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
        fprintf(stderr, "usage: json MODEL [PROMPT [SCHEMA]]\n");
        return EXIT_FAILURE;
    }
    const char *words = argc > 2 ? argv[2] : "There was a dog. ";
    esolm_constraints rules = {.struct_size = sizeof rules};
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[LENGTH];
    char text[TEXT];
    size_t count, length;
    int32_t reason;

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    check(esolm_tokenize(model, words, strlen(words), tokens, LENGTH, &count));

    rules.json_schema = argc > 3 ? argv[3]
                                 : "{\"type\": \"object\", \"additionalProperties\": false,"
                                   " \"required\": [\"animal\", \"name\", \"legs\"], \"properties\": {"
                                   " \"animal\": {\"enum\": [\"cat\", \"dog\", \"fish\"]},"
                                   " \"name\": {\"type\": \"string\", \"pattern\": \"^[A-Z][a-z]{1,9}$\"},"
                                   " \"legs\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 8}}}";
    const esolm_constraints *all[] = {&rules};
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.alpha_0 = 0; /* a grammar needs one token per step, from left to right */
    how.seed = 1;
    how.min_p = 0.02f;
    how.constraints = all;
    how.n_constraints = 1;
    esolm_prompt prompt = {.tokens = tokens, .count = count};
    check(esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    check(esolm_stop_reason(context, 0, &reason));
    if (strncmp(text, words, strlen(words)) != 0 || reason != ESOLM_STOP_END_OF_TEXT) {
        fprintf(stderr, "the value is not complete: %s\n", text);
        return EXIT_FAILURE;
    }
    puts(text + strlen(words));
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
