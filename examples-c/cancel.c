/* Cancels a generation from another thread: cancel MODEL [MILLISECONDS]. */
#define _POSIX_C_SOURCE 200809L
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

struct timer {
    esolm_context *context;
    long milliseconds;
};

static void *cancel_later(void *argument)
{
    struct timer *timer = argument;
    struct timespec pause = {timer->milliseconds / 1000, timer->milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
    esolm_cancel(timer->context);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: cancel MODEL [MILLISECONDS]\n");
        return EXIT_FAILURE;
    }
    esolm_model *model = NULL;
    struct timer timer = {NULL, argc > 2 ? atol(argv[2]) : 20};
    pthread_t thread;
    size_t written = 0;

    check(esolm_model_open(argv[1], NULL, &model));
    check(esolm_context_new(model, NULL, &timer.context));
    esolm_generate_params how;
    check(esolm_generate_params_init(&how, sizeof how));
    how.alpha_0 = 0; /* no diffusion: one token per step, so that it takes a while */
    esolm_prompt empty = {NULL, NULL, 0};
    check(esolm_begin(timer.context, &empty, 1, &how));
    if (pthread_create(&thread, NULL, cancel_later, &timer))
        return EXIT_FAILURE;

    esolm_status status;
    esolm_step_info step = {.struct_size = sizeof step};
    int32_t done = 0;
    while ((status = esolm_step(timer.context, &step, &done)) == ESOLM_OK && !done)
        written += step.n_updates;
    if (status != ESOLM_ERR_CANCELLED)
        check(status);
    printf("%s after %zu tokens\n", status ? "cancelled" : "finished", written);

    /* The other thread must be done with the context before it is freed. */
    pthread_join(thread, NULL);
    esolm_context_free(timer.context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
