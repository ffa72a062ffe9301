/* Prints a text while it is being generated: stream MODEL [PROMPT]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 64, TEXT = 4096 };

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
        fprintf(stderr, "usage: stream MODEL [PROMPT]\n");
        return EXIT_FAILURE;
    }
    const char *words = argc > 2 ? argv[2] : "Once upon a time";
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[LENGTH];
    char text[TEXT];
    size_t count, length;
    int32_t done = 0, reason;

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH};
    check(esolm_context_new(model, &limits, &context));
    check(esolm_tokenize(model, words, strlen(words), tokens, LENGTH, &count));

    /* Half of the tokens are written by diffusion, many per step in random order, the rest left to right, one per step:
     * that is when the text appears. */
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.steps = 16;
    how.alpha_0 = 0.5;
    how.seed = 1;
    how.step_text = 1;
    /* The text ends before the model says somebody's words. */
    const char *stop[] = {"\""};
    how.stop_strings = stop;
    how.n_stop_strings = 1;
    esolm_prompt prompt = {.tokens = tokens, .count = count};
    check(esolm_begin(context, &prompt, 1, &how));
    /* The prompt's text is there already. */
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    fputs(text, stdout);
    for (;;) {
        esolm_step_info step = {.struct_size = sizeof step};
        check(esolm_step(context, &step, &done));
        if (done)
            break;
        /* What has become final: whole UTF-8 characters, from left to right. */
        fputs(step.texts[0].text, stdout);
        fflush(stdout);
    }
    check(esolm_stop_reason(context, 0, &reason));
    if (reason == ESOLM_STOP_STRING)
        fputs(" ..", stdout);
    putchar('\n');
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
