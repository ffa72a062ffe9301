/* What the caller's process and threads are like: floating-point environment, stack, fork(), threads that do not start:
 * surroundings MODEL. The linker sends pthread_create of the library here (--wrap). */
#include "check.h"

#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LENGTH = 32, VOCABULARY = 1 << 17 };

static esolm_model *model;
static const char *path;

/* The most threads of the library that may live at once, and those that do. */
static atomic_int most_threads = 1000, live_threads;

struct start {
    void *(*run)(void *);
    void *argument;
};

static void *run_and_count(void *argument)
{
    struct start start = *(struct start *)argument;
    free(argument);
    void *result = start.run(start.argument);
    atomic_fetch_sub(&live_threads, 1);
    return result;
}

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    struct start *start = malloc(sizeof *start);
    int status = EAGAIN;
    *start = (struct start){run, argument};
    if (atomic_fetch_add(&live_threads, 1) < atomic_load(&most_threads))
        status = __real_pthread_create(id, attributes, run_and_count, start);
    if (status) {
        atomic_fetch_sub(&live_threads, 1);
        free(start);
    }
    return status;
}

static esolm_context *new_context(size_t threads, int32_t kernels)
{
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .threads = threads, .kernels = kernels};
    esolm_context *context = NULL;
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &context));
    return context;
}

static esolm_generate_params params(void)
{
    esolm_generate_params how;
    esolm_generate_params_init(&how, sizeof how);
    how.steps = 8;
    how.seed = 3;
    how.alpha_0 = 0.7;
    how.ignore_eos = 1;
    return how;
}

/* Everything that computes, with one text as the result. */
struct outcome {
    uint32_t tokens[LENGTH], joined[LENGTH];
    double log_p[LENGTH], nll;
    /* The first ones at some position. */
    float logits[16], probabilities[16];
};

/* The text of a sequence that joins, and what is evaluated of it before. */
static void compute_joined(esolm_context *context, struct outcome *outcome)
{
    static float row[VOCABULARY];
    esolm_generate_params how = params();
    const uint32_t position = LENGTH - 1;
    uint32_t sequence = 0;
    int32_t done = 0;
    size_t n = 0;
    STATUS(ESOLM_OK, esolm_context_reset(context));
    STATUS(ESOLM_OK, esolm_sequence_add(context, NULL, &how, &sequence));
    STATUS(ESOLM_OK, esolm_evaluate_logits(context, sequence, &position, 1, row, VOCABULARY, &n));
    memcpy(outcome->logits, row, sizeof outcome->logits);
    STATUS(ESOLM_OK, esolm_evaluate_probabilities(context, sequence, &position, 1, row, VOCABULARY, &n));
    memcpy(outcome->probabilities, row, sizeof outcome->probabilities);
    while (!done && !failed)
        STATUS(ESOLM_OK, esolm_step(context, NULL, &done));
    STATUS(ESOLM_OK, esolm_copy_tokens(context, sequence, outcome->joined, LENGTH, &n));
}

static void compute(size_t threads, int32_t kernels, struct outcome *outcome)
{
    esolm_generate_params how = params();
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_text_score score = {.struct_size = sizeof score};
    size_t n = 0;
    esolm_context *context = new_context(threads, kernels);
    STATUS(ESOLM_OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, outcome->tokens, LENGTH, &n));
    STATUS(ESOLM_OK, esolm_score_order(context, outcome->tokens, NULL, LENGTH, 0, outcome->log_p, LENGTH));
    STATUS(ESOLM_OK, esolm_score_text(context, outcome->tokens, LENGTH, NULL, NULL, 0, &score, NULL, NULL));
    outcome->nll = score.nll;
    compute_joined(context, outcome);
    esolm_context_free(context);
}

static void rounding(void)
{
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    static struct outcome plain, strange;
    compute(1, ESOLM_KERNELS_OWN, &plain);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        for (size_t threads = 1; threads <= 2; threads++) {
            fesetround(modes[i]);
            memset(&strange, 0, sizeof strange);
            compute(threads, ESOLM_KERNELS_OWN, &strange);
            CHECK(fegetround() == modes[i]);
            fesetround(FE_TONEAREST);
            CHECK(!memcmp(&plain, &strange, sizeof plain));
        }
    struct outcome of_ggml;
    compute(2, ESOLM_KERNELS_GGML, &of_ggml);
    fesetround(FE_UPWARD);
    compute(2, ESOLM_KERNELS_GGML, &strange);
    fesetround(FE_TONEAREST);
    CHECK(!memcmp(&of_ggml, &strange, sizeof strange));
}

#ifdef __x86_64__
#include <xmmintrin.h>

