/* Allocation number N of the library fails, alone or with all that follow: no call hangs, and what cannot be refused is
 * counted: faults MODEL. The linker sends the library's allocations here (--wrap); each case runs in a child process. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a part with more allocations than MOST, some are tried, evenly spread, and the LARGEST. */
enum { LENGTH = 32, MOST = 40, LARGEST = 8, ALL = 1 << 17 };

/* Allocations so far, and the one that fails; 0: none. The size of each is kept where other processes see it. */
static size_t count, failing, *sizes;
/* Whether those behind it fail, too. */
static int for_good;

static int fails(size_t size)
{
    if (++count < ALL && !failing)
        sizes[count] = size;
    return failing && (count == failing || (for_good && count > failing));
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
enum { OPEN, CONTEXT, TOKENIZE, GENERATE, TEXT, STATE, SCORE, RULES, EVALUATE, SEQUENCES, METADATA, DETOKENIZE, POOL,
       REPORTS, DEVICES, ESTIMATE, READER, CHAT, PARTS };
static const char *const part_names[PARTS] = {"open",     "context",    "tokenize", "generate", "text",      "state",
                                              "score",    "rules",      "evaluate", "sequences", "metadata", "detokenize",
                                              "pool",     "reports",    "devices",  "estimate",  "reader",   "chat"};

/* The most cases of a part that may end the process, each allocation being two: alone, and with all behind it. -1: the
 * tokenizer library and ggml's list of devices allocate there for each word and name, and cannot be refused; of a model:
 * names of devices and the model itself; of a context and a pool: what threads and cancelling share; of a chat template: its
 * thread and parser. */
static const int may_end[PARTS] = {[OPEN] = 16,    [CONTEXT] = 6,  [TOKENIZE] = -1, [POOL] = 6, [DEVICES] = -1,
                                   [ESTIMATE] = 8, [READER] = 16, [CHAT] = 40};

static int refused;

static void note(esolm_status status)
{
    /* A failing tokenizer may give its own error. */
    if (status)
        refused = status == ESOLM_ERR_OUT_OF_MEMORY ? 1 : 2;
}

static esolm_model *model;
static esolm_context *context;
static uint32_t words[LENGTH], tokens[LENGTH];
static size_t n, size;

/* Rules of every kind but a grammar, and everything that a step can report. */
static void rules(esolm_generate_params how)
{
    static const uint32_t all[] = {5, 6, 7};
    static const char *const ends[] = {"dragon", "\n\n"};
    const esolm_allowed_tokens allowed[] = {{20, 0, all, 3}, {21, 0, all, 2}};
    const esolm_logit_bias bias[] = {{9, 1.0f}};
    const esolm_constraints with = {.struct_size = sizeof with, .allowed = allowed, .n_allowed = 2, .banned = all + 2,
                                    .n_banned = 1, .bias = bias, .n_bias = 1, .repetition_penalty = 1.1f, .dry_multiplier = 0.5f,
                                    .dry_breakers = all, .n_dry_breakers = 2};
    const esolm_constraints *const of_all = &with;
    esolm_prompt prompt = {words, NULL, n};
    esolm_step_info info = {.struct_size = sizeof info};
    esolm_token_log_prob top[4];
    int32_t done = 0;
    size_t written = 0;
    how.constraints = &of_all, how.n_constraints = 1;
    how.stop_strings = ends, how.n_stop_strings = 2;
    how.stop_tokens = all, how.n_stop_tokens = 1;
    how.step_text = 1, how.top_log_probs = 4;
    note(esolm_begin(context, &prompt, 1, &how));
    for (int step = 0; step < 3 && !refused; step++)
        note(esolm_step(context, &info, &done));
    if (!refused && !done)
        note(esolm_copy_top_log_probs(context, 0, top, 4, &written));
}

static void evaluate(void)
{
    static float logits[1 << 16];
    const uint32_t position = LENGTH - 1;
    esolm_prompt prompt = {words, NULL, 4};
    note(esolm_begin(context, &prompt, 1, NULL));
    if (refused)
        return;
    note(esolm_evaluate_logits(context, 0, &position, 1, logits, 1 << 16, &size));
    note(esolm_evaluate_probabilities(context, 0, &position, 1, logits, 1 << 16, &size));
}

static void sequences(void)
{
    esolm_prompt prompt = {words, NULL, 4}, nothing = {NULL, NULL, 0};
    uint32_t sequence = 0;
    int32_t done = 0;
    note(esolm_context_reset(context));
    note(esolm_sequence_add(context, &prompt, NULL, &sequence));
    if (refused)
        return;
    note(esolm_step(context, NULL, &done));
    note(esolm_sequence_cached_tokens(context, sequence, &size));
    note(esolm_sequence_append(context, sequence, 2, &prompt, NULL));
    note(esolm_sequence_extend(context, sequence, &nothing, NULL));
    static unsigned char state[1 << 20];
    const esolm_status saved = esolm_sequence_save(context, sequence, state, sizeof state, &size);
    note(saved);
    note(esolm_sequence_remove(context, sequence));
    if (saved)
        return;
    const esolm_status restored = esolm_sequence_restore(context, state, size, &sequence);
    note(restored);
    if (!restored)
        note(esolm_sequence_remove(context, sequence));
}

static void metadata(void)
{
    static char text[1 << 22];
    size_t keys = 0;
    note(esolm_model_metadata_count(model, &keys));
    for (size_t key = 0; key < keys; key++) {
        char name[256];
        note(esolm_model_metadata_key(model, key, name, sizeof name, &size));
        note(esolm_model_metadata_get(model, name, text, sizeof text, &size));
    }
}

/* The first use of the tokenizer. */
static void tokenize(void)
{
    uint32_t positions[LENGTH];
    size_t length = 0, known = 0;
    note(esolm_tokenize_template(model, "Once {{mask 3}} time", 20, tokens, positions, LENGTH, &known, &length));
    note(esolm_tokenize(model, "Once upon a time", 16, words, LENGTH, &n));
}

static void detokenize(void)
{
    char text[256];
    uint8_t bytes[64];
    note(esolm_token_bytes(model, words[0], bytes, sizeof bytes, &size));
    note(esolm_detokenize(model, words, n, text, sizeof text, &size));
}

static void pool(esolm_context_params limits)
{
    esolm_pool_params params;
    esolm_pool *made = NULL;
    esolm_context *user = NULL;
    note(esolm_pool_params_init(&params, sizeof params));
    params.threads = 1;
    note(esolm_pool_new(&params, &made));
    limits.pool = made, limits.threads = 0;
    if (made)
        note(esolm_context_new(model, &limits, &user));
    esolm_context_free(user);
    esolm_pool_free(made);
}

/* What is told of a model and a context. */
static void reports(esolm_context_params limits)
{
    esolm_memory_use use = {.struct_size = sizeof use};
    esolm_model_info info = {.struct_size = sizeof info};
    esolm_profile profile = {.struct_size = sizeof profile};
    int32_t reason = 0;
    /* There is a text again. */
    esolm_prompt prompt = {words, NULL, 4};
    note(esolm_begin(context, &prompt, 1, NULL));
    if (refused)
        return;
    note(esolm_model_info_get(model, &info));
    esolm_model_supports(model, ESOLM_FEATURE_LOOKAHEAD);
    note(esolm_context_memory_use(model, &limits, &use));
    note(esolm_context_arena_size(model, &limits, &size));
    note(esolm_context_profile(context, &profile));
    note(esolm_stop_reason(context, 0, &reason));
    note(esolm_copy_order(context, 0, tokens, LENGTH, &size));
}

static void devices(void)
{
    esolm_device_info device = {.struct_size = sizeof device};
    if (!esolm_system_info()[0])
        refused = 1;
    note(esolm_device_count(&size));
    note(esolm_device_info_get(0, &device));
}

static int64_t from_file(uint64_t offset, void *to, size_t len, void *file)
{
    return pread(*(int *)file, to, len, (off_t)offset);
}

static void reader(const char *path)
{
    int file = open(path, O_RDONLY);
    off_t end = lseek(file, 0, SEEK_END);
    esolm_model *read = NULL;
    esolm_model_reader from = {.struct_size = sizeof from, .size = (uint64_t)end, .read = from_file, .user_data = &file};
    note(esolm_model_open_reader(&from, NULL, &read));
    esolm_model_free(read);
    close(file);
}

/* Nothing in a build without chat templates. */
static void chat(void)
{
    static char text[1 << 12];
    const esolm_message messages[] = {{"system", "Be short."}, {"user", "Who was she?"}, {"assistant", "A princess."},
                                      {"user", "And he?"},     {"assistant", "A dragon."}, {"user", "Were they happy?"}};
    esolm_chat_params how;
    note(esolm_chat_params_init(&how, sizeof how));
    how.chat_template = "chatml";
    esolm_status status = esolm_chat_apply(model, messages, sizeof messages / sizeof *messages, &how, text, sizeof text, &size);
    if (status == ESOLM_ERR_UNSUPPORTED)
        return;
    note(status);
    if (!refused)
        note(esolm_chat_answer_end(model, &how, text, sizeof text, &size));
}

/* Runs the parts up to `last`; `ends[part]` is the number of allocations by the end of each. */
static void run(const char *path, int last, size_t *ends)
{
    static char state[1 << 20], text[1 << 12];
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .threads = 1};
    esolm_generate_params how;
    esolm_text_score score = {.struct_size = sizeof score};
    esolm_prompt prompt = {words, NULL, 0};
    for (int part = 0; part <= last && !refused; part++) {
        switch (part) {
        case OPEN: note(esolm_model_open(path, NULL, &model)); break;
        case CONTEXT: note(esolm_context_new(model, &limits, &context)); break;
        case TOKENIZE:
            tokenize();
            prompt.count = n;
            break;
        case GENERATE:
            esolm_generate_params_init(&how, sizeof how);
            how.ignore_eos = 1;
            note(esolm_generate(context, &prompt, 1, &how, NULL, NULL));
            break;
        case TEXT:
            note(esolm_copy_text(context, 0, text, sizeof text, &size));
            note(esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
            n = prompt.count;
            break;
        case STATE:
            size = 0;
            note(esolm_state_save(context, state, sizeof state, &size));
            if (!refused)
                note(esolm_state_restore(context, state, size));
            break;
        case SCORE: note(esolm_score_text(context, words, 4, NULL, NULL, 0, &score, NULL, NULL)); break;
        case RULES: rules(how); break;
        case EVALUATE: evaluate(); break;
        case SEQUENCES: sequences(); break;
        case METADATA: metadata(); break;
        case DETOKENIZE: detokenize(); break;
        case POOL: pool(limits); break;
        case REPORTS: reports(limits); break;
        case DEVICES: devices(); break;
        case ESTIMATE: {
            esolm_memory_use use = {.struct_size = sizeof use};
            note(esolm_memory_estimate(path, NULL, &limits, &use));
            break;
        }
        case READER: reader(path); break;
        default: chat(); break;
        }
        ends[part] = count;
    }
    esolm_context_free(context);
    esolm_model_free(model);
}

enum { WORKED, REFUSED, ENDED, HUNG, OUTCOMES };

/* In a child, so that each run is a process's first. */
static int outcome_of(const char *path, int last, size_t number, size_t *ends)
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
        run(path, last, ends);
        _exit(refused != 0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) < 2)
        return WEXITSTATUS(status) ? REFUSED : WORKED;
    return WIFSIGNALED(status) && WTERMSIG(status) == 14 /* SIGALRM */ ? HUNG : ENDED;
}

