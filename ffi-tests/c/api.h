/* Shared by the api_*.c programs: a model, and parameters small enough for valgrind. */
#ifndef API_H
#define API_H

#include "check.h"

#include <stdlib.h>

/* C11's aligned_alloc, which Windows does not have. */
#ifdef _WIN32
#include <malloc.h>
#define aligned_alloc(alignment, size) _aligned_malloc((size), (alignment))
#define aligned_free _aligned_free
#else
#define aligned_free free
#endif

#define OK ESOLM_OK
#define INVALID ESOLM_ERR_INVALID_ARGUMENT

enum { LENGTH = 32, STEPS = 6 };

static esolm_model *model;
static esolm_model_info info;

/* Opens the model that the program's argument names. */
static inline void open_model(int argc, char **argv)
{
    if (argc != 2)
        exit(2);
    STATUS(OK, esolm_model_open(argv[1], NULL, &model));
    if (!model)
        exit(report());
    info.struct_size = sizeof info;
    STATUS(OK, esolm_model_info_get(model, &info));
}

static inline esolm_context_params limits(void)
{
    esolm_context_params params;
    STATUS(OK, esolm_context_params_init(&params, sizeof params));
    params.sequences = 3;
    params.length = LENGTH;
    params.batch_rows = 40;
    params.threads = 1;
    return params;
}

static inline esolm_generate_params small_params(void)
{
    esolm_generate_params params;
    STATUS(OK, esolm_generate_params_init(&params, sizeof params));
    params.steps = STEPS;
    params.seed = 7;
    params.alpha_0 = 0.8;
    params.ignore_eos = 1;
    return params;
}

static inline esolm_context *new_context(void)
{
    esolm_context_params params = limits();
    esolm_context *context = NULL;
    STATUS(OK, esolm_context_new(model, &params, &context));
    return context;
}

static inline void last_error_says(const char *part)
{
    CHECK(strstr(esolm_last_error(), part) != NULL);
    if (!strstr(esolm_last_error(), part))
        printf("    '%s' does not contain '%s'\n", esolm_last_error(), part);
}

/* The tokens that a context of `other` writes with small parameters. */
static inline void run_briefly(const esolm_model *other, uint32_t *tokens)
{
    esolm_context_params params = limits();
    esolm_generate_params how = small_params();
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n;
    STATUS(OK, esolm_context_new(other, &params, &context));
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    esolm_context_free(context);
}

#endif
