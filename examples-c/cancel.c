/* Stops a long generation from another thread: cancel MODEL [MILLISECONDS]. */
#include "esolm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

struct alarm {
    esolm_context *context;
    long milliseconds;
};

static void *ring(void *argument)
{
    struct alarm *alarm = argument;
    struct timespec pause = {alarm->milliseconds / 1000, alarm->milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
    esolm_cancel(alarm->context);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: cancel MODEL [MILLISECONDS]\n");
        return EXIT_FAILURE;
    }
    esolm_model *model = NULL;
    struct alarm alarm = {NULL, argc > 2 ? atol(argv[2]) : 20};
    pthread_t thread;
    size_t written = 0;

    check(esolm_model_open(argv[1], NULL, &model));
    check(esolm_context_new(model, NULL, &alarm.context));
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.alpha_0 = 0; /* one token at a time: the slowest way */
    esolm_prompt nothing = {NULL, NULL, 0};
    check(esolm_begin(alarm.context, &nothing, 1, &how));
    if (pthread_create(&thread, NULL, ring, &alarm))
        return EXIT_FAILURE;

    esolm_status status;
    esolm_step_info step;
    int32_t done = 0;
    while ((status = esolm_step(alarm.context, &step, &done)) == ESOLM_OK && !done)
        written += step.n_updates;
    if (status != ESOLM_ERR_CANCELLED)
        check(status);
    printf("%s after %zu tokens\n", status ? "cancelled" : "finished", written);

    /* The other thread must have let go of the context before it is freed. */
    pthread_join(thread, NULL);
    esolm_context_free(alarm.context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