static void flushing_to_zero(void)
{
    static struct outcome plain, strange;
    unsigned before = _mm_getcsr();
    compute(2, ESOLM_KERNELS_OWN, &plain);
    _mm_setcsr(before | 0x8040);
    compute(2, ESOLM_KERNELS_OWN, &strange);
    CHECK((_mm_getcsr() & 0x8040) == 0x8040);
    _mm_setcsr(before);
    CHECK(!memcmp(&plain, &strange, sizeof plain));
}
#endif

/* Has a child run `work` and returns its exit code, or -1 if it does not end within 20 seconds or by a signal. */
static int in_child(int (*work)(esolm_context *), esolm_context *context)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(work(context));
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int step_and_free(esolm_context *context)
{
    int32_t done;
    esolm_status status = esolm_step(context, NULL, &done);
    esolm_context_free(context);
    return status;
}

static esolm_pool *pool;

static esolm_context *pool_context(void)
{
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .pool = pool};
    esolm_context *context = NULL;
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &context));
    return context;
}

/* A pool of the parent's: a context that was made on it, another one, and freeing all of them. */
static int use_pool_and_free(esolm_context *context)
{
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .pool = pool};
    esolm_context *other = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    int status = step_and_free(context);
    if (esolm_context_new(model, &limits, &other) == ESOLM_OK)
        status |= esolm_generate(other, &prompt, 1, NULL, NULL, NULL);
    esolm_context_free(other);
    esolm_pool_free(pool);
    return status;
}

static int new_one(esolm_context *unused)
{
    (void)unused;
    struct outcome outcome;
    failed = 0;
    compute(2, ESOLM_KERNELS_OWN, &outcome);
    return failed;
}

static void forked(void)
{
    static const int32_t kernels[] = {ESOLM_KERNELS_OWN, ESOLM_KERNELS_GGML};
    esolm_generate_params how = params();
    esolm_prompt prompt = {NULL, NULL, 0};
    int32_t done;
    for (int i = 0; i < 2; i++) {
        esolm_context *context = new_context(3, kernels[i]);
        STATUS(ESOLM_OK, esolm_begin(context, &prompt, 1, &how));
        STATUS(ESOLM_OK, esolm_step(context, NULL, &done));
        CHECK(in_child(step_and_free, context) == ESOLM_ERR_UNSUPPORTED);
        /* The parent is not disturbed. */
        STATUS(ESOLM_OK, esolm_step(context, NULL, &done));
        esolm_context_free(context);
    }
    esolm_pool_params two;
    STATUS(ESOLM_OK, esolm_pool_params_init(&two, sizeof two));
    two.threads = 2;
    STATUS(ESOLM_OK, esolm_pool_new(&two, &pool));
    esolm_context *shared = pool_context();
    STATUS(ESOLM_OK, esolm_begin(shared, &prompt, 1, &how));
    STATUS(ESOLM_OK, esolm_step(shared, NULL, &done));
    CHECK(in_child(use_pool_and_free, shared) == ESOLM_ERR_UNSUPPORTED);
    STATUS(ESOLM_OK, esolm_step(shared, NULL, &done));
    esolm_context_free(shared);
    esolm_pool_free(pool);
    /* Without threads of its own a context works on. */
    esolm_context *single = new_context(1, ESOLM_KERNELS_OWN);
    STATUS(ESOLM_OK, esolm_begin(single, &prompt, 1, &how));
    CHECK(in_child(step_and_free, single) == ESOLM_OK);
    esolm_context_free(single);
    CHECK(in_child(new_one, NULL) == 0);
}

static char logged[256];

static void on_log(int32_t level, const char *message, void *user_data)
{
    (void)user_data;
    if (level <= ESOLM_LOG_WARN)
        snprintf(logged, sizeof logged, "%s", message);
}

static void threads_that_do_not_start(void)
{
    static struct outcome plain, few;
    compute(1, ESOLM_KERNELS_OWN, &plain);
    esolm_set_log_callback(on_log, NULL);
    for (int given = 0; given < 3; given++)
        for (int kind = 0; kind < 2; kind++) {
            /* ggml's threads wait by spinning: no more of them than cores. */
            if (kind && given > 1)
                continue;
            logged[0] = 0;
            atomic_store(&most_threads, given);
            compute(4, kind ? ESOLM_KERNELS_GGML : ESOLM_KERNELS_OWN, &few);
            atomic_store(&most_threads, 1000);
            CHECK(atomic_load(&live_threads) == 0);
            CHECK(strstr(logged, "of 4 threads could be started"));
            CHECK(kind || !memcmp(&plain, &few, sizeof plain));
        }
    esolm_pool_params four;
    STATUS(ESOLM_OK, esolm_pool_params_init(&four, sizeof four));
    four.threads = 4;
    atomic_store(&most_threads, 1);
    STATUS(ESOLM_OK, esolm_pool_new(&four, &pool));
    CHECK(esolm_pool_threads(pool) == 2);
    esolm_context *context = pool_context();
    compute_joined(context, &few);
    CHECK(!memcmp(plain.joined, few.joined, sizeof plain.joined));
    esolm_context_free(context);
    esolm_pool_free(pool);
    atomic_store(&most_threads, 1000);
    CHECK(atomic_load(&live_threads) == 0);
    esolm_set_log_callback(NULL, NULL);
}

