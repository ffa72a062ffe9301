/* Thread pools: their own threads, the caller's, shared contexts: api_pool MODEL. */
#include "api.h"

#ifndef _WIN32
#include <pthread.h>
#endif

/* The text of a generation with seed 7 in a context of this pool. */
static void write_tokens(const esolm_pool *pool, size_t threads, uint32_t *tokens)
{
    esolm_context_params params = limits();
    esolm_generate_params how = small_params();
    esolm_context *context = NULL;
    esolm_prompt prompts[3] = {{NULL, NULL, 0}, {NULL, NULL, 0}, {NULL, NULL, 0}};
    size_t n = 0, running = 0;
    params.threads = 0;
    params.pool = pool;
    STATUS(OK, esolm_context_new(model, &params, &context));
    if (threads)
        STATUS(OK, esolm_context_set_threads(context, threads));
    STATUS(OK, esolm_context_threads(context, &running));
    CHECK(running == (threads ? threads : esolm_pool_threads(pool)));
    STATUS(OK, esolm_generate(context, prompts, 3, &how, NULL, NULL));
    for (uint32_t i = 0; i < 3; i++)
        STATUS(OK, esolm_copy_tokens(context, i, tokens + (size_t)i * LENGTH, LENGTH, &n));
    STATUS(INVALID, esolm_context_set_threads(context, 0));
    STATUS(INVALID, esolm_context_set_threads(context, esolm_pool_threads(pool) + 1));
    esolm_context_free(context);
}

/* Tasks one after another, the last first. */
static void run_in_turn(esolm_task task, const void *data, size_t count, void *calls)
{
    ++*(size_t *)calls;
    while (count-- > 0)
        task(data, count);
}

/* Each task twice, and some that there are not: wrong, and harmless. */
static void run_too_many(esolm_task task, const void *data, size_t count, void *calls)
{
    ++*(size_t *)calls;
    for (size_t i = 0; i < 2 * count + 20; i++)
        task(data, i < 2 * count ? i % count : i);
}

#ifndef _WIN32
typedef struct {
    esolm_task task;
    const void *data;
    size_t i;
} one_task;

static void *run_one(void *argument)
{
    const one_task *one = argument;
    one->task(one->data, one->i);
    return NULL;
}

/* Each task in a thread of its own. */
static void run_in_threads(esolm_task task, const void *data, size_t count, void *calls)
{
    enum { MOST = 4 };
    pthread_t threads[MOST];
    one_task tasks[MOST];
    ++*(size_t *)calls;
    CHECK(count <= MOST);
    for (size_t i = 0; i < count; i++) {
        tasks[i] = (one_task){task, data, i};
        CHECK(pthread_create(&threads[i], NULL, run_one, &tasks[i]) == 0);
    }
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}
#endif

static void run_nothing(esolm_task task, const void *data, size_t count, void *calls)
{
    (void)task, (void)data, (void)count;
    ++*(size_t *)calls;
}

static void texts(void)
{
    enum { ALL = 3 * LENGTH };
    uint32_t alone[ALL] = {0}, tokens[ALL] = {0};
    size_t calls = 0;
    esolm_pool_params params;
    esolm_pool *pool = NULL;
    STATUS(OK, esolm_pool_params_init(&params, sizeof params));
    CHECK(params.poll == 50 && params.threads == 0 && !params.run);
    params.threads = 1;
    STATUS(OK, esolm_pool_new(&params, &pool));
    write_tokens(pool, 0, alone);
    esolm_pool_free(pool);

    params.threads = 3;
    params.poll = 0;
    STATUS(OK, esolm_pool_new(&params, &pool));
    CHECK(esolm_pool_threads(pool) == 3);
    write_tokens(pool, 0, tokens);
    CHECK(memcmp(alone, tokens, sizeof alone) == 0);
    write_tokens(pool, 2, tokens);
    CHECK(memcmp(alone, tokens, sizeof alone) == 0);
    esolm_pool_free(pool);

#ifdef __linux__
    /* A processor of our own choice, behind other work. */
    size_t first = 0;
    params.cpus = &first, params.n_cpus = 1, params.nice = 1;
    /* The first one that this process may run on. */
    while (first < 1024 && esolm_pool_new(&params, &pool) != OK)
        first++;
    CHECK(esolm_pool_threads(pool) == 3);
    write_tokens(pool, 0, tokens);
    CHECK(memcmp(alone, tokens, sizeof alone) == 0);
    esolm_pool_free(pool);
    params.cpus = NULL, params.n_cpus = 0, params.nice = 0;
#endif

    esolm_run_callback runs[] = {run_in_turn, run_too_many,
#ifndef _WIN32
                                 run_in_threads
#endif
    };
    params.run_user_data = &calls;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        params.run = runs[i];
        calls = 0;
        STATUS(OK, esolm_pool_new(&params, &pool));
        write_tokens(pool, 0, tokens);
        CHECK(memcmp(alone, tokens, sizeof alone) == 0 && calls > 0);
        esolm_pool_free(pool);
    }

    /* A function that does not run its tasks: an error of the call, and the context can be freed. */
    esolm_context_params context_params = limits();
    esolm_generate_params how = small_params();
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    params.run = run_nothing;
    STATUS(OK, esolm_pool_new(&params, &pool));
    context_params.threads = 0;
    context_params.pool = pool;
    STATUS(OK, esolm_context_new(model, &context_params, &context));
    esolm_pool_free(pool);
    STATUS(INVALID, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    esolm_context_free(context);
}

static void errors(void)
{
    esolm_pool_params params;
    esolm_pool *pool = NULL;
    size_t nowhere = 900, threads = 0;
    STATUS(INVALID, esolm_pool_params_init(NULL, sizeof params));
    STATUS(OK, esolm_pool_params_init(&params, sizeof params));
    STATUS(INVALID, esolm_pool_new(&params, NULL));
    params.poll = 101;
    STATUS(INVALID, esolm_pool_new(&params, &pool));
    params.poll = 50;
    params.nice = 41;
    STATUS(INVALID, esolm_pool_new(&params, &pool));
    params.nice = 0;
    params.threads = 100000;
    STATUS(INVALID, esolm_pool_new(&params, &pool));
    params.threads = 2;
    params.n_cpus = 1;
    STATUS(INVALID, esolm_pool_new(&params, &pool));
    params.cpus = &nowhere;
    CHECK(esolm_pool_new(&params, &pool) != OK && pool == NULL);
    params.n_cpus = 0;
    params.threads = 0;
    params.run = run_nothing;
    STATUS(INVALID, esolm_pool_new(&params, &pool));
    CHECK(esolm_pool_threads(NULL) == 0);
    esolm_pool_free(NULL);
    STATUS(INVALID, esolm_context_set_threads(NULL, 1));
    STATUS(INVALID, esolm_context_threads(NULL, &threads));
    STATUS(OK, esolm_pool_new(NULL, &pool));
    CHECK(esolm_pool_threads(pool) >= 1);
    esolm_pool_free(pool);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    texts();
    errors();
    esolm_model_free(model);
    return report();
}
