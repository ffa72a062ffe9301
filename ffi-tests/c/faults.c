/* Allocation number N of the library fails: no call hangs, and what cannot be refused is counted: faults MODEL.
 * The linker sends the library's allocations here (--wrap); each case runs in a child process. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "check.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a part with more allocations than MOST, some are tried, evenly spread, and the LARGEST. */
enum { LENGTH = 32, MOST = 40, LARGEST = 8, ALL = 1 << 17 };

/* Allocations so far, and the one that fails; 0: none. The size of each is kept where other processes see it. */
static size_t count, failing, *sizes;

static int fails(size_t size)
{
    if (++count < ALL && !failing)
        sizes[count] = size;
    return count == failing;
}

void *__real_malloc(size_t);
void *__wrap_malloc(size_t size)
{
    return fails(size) ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t, size_t);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails(n * size) ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *, size_t);
void *__wrap_realloc(void *old, size_t size)
{
    return fails(size) ? NULL : __real_realloc(old, size);
}

int __real_posix_memalign(void **, size_t, size_t);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    return fails(size) ? 12 /* ENOMEM */ : __real_posix_memalign(out, alignment, size);
}

/* What a program does with a model, in parts. */
enum { OPEN, CONTEXT, TOKENIZE, GENERATE, TEXT, STATE, SCORE, PARTS };
static const char *const part_names[PARTS] = {"open", "context", "tokenize", "generate", "text", "state", "score"};

static int refused;

static void note(esolm_status status)
{
    /* A failing tokenizer may give its own error. */
    if (status)
        refused = status == ESOLM_ERR_OUT_OF_MEMORY ? 1 : 2;
}

/* Runs everything; `ends[part]` is the number of allocations by the end of the part. */
static void run(const char *path, size_t *ends)
{
    static char state[1 << 20], text[1 << 12];
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .threads = 1};
    esolm_generate_params how;
    esolm_text_score score = {.struct_size = sizeof score};
    uint32_t words[LENGTH], tokens[LENGTH];
    size_t n = 0, size = 0;
    note(esolm_model_open(path, NULL, &model));
    ends[OPEN] = count;
    if (!model)
        return;
    note(esolm_context_new(model, &limits, &context));
    ends[CONTEXT] = count;
    note(esolm_tokenize(model, "Once upon a time", 16, words, LENGTH, &n));
    ends[TOKENIZE] = count;
    if (context) {
        esolm_prompt prompt = {words, NULL, n};
        esolm_generate_params_init(&how, sizeof how);
        note(esolm_generate(context, &prompt, 1, &how, NULL, NULL));
        ends[GENERATE] = count;
        note(esolm_copy_text(context, 0, text, sizeof text, &size));
        note(esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
        ends[TEXT] = count;
        note(esolm_state_save(context, state, sizeof state, &size));
        if (size)
            note(esolm_state_restore(context, state, size));
        ends[STATE] = count;
        note(esolm_score_text(context, words, 4, NULL, NULL, 0, &score, NULL, NULL));
        ends[SCORE] = count;
    }
    esolm_context_free(context);
    esolm_model_free(model);
}

enum { WORKED, REFUSED, ENDED, HUNG, OUTCOMES };

/* The most cases that may end the process. -1: the readers of metadata and JSON, the tokenizer library and ggml allocate
 * there for each name, token and word, and cannot be refused; of a context: what threads and cancelling share. */
static const int may_end[PARTS] = {-1, 5, -1, 0, -1, 0, 0};

/* In a child, so that each run is a process's first. */
static int outcome_of(const char *path, size_t number, size_t *ends)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        /* What Rust says before it aborts. */
        if (!freopen("/dev/null", "w", stderr))
            _exit(3);
        alarm(20);
        count = 0, failing = number, refused = 0;
        run(path, ends);
        _exit(refused != 0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) < 2)
        return WEXITSTATUS(status) ? REFUSED : WORKED;
    return WIFSIGNALED(status) && WTERMSIG(status) == 14 /* SIGALRM */ ? HUNG : ENDED;
}

/* Has allocation `number` fail and counts what happens. */
static void try_one(const char *path, size_t number, size_t *counts, size_t *largest, size_t *unused)
{
    int outcome = outcome_of(path, number, unused);
    counts[outcome]++;
    if (outcome == ENDED && sizes[number] > *largest)
        *largest = sizes[number];
}

/* The number of the largest allocation of those from `from` to `to`. */
static size_t largest_of(size_t from, size_t to)
{
    size_t found = from;
    for (size_t number = from; number <= to; number++)
        if (sizes[number] > sizes[found])
            found = number;
    return found;
}

int main(int argc, char **argv)
{
    static size_t counts[PARTS][OUTCOMES], largest[PARTS], unused[PARTS];
    size_t from = 1;
    if (argc != 2)
        return 2;
    size_t *ends = mmap(NULL, PARTS * sizeof *ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sizes = mmap(NULL, ALL * sizeof *sizes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ends == MAP_FAILED || sizes == MAP_FAILED)
        return 2;
    /* No debugger at each end. */
    setenv("GGML_NO_BACKTRACE", "1", 1);
    CHECK(outcome_of(argv[1], 0, ends) == WORKED);
    CHECK(ends[GENERATE] == ends[TOKENIZE]);
    CHECK(ends[SCORE] < ALL);
    for (int part = 0; part < PARTS; from = ends[part++] + 1) {
        for (size_t number = from; number <= ends[part]; number += (ends[part] - from) / MOST + 1)
            try_one(argv[1], number, counts[part], &largest[part], unused);
        if (ends[part] - from < MOST)
            continue;
        for (int i = 0; i < LARGEST; i++) {
            size_t number = largest_of(from, ends[part]);
            try_one(argv[1], number, counts[part], &largest[part], unused);
            sizes[number] = 0;
        }
    }
    for (int part = 0; part < PARTS; part++) {
        const size_t *all = counts[part];
        printf("%-9s %5zu refused, %4zu without effect, %4zu ended the process (of at most %zu bytes)\n", part_names[part],
               all[REFUSED], all[WORKED], all[ENDED], largest[part]);
        CHECK(all[HUNG] == 0);
        CHECK(may_end[part] < 0 || all[ENDED] <= (size_t)may_end[part]);
    }
    return report();
}
