/* Readers, file descriptors, locked and prefetched weights, log levels, features, system information: api_loading MODEL. */
#include "api.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned char *bytes;
static size_t size;
static uint32_t expected[LENGTH];
static char logged[4096];
static int messages[5];

static void on_log(int32_t level, const char *message, void *user_data)
{
    (void)user_data;
    messages[level]++;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "%s\n", message);
}

static void writes_the_same(const esolm_model *other)
{
    uint32_t found[LENGTH];
    run_briefly(other, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
}

/* What a reader has, and what was asked of it. */
struct source {
    size_t size;
    int64_t answer; /* instead of the bytes, if not 0 */
    uint64_t next;
    int reads, closes;
};

static int64_t read_some(uint64_t offset, void *buffer, size_t wanted, void *user_data)
{
    struct source *source = user_data;
    source->reads++;
    if (source->answer)
        return source->answer;
    CHECK(offset == source->next);
    size_t left = source->size - (size_t)offset;
    size_t some = wanted < left ? wanted : left;
    /* Fewer than asked for, and never as many twice. */
    if (some > 70000)
        some = 60000 + (size_t)source->reads;
    memcpy(buffer, bytes + offset, some);
    source->next += some;
    return (int64_t)some;
}

static void close_it(void *user_data) { ((struct source *)user_data)->closes++; }

static int32_t cancel_it(double fraction, void *user_data)
{
    (void)user_data;
    return fraction > 0;
}

static void readers(void)
{
    struct source source = {.size = size};
    esolm_model_reader reader = {.struct_size = sizeof reader, .size = size, .read = read_some, .close = close_it};
    esolm_model_params params;
    esolm_model *opened = NULL;
    reader.user_data = &source;
    reader.name = "the archive";
    STATUS(OK, esolm_model_open_reader(&reader, NULL, &opened));
    CHECK(source.closes == 1 && source.reads > 10 && source.next == size);
    writes_the_same(opened);
    esolm_model_free(opened);

    /* Without a name and without a function that closes. */
    reader.close = NULL;
    reader.name = NULL;
    source = (struct source){.size = size};
    STATUS(OK, esolm_model_open_reader(&reader, NULL, &opened));
    CHECK(source.closes == 0);
    esolm_model_free(opened);

    /* Files that end, fail, say too much, or have nothing; each is closed once. */
    reader.close = close_it;
    reader.name = "the archive";
    const struct {
        struct source source;
        uint64_t size;
        esolm_status status;
        const char *says;
    } cases[] = {
        {{.size = size}, size + 1, ESOLM_ERR_IO, "the archive: it ends at byte"},
        {{.size = size, .answer = -7}, size, ESOLM_ERR_IO, "the reader returned -7"},
        {{.size = size, .answer = INT64_MAX}, size, ESOLM_ERR_IO, "bytes were read at byte 0"},
        {{.size = size}, 0, ESOLM_ERR_BAD_FILE, "the archive: it is empty"},
        {{.size = size}, UINT64_MAX, ESOLM_ERR_BAD_FILE, "address space"},
        {{.size = 1000}, 1000, ESOLM_ERR_BAD_FILE, "the archive"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        source = cases[i].source;
        reader.size = cases[i].size;
        STATUS(cases[i].status, esolm_model_open_reader(&reader, NULL, &opened));
        CHECK(opened == NULL && source.closes == 1);
        last_error_says(cases[i].says);
    }
    reader.size = size;
    source = (struct source){.size = size};
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.progress_callback = cancel_it;
    STATUS(ESOLM_ERR_CANCELLED, esolm_model_open_reader(&reader, &params, &opened));
    CHECK(source.closes == 1);
    STATUS(INVALID, esolm_model_open_reader(&reader, NULL, NULL));
    CHECK(source.closes == 2);
    params.mode = 9;
    STATUS(INVALID, esolm_model_open_reader(&reader, &params, &opened));
    CHECK(source.closes == 3);
    /* A struct that is refused is not used. */
    for (int i = 0; i < 3; i++) {
        opened = (esolm_model *)&source; /* anything */
        reader.read = i == 1 ? NULL : reader.read;
        reader.struct_size = i == 2 ? 0 : sizeof reader;
        STATUS(INVALID, esolm_model_open_reader(i == 0 ? NULL : &reader, NULL, &opened));
        CHECK(opened == NULL);
    }
    CHECK(source.closes == 3);
}

/* A model behind `before` other bytes of a file, and before others. */
static void in_a_file(size_t before)
{
    char path[] = "/tmp/esolm-loading-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    FILE *file = fdopen(fd, "w+b");
    for (size_t i = 0; i < before; i++)
        putc('x', file);
    CHECK(fwrite(bytes, 1, size, file) == size);
    CHECK(fwrite("behind it", 1, 9, file) == 9 && fflush(file) == 0);
    for (int32_t mode = ESOLM_MODE_MAP; mode <= ESOLM_MODE_REPACK; mode++) {
        esolm_model_params params;
        esolm_model *opened = NULL;
        STATUS(OK, esolm_model_params_init(&params, sizeof params));
        params.mode = mode;
        int own = dup(fd);
        off_t at = lseek(own, 3, SEEK_SET);
        STATUS(OK, esolm_model_open_fd(own, before, size, &params, &opened));
        CHECK(lseek(own, 0, SEEK_CUR) == at); /* the place in the file is the caller's */
        close(own);
        writes_the_same(opened);
        esolm_model_free(opened);
        STATUS(INVALID, esolm_model_open_fd(fd, before, size + 10, &params, &opened));
        last_error_says("are not in a file of");
        STATUS(INVALID, esolm_model_open_fd(fd, before + size + 10, 0, &params, &opened));
        STATUS(INVALID, esolm_model_open_fd(fd, UINT64_MAX, 2, &params, &opened));
        STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_fd(fd, before + size + 9, 0, &params, &opened));
        last_error_says("is empty");
        CHECK(opened == NULL);
    }
    fclose(file);
}

static void descriptors(const char *path)
{
    esolm_model *opened = NULL;
    int fd = open(path, O_RDONLY), pipes[2];
    STATUS(OK, esolm_model_open_fd(fd, 0, 0, NULL, &opened));
    close(fd);
    writes_the_same(opened);
    esolm_model_free(opened);
    in_a_file(0);
    in_a_file(4096);
    in_a_file(13); /* so that nothing is aligned */
    STATUS(INVALID, esolm_model_open_fd(-1, 0, 0, NULL, &opened));
    STATUS(ESOLM_ERR_IO, esolm_model_open_fd(1000, 0, 0, NULL, &opened));
    CHECK(pipe(pipes) == 0);
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_fd(pipes[0], 0, 0, NULL, &opened));
    close(pipes[0]);
    close(pipes[1]);
    fd = open(path, O_RDONLY);
    STATUS(INVALID, esolm_model_open_fd(fd, 0, 0, NULL, NULL));
    close(fd);
}

