/* Linked with examples-c/server.c for its test: with seed 666 a text fails after five tokens, with seed 667 each token
 * takes a tenth of a second. (-Wl,--wrap) */
#include "esolm.h"

#include <math.h>
#include <time.h>

esolm_status __real_esolm_sequence_add(esolm_context *context, const esolm_prompt *prompt,
                                       const esolm_generate_params *params, uint32_t *sequence);
esolm_status __wrap_esolm_sequence_add(esolm_context *context, const esolm_prompt *prompt,
                                       const esolm_generate_params *params, uint32_t *sequence);

static int32_t fail_after_five(const esolm_logits_row *row, float *logits, void *prompt_tokens)
{
    for (size_t i = 0; row->position >= *(size_t *)prompt_tokens + 5 && i < row->n_logits; i++)
        logits[i] = -INFINITY;
    return 0;
}

static int32_t take_time(const esolm_logits_row *row, float *logits, void *nothing)
{
    struct timespec pause = {0, 100000000};
    (void)row, (void)logits, (void)nothing;
    nanosleep(&pause, NULL);
    return 0;
}

esolm_status __wrap_esolm_sequence_add(esolm_context *context, const esolm_prompt *prompt,
                                       const esolm_generate_params *params, uint32_t *sequence)
{
    static size_t prompt_tokens;
    esolm_generate_params how = *params;
    how.ignore_eos = how.seed == 667;
    if (how.seed == 666 || how.seed == 667)
        how.logits_callback = how.seed == 666 ? fail_after_five : take_time;
    if (how.seed == 666)
        prompt_tokens = prompt->count;
    how.logits_user_data = &prompt_tokens;
    return __real_esolm_sequence_add(context, prompt, &how, sequence);
}
