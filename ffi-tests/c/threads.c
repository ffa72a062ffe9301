/* One model with eight contexts in eight threads, contexts with several threads each, and two threads that use one
 * context: threads MODEL. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS = 8, LENGTH = 24 };

static esolm_model *model;

static esolm_context_params limits(void)
{
    return (esolm_context_params){.struct_size = sizeof(esolm_context_params), .length = LENGTH, .threads = 1};
}

static esolm_generate_params small_params(uint64_t seed)
{
    esolm_generate_params params;
    esolm_generate_params_init(&params, sizeof params);
    params.steps = 4;
    params.seed = seed;
    params.alpha_0 = 0.7;
    return params;
}

struct job {
    uint64_t seed;
    size_t threads;
    int32_t kernels;
    esolm_status status;
    uint32_t tokens[LENGTH];
    char text[1024];
};

/* Makes a context, generates and frees it. No CHECK here: its counters are not atomic. */
static void *work(void *argument)
{
    struct job *job = argument;
    esolm_context_params context_params = limits();
    esolm_generate_params how = small_params(job->seed);
    esolm_context *context = NULL;
    uint32_t words[LENGTH];
    size_t n = 0;
    context_params.threads = job->threads;
    context_params.kernels = job->kernels;
    job->status = esolm_tokenize(model, "The", 3, words, LENGTH, &n);
    esolm_prompt prompt = {words, NULL, n};
    if (!job->status)
        job->status = esolm_context_new(model, &context_params, &context);
    if (!job->status)
        job->status = esolm_generate(context, &prompt, 1, &how, NULL, NULL);
    if (!job->status)
        job->status = esolm_copy_tokens(context, 0, job->tokens, LENGTH, &n);
    if (!job->status)
        job->status = esolm_copy_text(context, 0, job->text, sizeof job->text, &n);
    esolm_context_free(context);
    return NULL;
}

static void run_in_parallel(struct job *jobs, int n)
{
    pthread_t ids[THREADS];
    for (int i = 0; i < n; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]))
            exit(1);
    for (int i = 0; i < n; i++)
        pthread_join(ids[i], NULL);
}

static void many_contexts(void)
{
    static struct job alone[2], jobs[THREADS];
    for (int i = 0; i < THREADS; i++)
        jobs[i] = (struct job){.seed = (uint64_t)i % 2, .threads = 1};
    run_in_parallel(jobs, THREADS);
    for (int i = 0; i < 2; i++) {
        alone[i] = (struct job){.seed = (uint64_t)i, .threads = 1};
        work(&alone[i]);
        STATUS(ESOLM_OK, alone[i].status);
    }
    CHECK(memcmp(alone[0].tokens, alone[1].tokens, sizeof alone[0].tokens) != 0);
    for (int i = 0; i < THREADS; i++) {
        STATUS(ESOLM_OK, jobs[i].status);
        CHECK(memcmp(jobs[i].tokens, alone[i % 2].tokens, sizeof jobs[i].tokens) == 0);
        CHECK(strcmp(jobs[i].text, alone[i % 2].text) == 0);
    }
}

/* The number of a context's threads does not change its tokens, with the own kernels and with ggml's. ggml's threads
 * wait by spinning, which takes minutes under valgrind: with ESOLM_TEST_ONE_CORE set, ggml gets one thread. */
static void threads_per_context(void)
{
    enum { EACH = 3 };
    static struct job jobs[2 * EACH];
    const int one_core = getenv("ESOLM_TEST_ONE_CORE") != NULL;
    for (int i = 0; i < 2 * EACH; i++) {
        const int ggml = i >= EACH;
        jobs[i] = (struct job){.seed = 3, .threads = ggml && one_core ? 1 : (size_t)i % EACH + 1,
                               .kernels = ggml ? ESOLM_KERNELS_GGML : ESOLM_KERNELS_OWN};
    }
    run_in_parallel(jobs, 2 * EACH);
    for (int i = 0; i < 2 * EACH; i++) {
        STATUS(ESOLM_OK, jobs[i].status);
        CHECK(memcmp(jobs[i].tokens, jobs[i / EACH * EACH].tokens, sizeof jobs[i].tokens) == 0);
    }
}

/* The log callback may be changed at any time, while other threads open and free models. */
static void count_messages(int32_t level, const char *message, void *user_data)
{
    if (level > 0 && message)
        atomic_fetch_add((atomic_int *)user_data, 1);
}

static void *open_and_close(void *path)
{
    for (int i = 0; i < 4; i++) {
        esolm_model *other = NULL;
        if (esolm_model_open(path, NULL, &other) || esolm_model_retain(model))
            return NULL;
        esolm_model_free(other);
        esolm_model_free(model);
        if (esolm_model_open("/nowhere.gguf", NULL, &other) != ESOLM_ERR_IO || !strstr(esolm_last_error(), "nowhere"))
            return NULL;
    }
    return path;
}