static int fractions;

static int32_t count_fractions(double fraction, void *user_data)
{
    double *last = user_data;
    CHECK(fraction >= *last && fraction <= 1);
    *last = fraction;
    fractions++;
    return 0;
}

/* Locked and prefetched, where the system allows nothing to be locked. */
static int without_locking(void)
{
    struct rlimit none = {0, 0};
    esolm_model *opened = NULL;
    esolm_model_params params;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.use_mlock = 1;
    /* The limit does not hold for root. */
    if (setrlimit(RLIMIT_MEMLOCK, &none) || (getuid() == 0 && setuid(65534)))
        return report();
    logged[0] = 0;
    STATUS(OK, esolm_model_open_memory(bytes, size, &params, &opened));
    CHECK(strstr(logged, "could not be locked") && strstr(logged, "RLIMIT_MEMLOCK is 0 bytes"));
    CHECK(messages[ESOLM_LOG_WARN] == 1);
    writes_the_same(opened);
    esolm_model_free(opened);
    return report();
}

static void locking(const char *path)
{
    esolm_model_params params;
    esolm_model *opened = NULL;
    double last = 0;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    CHECK(params.use_mlock == 0 && params.prefetch == 0);
    params.use_mlock = params.prefetch = 1;
    params.progress_callback = count_fractions;
    params.progress_user_data = &last;
    STATUS(OK, esolm_model_open(path, &params, &opened));
    CHECK(last == 1 && fractions >= 2);
    writes_the_same(opened);
    esolm_model_free(opened);
    params.progress_callback = cancel_it;
    STATUS(ESOLM_ERR_CANCELLED, esolm_model_open(path, &params, &opened));
    params.use_mlock = 2;
    STATUS(INVALID, esolm_model_open(path, &params, &opened));
    last_error_says("use_mlock is 2");

#ifdef __SANITIZE_ADDRESS__
    /* The sanitizer locks no memory, and says that it did. */
    (void)without_locking;
#else
    esolm_set_log_callback(on_log, NULL);
    memset(messages, 0, sizeof messages);
    pid_t child = fork();
    if (child == 0)
        _exit(without_locking());
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    esolm_set_log_callback(NULL, NULL);
#endif
}

