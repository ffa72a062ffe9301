/* Generates in memory that the program allocates, with a fixed budget: arena MODEL [MEBIBYTES]. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>

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
        fprintf(stderr, "usage: arena MODEL [MEBIBYTES]\n");
        return EXIT_FAILURE;
    }
    size_t budget = (argc > 2 ? strtoul(argv[2], NULL, 10) : 64) << 20, needed, length;
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    char text[TEXT];

    check(esolm_model_open(argv[1], NULL, &model));
    /* `batch_rows` is the most rows that one run of the network is fed. Fewer rows need less memory and give the same
     * text: take as many as fit. */
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .batch_rows = 128};
    check(esolm_context_arena_size(model, &limits, &needed));
    while (needed > budget && limits.batch_rows > 1) {
        limits.batch_rows /= 2;
        check(esolm_context_arena_size(model, &limits, &needed));
    }
    if (needed > budget) {
        fprintf(stderr, "%zu bytes are needed, the budget is %zu\n", needed, budget);
        return EXIT_FAILURE;
    }
    /* By hand, as Windows has no aligned_alloc. */
    char *memory = malloc(needed + ESOLM_ARENA_ALIGNMENT);
    if (!memory)
        return EXIT_FAILURE;
    void *arena = memory + (ESOLM_ARENA_ALIGNMENT - (uintptr_t)memory % ESOLM_ARENA_ALIGNMENT);
    check(esolm_context_new_in(model, &limits, arena, needed, &context));

    esolm_prompt empty = {NULL, NULL, 0};
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.seed = 1;
    check(esolm_generate(context, &empty, 1, &how, NULL, NULL));
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    printf("%zu bytes, %zu rows at most\n%s\n", needed, limits.batch_rows, text);
    esolm_context_free(context); /* before the memory that it uses */
    free(memory);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