static void models_in_threads(char *path)
{
    static atomic_int messages[2];
    pthread_t ids[THREADS / 2];
    void *result;
    for (int i = 0; i < THREADS / 2; i++)
        if (pthread_create(&ids[i], NULL, open_and_close, path))
            exit(1);
    for (int i = 0; i < 50; i++)
        esolm_set_log_callback(count_messages, &messages[i % 2]);
    esolm_set_log_callback(NULL, NULL);
    for (int i = 0; i < THREADS / 2; i++) {
        pthread_join(ids[i], &result);
        CHECK(result == path);
    }
}

/* State of two threads that use one context: the step callback waits until the other thread has made its calls. */
struct meeting {
    esolm_context *context;
    esolm_status status;
    atomic_int running, called;
};

static void wait_for(atomic_int *flag)
{
    struct timespec moment = {0, 1000000};
    while (!atomic_load(flag))
        nanosleep(&moment, NULL);
}

static int32_t hold(const esolm_step_info *step, void *user_data)
{
    struct meeting *meeting = user_data;
    (void)step;
    atomic_store(&meeting->running, 1);
    wait_for(&meeting->called);
    return 0;
}

static void *generate(void *argument)
{
    struct meeting *meeting = argument;
    esolm_generate_params how = small_params(1);
    esolm_prompt empty = {NULL, NULL, 0};
    meeting->status = esolm_generate(meeting->context, &empty, 1, &how, hold, meeting);
    return NULL;
}

static void one_context(void)
{
    struct meeting meeting = {.status = -1};
    esolm_context_params context_params = limits();
    esolm_prompt empty = {NULL, NULL, 0};
    esolm_text_score score = {.struct_size = sizeof score};
    esolm_profile profile = {.struct_size = sizeof profile};
    uint32_t tokens[LENGTH] = {0};
    double log_p;
    char text[1024];
    size_t n;
    int32_t done;
    pthread_t id;
    STATUS(ESOLM_OK, esolm_context_new(model, &context_params, &meeting.context));
    if (pthread_create(&id, NULL, generate, &meeting))
        exit(1);
    wait_for(&meeting.running);
    STATUS(ESOLM_ERR_BUSY, esolm_step(meeting.context, NULL, &done));
    STATUS(ESOLM_ERR_BUSY, esolm_begin(meeting.context, &empty, 1, NULL));
    STATUS(ESOLM_ERR_BUSY, esolm_generate(meeting.context, &empty, 1, NULL, NULL, NULL));
    STATUS(ESOLM_ERR_BUSY, esolm_context_reset(meeting.context));
    STATUS(ESOLM_ERR_BUSY, esolm_extend(meeting.context, &empty, 1, NULL));
    STATUS(ESOLM_ERR_BUSY, esolm_state_save(meeting.context, NULL, 0, &n));
    STATUS(ESOLM_ERR_BUSY, esolm_state_restore(meeting.context, tokens, 4));
    STATUS(ESOLM_ERR_BUSY, esolm_score_order(meeting.context, tokens, NULL, 0, 0, &log_p, 1));
    STATUS(ESOLM_ERR_BUSY, esolm_score_masked(meeting.context, tokens, NULL, 0, 0, &log_p, 1));
    STATUS(ESOLM_ERR_BUSY, esolm_score_text(meeting.context, tokens, 1, NULL, NULL, 0, &score, NULL, NULL));
    /* Reading is no use of the context. */
    STATUS(ESOLM_OK, esolm_copy_tokens(meeting.context, 0, tokens, LENGTH, &n));
    CHECK(n == LENGTH);
    STATUS(ESOLM_OK, esolm_copy_text(meeting.context, 0, text, sizeof text, &n));
    STATUS(ESOLM_OK, esolm_copy_order(meeting.context, 0, tokens, LENGTH, &n));
    STATUS(ESOLM_OK, esolm_context_profile(meeting.context, &profile));
    atomic_store(&meeting.called, 1);
    pthread_join(id, NULL);
    STATUS(ESOLM_OK, meeting.status);

    /* This thread cancels while the other is in esolm_generate. */
    atomic_store(&meeting.running, 0);
    atomic_store(&meeting.called, 0);
    if (pthread_create(&id, NULL, generate, &meeting))
        exit(1);
    wait_for(&meeting.running);
    STATUS(ESOLM_OK, esolm_cancel(meeting.context));
    atomic_store(&meeting.called, 1);
    pthread_join(id, NULL);
    STATUS(ESOLM_ERR_CANCELLED, meeting.status);
    esolm_context_free(meeting.context);
}

/* A reader that looks at the text all the time, as a user interface does. */
struct reader {
    esolm_context *context;
    atomic_int stop;
    size_t reads, failures;
};

