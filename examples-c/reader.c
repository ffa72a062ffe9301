/* Opens a model that the program reads itself, here from a file that is obfuscated with a key: reader MODEL KEY [PROMPT].
   A KEY of 0 reads a file as it is. An asset of a phone's or an entry of an archive is read in the same way. */
#include "esolm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
    FILE *file;
    unsigned char key;
};

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Called from the beginning of the file to its end. */
static int64_t read_some(uint64_t offset, void *buffer, size_t size, void *user_data)
{
    struct source *source = user_data;
    unsigned char *bytes = buffer;
    if (fseek(source->file, (long)offset, SEEK_SET))
        return -1;
    size_t count = fread(bytes, 1, size, source->file);
    for (size_t i = 0; i < count; i++)
        bytes[i] ^= source->key;
    return ferror(source->file) ? -1 : (int64_t)count;
}

static void close_it(void *user_data) { fclose(((struct source *)user_data)->file); }

static void on_log(int32_t level, const char *message, void *user_data)
{
    (void)level;
    (void)user_data;
    fprintf(stderr, "%s\n", message);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: reader MODEL KEY [PROMPT]\n");
        return EXIT_FAILURE;
    }
    const char *start = argc > 3 ? argv[3] : "Once upon a time";
    struct source source = {.file = fopen(argv[1], "rb"), .key = (unsigned char)atoi(argv[2])};
    if (!source.file || fseek(source.file, 0, SEEK_END)) {
        perror(argv[1]);
        return EXIT_FAILURE;
    }
    esolm_model_reader reader = {.struct_size = sizeof reader,
                                 .size = (uint64_t)ftell(source.file),
                                 .read = read_some,
                                 .close = close_it,
                                 .user_data = &source,
                                 .name = argv[1]};
    fprintf(stderr, "%s\n", esolm_system_info());
    esolm_set_log_callback(on_log, NULL);

    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[256];
    char text[8192];
    size_t length;
    esolm_prompt prompt = {.tokens = tokens};
    /* The weights stay in main memory, if the system allows it. */
    esolm_model_params how;
    check(esolm_model_params_init(&how, sizeof how));
    how.use_mlock = 1;
    check(esolm_model_open_reader(&reader, &how, &model));
    /* Asked before text is: not every file has a tokenizer. */
    if (!esolm_model_supports(model, ESOLM_FEATURE_TEXT)) {
        fprintf(stderr, "%s has no tokenizer\n", argv[1]);
        esolm_model_free(model);
        return EXIT_FAILURE;
    }
    check(esolm_tokenize(model, start, strlen(start), tokens, 256, &prompt.count));
    check(esolm_context_new(model, NULL, &context));
    esolm_generate_params params;
    check(esolm_generate_params_init(&params, sizeof params));
    params.max_tokens = 40;
    params.seed = 1;
    check(esolm_generate(context, &prompt, 1, &params, NULL, NULL));
    check(esolm_copy_text(context, 0, text, sizeof text, &length));
    puts(text);
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