static size_t counts[PARTS][OUTCOMES], largest[PARTS], unused[PARTS];

/* Has allocation `number` fail in `part` and counts what happens. */
static void try_one(const char *path, int part, size_t number)
{
    int outcome = outcome_of(path, part, number, unused);
    counts[part][outcome]++;
    if (outcome == ENDED && sizes[number] > largest[part])
        largest[part] = sizes[number];
    if (outcome == ENDED && getenv("FAULTS_SHOW"))
        printf("%s: %zu%s\n", part_names[part], number, for_good ? " and all behind it" : "");
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
    if (argc != 2)
        return 2;
    size_t *ends = mmap(NULL, PARTS * sizeof *ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sizes = mmap(NULL, ALL * sizeof *sizes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ends == MAP_FAILED || sizes == MAP_FAILED)
        return 2;
    /* No debugger at each end. */
    setenv("GGML_NO_BACKTRACE", "1", 1);
    CHECK(outcome_of(argv[1], PARTS - 1, 0, ends) == WORKED);
    CHECK(ends[GENERATE] == ends[TOKENIZE]);
    CHECK(ends[PARTS - 1] < ALL);
    for (int part = 0; part < PARTS; part++) {
        const size_t before = part ? ends[part - 1] : 0, all = ends[part] - before;
        for (for_good = 0; for_good < 2; for_good++)
            for (size_t number = before + 1; number <= ends[part]; number += all / MOST + 1)
                try_one(argv[1], part, number);
        for (int i = 0; i < LARGEST && all > MOST; i++) {
            size_t number = largest_of(before + 1, ends[part]);
            for_good = 0;
            try_one(argv[1], part, number);
            sizes[number] = 0;
        }
    }
    for (int part = 0; part < PARTS; part++) {
        const size_t *all = counts[part];
        printf("%-10s %5zu refused, %4zu without effect, %4zu ended the process (of at most %zu bytes)\n", part_names[part],
               all[REFUSED], all[WORKED], all[ENDED], largest[part]);
        CHECK(all[HUNG] == 0);
        CHECK(may_end[part] < 0 || all[ENDED] <= (size_t)may_end[part]);
    }
    return report();
}