static void log_levels(const char *path)
{
    const struct {
        int32_t level;
        int infos, debugs;
    } cases[] = {{ESOLM_LOG_WARN, 0, 0}, {ESOLM_LOG_DEBUG, 2, 1}, {ESOLM_LOG_INFO, 2, 0}};
    esolm_set_log_callback(on_log, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        esolm_model *opened = NULL;
        esolm_context *context = NULL;
        esolm_context_params params = limits();
        memset(messages, 0, sizeof messages);
        logged[0] = 0;
        STATUS(OK, esolm_set_log_level(cases[i].level));
        STATUS(OK, esolm_model_open(path, NULL, &opened));
        STATUS(OK, esolm_context_new(opened, &params, &context));
        CHECK(messages[ESOLM_LOG_INFO] == cases[i].infos && messages[ESOLM_LOG_DEBUG] == cases[i].debugs);
        if (cases[i].infos) {
            CHECK(strstr(logged, path) && strstr(logged, "mapped") && strstr(logged, "variant"));
            CHECK(strstr(logged, "3 x 32 tokens") && strstr(logged, "kernels") && strstr(logged, "1 threads"));
        }
        esolm_context_free(context);
        esolm_model_free(opened);
    }
    STATUS(INVALID, esolm_set_log_level(0));
    STATUS(INVALID, esolm_set_log_level(5));
    esolm_set_log_callback(NULL, NULL);
}

static void features(void)
{
    /* An Eso-LM (B) with a tokenizer has all but, perhaps, grammars; this one no chat template. */
    for (int32_t feature = ESOLM_FEATURE_DIFFUSION; feature <= ESOLM_FEATURE_LOOKAHEAD; feature++)
        CHECK(esolm_model_supports(model, feature) == 1 || feature == ESOLM_FEATURE_GRAMMAR);
    CHECK(esolm_model_supports(model, ESOLM_FEATURE_CHAT) == 0);
    for (int32_t feature = -1; feature < 100; feature++)
        CHECK(esolm_model_supports(NULL, feature) == 0);
    CHECK(esolm_model_supports(model, 0) == 0 && esolm_model_supports(model, 1000) == 0);
    /* What it says of grammars is so. */
    const esolm_constraints rules = {.struct_size = sizeof rules, .regex = "[a-z ]+"}, *all[] = {&rules};
    esolm_generate_params how = small_params();
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_context *context = new_context();
    how.alpha_0 = 0;
    how.steps = 0;
    how.constraints = all;
    how.n_constraints = 1;
    STATUS(esolm_model_supports(model, ESOLM_FEATURE_GRAMMAR) ? OK : ESOLM_ERR_UNSUPPORTED,
           esolm_begin(context, &prompt, 1, &how));
    esolm_context_free(context);

    const char *line = esolm_system_info();
    CHECK(line == esolm_system_info() && strstr(line, esolm_version()) && strstr(line, "kernels = "));
    CHECK(strstr(line, "features: ") && !strstr(line, "grammar") == !esolm_model_supports(model, ESOLM_FEATURE_GRAMMAR));
    CHECK(strstr(line, "threads = ") && strstr(line, "ggml 0.") && !strchr(line, '\n'));
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    size = info.file_bytes;
    bytes = malloc(size);
    FILE *file = fopen(argv[1], "rb");
    if (!file || !bytes || fread(bytes, 1, size, file) != size)
        return 2;
    fclose(file);
    run_briefly(model, expected);
    readers();
    descriptors(argv[1]);
    locking(argv[1]);
    log_levels(argv[1]);
    features();
    esolm_model_free(model);
    free(bytes);
    return report();
}
