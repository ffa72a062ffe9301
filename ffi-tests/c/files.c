/* What may happen to a model's file: it cannot be mapped, and it is renamed, replaced, removed, scribbled over and truncated
 * while a model uses it: files MODEL. The linker sends the library's mmap64 here (--wrap). */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "check.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LENGTH = 48 };

static char *bytes, path[64], other[80], text_before[4096];
static long size;

/* The error of mapping a file, and of mapping memory; 0: none. */
static int file_error, memory_error;

void *__real_mmap64(void *, size_t, int, int, int, off_t);
void *__wrap_mmap64(void *at, size_t length, int access, int flags, int file, off_t offset)
{
    int error = file >= 0 ? file_error : memory_error;
    if (!error)
        return __real_mmap64(at, length, access, flags, file, offset);
    errno = error;
    return MAP_FAILED;
}

static void write_to(const char *name, const char *from, long length)
{
    FILE *file = fopen(name, "wb");
    CHECK(file && fwrite(from, 1, (size_t)length, file) == (size_t)length && !fclose(file));
}

static esolm_status open_model(int32_t mode, esolm_model **model)
{
    esolm_model_params how = {.struct_size = sizeof how, .device = "cpu", .mode = mode};
    *model = NULL;
    return esolm_model_open(path, &how, model);
}

/* Writes the text of one seed. */
static esolm_status write_text(esolm_model *model, char *text, size_t capacity)
{
    esolm_context_params limits = {.struct_size = sizeof limits, .length = LENGTH, .threads = 1};
    esolm_generate_params how;
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_context *context = NULL;
    uint32_t tokens[64];
    size_t n = 0;
    esolm_generate_params_init(&how, sizeof how);
    how.seed = 7;
    esolm_status status = esolm_tokenize(model, "Once upon a time", 16, tokens, 64, &n);
    if (!status) {
        prompt.tokens = tokens, prompt.count = n;
        status = esolm_context_new(model, &limits, &context);
    }
    if (!status)
        status = esolm_generate(context, &prompt, 1, &how, NULL, NULL);
    if (!status)
        status = esolm_copy_text(context, 0, text, capacity, &n);
    esolm_context_free(context);
    return status;
}

static int writes_the_same(esolm_model *model)
{
    char text[4096] = "";
    STATUS(ESOLM_OK, write_text(model, text, sizeof text));
    return !strcmp(text, text_before);
}

static void on_log(int32_t level, const char *message, void *count)
{
    (void)level;
    *(int *)count += strstr(message, "cannot map files") != NULL;
}

static void not_mapped(void)
{
    esolm_model *model;
    int notes = 0;
    write_to(path, bytes, size);
    file_error = ENODEV;
    esolm_set_log_callback(on_log, &notes);
    STATUS(ESOLM_OK, open_model(ESOLM_MODE_MAP, &model));
    esolm_set_log_callback(NULL, NULL);
    CHECK(notes == 1 && writes_the_same(model));
    file_error = ENOMEM;
    esolm_model *none;
    STATUS(ESOLM_ERR_OUT_OF_MEMORY, open_model(ESOLM_MODE_MAP, &none));
    CHECK(!none && strstr(esolm_last_error(), path));
    file_error = EACCES;
    STATUS(ESOLM_ERR_IO, open_model(ESOLM_MODE_MAP, &none));
    CHECK(!none && strstr(esolm_last_error(), path));
    /* Neither memory for the copy nor for a context. */
    file_error = 0, memory_error = ENOMEM;
    STATUS(ESOLM_ERR_OUT_OF_MEMORY, open_model(ESOLM_MODE_COPY, &none));
    char text[64];
    STATUS(ESOLM_ERR_OUT_OF_MEMORY, write_text(model, text, sizeof text));
    memory_error = 0;
    CHECK(writes_the_same(model));
    esolm_model_free(model);
}

