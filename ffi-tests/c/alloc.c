/* esolm_begin, esolm_step, esolm_generate and sequences that come and go allocate nothing, in Rust, C or C++: alloc MODEL.
 *
 * Linked with -Wl,--wrap for each function below, so that every call in the program, the library and ggml comes here
 * first, calls of C++'s operator new included. */
#include "check.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_size_t allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
void *__wrap__Znwm(size_t size);
void *__real__Znwm(size_t size);
void *__wrap__Znam(size_t size);
void *__real__Znam(size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    allocations++;
    return __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    allocations++;
    return __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    allocations++;
    return __real_posix_memalign(out, alignment, size);
}

/* operator new(size_t) and operator new[](size_t) */
void *__wrap__Znwm(size_t size)
{
    allocations++;
    return __real__Znwm(size);
}

void *__wrap__Znam(size_t size)
{
    allocations++;
    return __real__Znam(size);
}

/* Eight sequences that join a generation and leave it, finished or not, two at a time. Returns the number of steps. */
static size_t join_and_leave(esolm_context *context, const esolm_prompt *prompts, esolm_generate_params *how)
{
    enum { SEQUENCES = 2, REQUESTS = 8 };
    esolm_status status = ESOLM_OK;
    size_t joined = 0, left = 0, steps = 0, final = 0;
    int in_use[SEQUENCES] = {0};
    status = esolm_context_reset(context);
    for (; !status && left < REQUESTS; steps++) {
        uint32_t number;
        int32_t done, reason = ESOLM_STOP_NONE;
        if (steps % 4 == 0 && joined < REQUESTS && joined - left < SEQUENCES) {
            how->seed = joined;
            status = esolm_sequence_add(context, &prompts[joined % 2], how, &number);
            CHECK(!in_use[number]);
            in_use[number] = 1, joined++;
        }
        if (!status)
            status = esolm_step(context, NULL, &done);
        for (number = 0; number < SEQUENCES; number++) {
            size_t cached = 0;
            if (!in_use[number] || status)
                continue;
            status = esolm_stop_reason(context, number, &reason);
            if (!status)
                status = esolm_sequence_cached_tokens(context, number, &cached);
            final += cached;
            /* The fifth leaves at once. */
            if (reason != ESOLM_STOP_NONE || joined == 5) {
                status = esolm_sequence_remove(context, number);
                in_use[number] = 0, left++;
            }
        }
    }
    CHECK(status == ESOLM_OK && left == REQUESTS && final > 0);
    return steps;
}

static int32_t count_steps(const esolm_step_info *step, void *user_data)
{
    (void)step;
    ++*(size_t *)user_data;
    return 0;
}

int main(int argc, char **argv)
{
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_context_params limits;
    esolm_generate_params how;
    size_t steps = 0;

    if (argc != 2)
        return 2;
    STATUS(ESOLM_OK, esolm_model_open(argv[1], NULL, &model));
    STATUS(ESOLM_OK, esolm_context_params_init(&limits, sizeof limits));
    limits.sequences = 2, limits.length = 96, limits.threads = 2, limits.prompt_rows = 2;
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &context));
    CHECK(allocations > 100); /* the counting works */
    if (!context)
        return report();
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    how.steps = 12, how.alpha_0 = 0.8, how.top_k = 50, how.top_p = 0.9f;
    uint32_t words[3] = {5, 6, 7};
    esolm_prompt prompts[2] = {{words, NULL, 3}, {NULL, NULL, 0}};

    size_t before = allocations;
    esolm_status status = esolm_begin(context, prompts, 2, &how);
    size_t begun = allocations;
    for (int32_t done = 0; !status && !done; steps++)
        status = esolm_step(context, NULL, &done);
    size_t stepped = allocations;
    CHECK(status == ESOLM_OK && steps > 5);
    CHECK(begun == before);
    CHECK(stepped == begun);
    steps = 0;
    status = esolm_generate(context, prompts, 2, &how, count_steps, &steps);
    size_t generated = allocations;
    CHECK(status == ESOLM_OK && steps > 5);
    CHECK(generated == stepped);
    steps = join_and_leave(context, prompts, &how);
    size_t joined = allocations;
    CHECK(steps > 20);
    CHECK(joined == generated);
    if (failed)
        printf("allocations: begin %zu, steps %zu, generate %zu, joining %zu\n", begun - before, stepped - begun,
               generated - stepped, joined - generated);
    esolm_context_free(context);
    esolm_model_free(model);
    return report();
}
