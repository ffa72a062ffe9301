/* Two contexts that share the threads of one pool: pool MODEL [THREADS]. The text does not depend on the number of threads. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>

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
        fprintf(stderr, "usage: pool MODEL [THREADS]\n");
        return EXIT_FAILURE;
    }
    esolm_model *model = NULL;
    esolm_pool *pool = NULL;
    esolm_context *contexts[2] = {NULL, NULL};
    char text[TEXT];
    size_t length;
    int32_t done[2] = {0, 0};

    check(esolm_model_open(argv[1], NULL, &model));
    esolm_pool_params threads;
    check(esolm_pool_params_init(&threads, sizeof threads));
    threads.threads = argc > 2 ? (size_t)atoi(argv[2]) : 0; /* 0: one per core that the process may use */
    threads.poll = 10;                                       /* spin shortly between steps: others need the cores, too */
    check(esolm_pool_new(&threads, &pool));

    esolm_context_params limits;
    check(esolm_context_params_init(&limits, sizeof limits));
    limits.length = LENGTH;
    limits.pool = pool;
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    for (int i = 0; i < 2; i++) {
        esolm_prompt prompt = {NULL, NULL, 0};
        check(esolm_context_new(model, &limits, &contexts[i]));
        how.seed = (size_t)i + 1;
        check(esolm_begin(contexts[i], &prompt, 1, &how));
    }
    /* Here they take turns. From two threads they would, too: while one has the pool's threads, the other computes alone. */
    while (!done[0] || !done[1])
        for (int i = 0; i < 2; i++)
            if (!done[i])
                check(esolm_step(contexts[i], NULL, &done[i]));
    printf("%zu threads\n", esolm_pool_threads(pool));
    for (int i = 0; i < 2; i++) {
        check(esolm_copy_text(contexts[i], 0, text, sizeof text, &length));
        printf("%d: %s\n", i + 1, text);
        esolm_context_free(contexts[i]);
    }
    esolm_pool_free(pool); /* the contexts keep it alive, so this may come first, too */
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