/* Another name, another file of the name, and none: a mapped file goes on, with its old content. */
static void renamed_replaced_removed(void)
{
    esolm_model *model;
    write_to(path, bytes, size);
    STATUS(ESOLM_OK, open_model(ESOLM_MODE_MAP, &model));
    CHECK(!rename(path, other) && writes_the_same(model));
    write_to(path, "another file", 12);
    CHECK(writes_the_same(model));
    CHECK(!rename(path, other) && writes_the_same(model));
    CHECK(!remove(other) && writes_the_same(model));
    esolm_model_free(model);
}

/* Has a child run `work`; returns its exit code, or 128 and the signal that ended it. */
static int in_child(int (*work)(int32_t), int32_t argument)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        failed = 0;
        int code = work(argument);
        fflush(stdout);
        _exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Numbers for scribbling: of all kinds, the same each time. */
static uint32_t next_number(uint32_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
    return *state;
}

/* Writes over a part of the file, or all of it, in place. */
static int scribbled(int32_t round)
{
    uint32_t state = 0x9e3779b9u * (uint32_t)(round + 1);
    long from = round % 4 == 0 ? 0 : (long)(next_number(&state) % (uint32_t)size);
    long to = round % 2 == 0 ? size : from + (size - from) / 16;
    char text[4096];
    esolm_model *model;
    STATUS(ESOLM_OK, open_model(ESOLM_MODE_MAP, &model));
    FILE *file = fopen(path, "r+b");
    CHECK(file && !fseek(file, from, SEEK_SET));
    for (long at = from; file && at < to; at++)
        fputc(round % 3 == 0 ? 0xff : round % 3 == 1 ? 0 : (int)(next_number(&state) & 0xff), file);
    CHECK(file && !fclose(file));
    /* Any text, or a status with a message; then the model of a whole file works. */
    esolm_status status = write_text(model, text, sizeof text);
    CHECK(status == ESOLM_OK || (*esolm_last_error() && status != ESOLM_ERR_INTERNAL));
    esolm_model_free(model);
    write_to(path, bytes, size);
    STATUS(ESOLM_OK, open_model(ESOLM_MODE_MAP, &model));
    CHECK(writes_the_same(model));
    esolm_model_free(model);
    return failed != 0;
}

static int truncated(int32_t mode)
{
    esolm_model *model;
    char text[4096] = "";
    STATUS(ESOLM_OK, open_model(mode, &model));
    CHECK(!truncate(path, 64));
    STATUS(ESOLM_OK, write_text(model, text, sizeof text));
    CHECK(!strcmp(text, text_before));
    esolm_model_free(model);
    return failed != 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) <= 0)
        return 2;
    rewind(file);
    bytes = malloc((size_t)size);
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        return 2;
    fclose(file);
    snprintf(path, sizeof path, "esolm-files-%ld.gguf", (long)getpid());
    snprintf(other, sizeof other, "%s.other", path);
    /* ggml would start a debugger where it aborts. */
    setenv("GGML_NO_BACKTRACE", "1", 1);
    write_to(path, bytes, size);
    esolm_model *model;
    STATUS(ESOLM_OK, open_model(ESOLM_MODE_COPY, &model));
    STATUS(ESOLM_OK, write_text(model, text_before, sizeof text_before));
    CHECK(strlen(text_before) > 16);
    esolm_model_free(model);

    not_mapped();
    renamed_replaced_removed();
    write_to(path, bytes, size);
    for (int32_t round = 0; round < 12; round++)
        CHECK(in_child(scribbled, round) == 0);
    write_to(path, bytes, size);
    CHECK(in_child(truncated, ESOLM_MODE_COPY) == 0);
    write_to(path, bytes, size);
    /* The one thing that ends the process, as the header says. */
    CHECK(in_child(truncated, ESOLM_MODE_MAP) == 128 + SIGBUS);
    remove(path);
    free(bytes);
    return report();
}