/* Grammars that are deeply nested, and one that is written to. A build may lack them. */
static void grammars(void)
{
    static char nested[1 << 14], schema[1 << 14];
    const char *const regexes[] = {"[a-z ]{1,40}", nested}, *const schemas[] = {"{\"type\": \"boolean\"}", schema};
    memset(nested, '(', 4000);
    memset(nested + 4000, ')', 4000);
    for (int i = 0; i < 100; i++)
        strcat(schema, "{\"items\":");
    strcat(schema, "{}");
    for (int i = 0; i < 100; i++)
        strcat(schema, "}");
    for (int i = 0; i < 4; i++) {
        esolm_constraints rules = {.struct_size = sizeof rules};
        const esolm_constraints *const all = &rules;
        esolm_generate_params how;
        esolm_prompt prompt = {NULL, NULL, 0};
        esolm_context *context = new_context(1, ESOLM_KERNELS_OWN);
        esolm_generate_params_init(&how, sizeof how);
        how.constraints = &all, how.n_constraints = 1;
        *(i < 2 ? &rules.regex : &rules.json_schema) = i < 2 ? regexes[i] : schemas[i - 2];
        /* What is written is not looked at here; a pattern may well be refused, or allow less than the length. */
        esolm_status status = esolm_generate(context, &prompt, 1, &how, NULL, NULL);
        CHECK(status == ESOLM_OK || status == ESOLM_ERR_INVALID_ARGUMENT || status == ESOLM_ERR_UNSUPPORTED);
        esolm_context_free(context);
    }
}

/* Every kind of call. */
static void *all_calls(void *unused)
{
    (void)unused;
    static char state[1 << 22], text[4096];
    esolm_generate_params how = params();
    esolm_model_params open = {.struct_size = sizeof open, .mode = ESOLM_MODE_COPY};
    esolm_model *copy = NULL, *nothing = NULL;
    esolm_prompt none = {NULL, NULL, 0};
    uint32_t words[LENGTH];
    double log_p[LENGTH];
    size_t n = 0, size = 0;
    STATUS(ESOLM_OK, esolm_model_open(path, &open, &copy));
    STATUS(ESOLM_OK, esolm_tokenize(copy, "Once upon a time", 16, words, LENGTH, &n));
    STATUS(ESOLM_OK, esolm_detokenize(copy, words, n, text, sizeof text, &size));
    model = copy;
    for (int32_t kernels = ESOLM_KERNELS_OWN; kernels <= ESOLM_KERNELS_GGML; kernels++) {
        esolm_context *context = new_context(2, kernels);
        esolm_prompt prompt = {words, NULL, n};
        STATUS(ESOLM_OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
        STATUS(ESOLM_OK, esolm_copy_text(context, 0, text, sizeof text, &size));
        STATUS(ESOLM_OK, esolm_state_save(context, state, sizeof state, &size));
        STATUS(ESOLM_OK, esolm_state_restore(context, state, size));
        STATUS(ESOLM_OK, esolm_extend(context, &none, 1, &how));
        STATUS(ESOLM_OK, esolm_score_order(context, words, NULL, n, 0, log_p, LENGTH));
        STATUS(ESOLM_OK, esolm_score_masked(context, words, NULL, n, 0, log_p, LENGTH));
        esolm_context_free(context);
    }
    struct outcome outcome;
    compute(2, ESOLM_KERNELS_OWN, &outcome);
    grammars();
    /* A failing call, with a message. */
    STATUS(ESOLM_ERR_IO, esolm_model_open("/nowhere", NULL, &nothing));
    esolm_model_free(copy);
    return NULL;
}

static void small_stack(void)
{
    esolm_model *before = model;
    pthread_attr_t attributes;
    pthread_t id;
    pthread_attr_init(&attributes);
    CHECK(!pthread_attr_setstacksize(&attributes, 128 << 10));
    CHECK(!__real_pthread_create(&id, &attributes, all_calls, NULL));
    CHECK(!pthread_join(id, NULL));
    pthread_attr_destroy(&attributes);
    model = before;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    path = argv[1];
    STATUS(ESOLM_OK, esolm_model_open(path, NULL, &model));
    rounding();
#ifdef __x86_64__
    flushing_to_zero();
#endif
    forked();
    threads_that_do_not_start();
    small_stack();
    esolm_model_free(model);
    return report();
}