static void *read_texts(void *argument)
{
    struct reader *reader = argument;
    uint32_t tokens[LENGTH];
    char text[1024];
    size_t n;
    struct timespec moment = {0, 100000};
    while (!atomic_load(&reader->stop)) {
        nanosleep(&moment, NULL);
        reader->reads++;
        reader->failures += esolm_copy_tokens(reader->context, 0, tokens, LENGTH, &n) != ESOLM_OK;
        reader->failures += esolm_copy_text(reader->context, 0, text, sizeof text, &n) != ESOLM_OK;
    }
    return NULL;
}

static void reader_and_worker(void)
{
    struct reader reader = {0};
    esolm_context_params context_params = limits();
    esolm_prompt empty = {NULL, NULL, 0};
    uint32_t tokens[LENGTH];
    pthread_t id;
    STATUS(ESOLM_OK, esolm_context_new(model, &context_params, &reader.context));
    esolm_generate_params how = small_params(1);
    STATUS(ESOLM_OK, esolm_begin(reader.context, &empty, 1, &how));
    if (pthread_create(&id, NULL, read_texts, &reader))
        exit(1);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        how = small_params(seed);
        STATUS(ESOLM_OK, esolm_begin(reader.context, &empty, 1, &how));
        finish(reader.context, tokens, LENGTH);
    }
    atomic_store(&reader.stop, 1);
    pthread_join(id, NULL);
    CHECK(reader.reads > 0 && reader.failures == 0);
    esolm_context_free(reader.context);
}

/* A cancel by another thread, after a delay. */
struct late_cancel {
    esolm_context *context;
    struct timespec delay;
    esolm_status status;
};

static void *cancel_late(void *argument)
{
    struct late_cancel *late = argument;
    nanosleep(&late->delay, NULL);
    late->status = esolm_cancel(late->context);
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int32_t count(const esolm_step_info *step, void *user_data)
{
    (void)step;
    ++*(size_t *)user_data;
    return 0;
}

/* A cancel at any time is not lost, and a generation that is continued after it writes the same tokens. */
static void cancels_at_any_time(void)
{
    enum { TIMES = 12 };
    esolm_context *context = NULL;
    esolm_context_params context_params = limits();
    esolm_generate_params how = small_params(5);
    esolm_prompt empty = {NULL, NULL, 0};
    uint32_t whole[LENGTH] = {0}, tokens[LENGTH];
    size_t all = 0, n = 0;
    context_params.threads = 0; /* one per core, so that a cancel arrives while they compute */
    STATUS(ESOLM_OK, esolm_context_new(model, &context_params, &context));
    double began = seconds();
    STATUS(ESOLM_OK, esolm_generate(context, &empty, 1, &how, count, &all));
    const double took = seconds() - began;
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, whole, LENGTH, &n));

    for (int time = 0; time < TIMES; time++) {
        /* The delays: from before the first step to after the last one. */
        const double delay = took * 1.5 * time / (TIMES - 1);
        struct late_cancel late = {context, {(time_t)delay, (long)((delay - (double)(time_t)delay) * 1e9)}, -1};
        size_t steps = 0;
        pthread_t id;
        STATUS(ESOLM_OK, esolm_context_reset(context));
        if (time == 0)
            cancel_late(&late); /* before the call */
        else if (pthread_create(&id, NULL, cancel_late, &late))
            exit(1);
        esolm_status status = esolm_generate(context, &empty, 1, &how, count, &steps);
        if (time > 0)
            pthread_join(id, NULL);
        STATUS(ESOLM_OK, late.status);
        CHECK(status == ESOLM_ERR_CANCELLED || (status == ESOLM_OK && steps == all));
        CHECK(time > 0 || (status == ESOLM_ERR_CANCELLED && steps == 0));
        /* The context stays cancelled; but a step of a generation that is finished or was not begun still says so. */
        const int begun = esolm_copy_tokens(context, 0, tokens, LENGTH, &n) == ESOLM_OK;
        const int idle = status == ESOLM_OK || !begun;
        int32_t done = 7;
        STATUS(idle ? ESOLM_OK : ESOLM_ERR_CANCELLED, esolm_step(context, NULL, &done));
        CHECK(done == idle && (begun || steps == 0));
        STATUS(ESOLM_ERR_CANCELLED, esolm_begin(context, &empty, 1, &how));
        STATUS(ESOLM_OK, esolm_cancel_reset(context));
        if (!begun)
            STATUS(ESOLM_OK, esolm_begin(context, &empty, 1, &how));
        finish(context, tokens, LENGTH);
        CHECK(memcmp(tokens, whole, sizeof whole) == 0);
    }
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    STATUS(ESOLM_OK, esolm_model_open(argv[1], NULL, &model));
    many_contexts();
    threads_per_context();
    models_in_threads(argv[1]);
    one_context();
    reader_and_worker();
    cancels_at_any_time();
    esolm_model_free(model);
    return report();
}
