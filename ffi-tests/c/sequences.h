/* Shared by the api_*.c programs about sequences that join and leave. */
#ifndef SEQUENCES_H
#define SEQUENCES_H

#include "api.h"

#include <math.h>

static const esolm_prompt EMPTY = {NULL, NULL, 0};

/* One caller's prompt and parameters, and the tokens that they give alone. */
typedef struct {
    esolm_prompt prompt;
    esolm_generate_params how;
    uint32_t alone[LENGTH];
    size_t n_alone;
    int32_t reason;
} request;

static inline uint32_t add(esolm_context *context, const esolm_prompt *prompt, const esolm_generate_params *how)
{
    uint32_t sequence = 99;
    STATUS(OK, esolm_sequence_add(context, prompt, how, &sequence));
    return sequence;
}

static inline int32_t reason_of(esolm_context *context, uint32_t sequence)
{
    int32_t reason = 99;
    STATUS(OK, esolm_stop_reason(context, sequence, &reason));
    return reason;
}

static inline size_t cached(esolm_context *context, uint32_t sequence)
{
    size_t n = 99;
    STATUS(OK, esolm_sequence_cached_tokens(context, sequence, &n));
    return n;
}

static inline void run_alone(esolm_context *context, request *one)
{
    STATUS(OK, esolm_generate(context, &one->prompt, 1, &one->how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, one->alone, LENGTH, &one->n_alone));
    one->reason = reason_of(context, 0);
}

/* A finished sequence has the tokens that it gets alone. */
static inline void same(esolm_context *context, uint32_t sequence, const request *one)
{
    uint32_t tokens[LENGTH];
    size_t n = 0;
    STATUS(OK, esolm_copy_tokens(context, sequence, tokens, LENGTH, &n));
    CHECK(n == one->n_alone && memcmp(tokens, one->alone, n * sizeof *tokens) == 0);
    CHECK(reason_of(context, sequence) == one->reason);
}

static inline void run(esolm_context *context)
{
    int32_t done = 0;
    while (esolm_step(context, NULL, &done) == OK && !done)
        ;
    CHECK(done == 1);
}

static inline int32_t thirty_and_one(const esolm_logits_row *row, float *logits, void *user_data)
{
    ++*(size_t *)user_data;
    for (size_t i = 0; i < row->n_logits; i++)
        if (i != 30 + row->position % 2)
            logits[i] = -INFINITY;
    return 0;
}

#endif
