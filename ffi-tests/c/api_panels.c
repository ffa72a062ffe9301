/* A file whose matrices lie in plain rows, which the kernels' panels are made of in memory: api_panels PLAIN_MODEL. */
#include "api.h"

enum { TOKENS = 12 };

static char logged[1024];

static void on_log(int32_t level, const char *message, void *user_data)
{
    (void)level, (void)user_data;
    snprintf(logged, sizeof logged, "%s", message);
}

/* The tokens that the model writes, opened in this way, which the log calls so. */
static void written(const char *path, int32_t mode, const char *name, uint32_t *tokens)
{
    esolm_model *opened = NULL;
    esolm_context *context = NULL;
    esolm_model_params params;
    esolm_context_params size;
    esolm_generate_params how;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n = 0;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mode = mode;
    STATUS(OK, esolm_model_open(path, &params, &opened));
    CHECK(strstr(logged, name) != NULL);
    STATUS(OK, esolm_context_params_init(&size, sizeof size));
    size.length = TOKENS, size.threads = 1;
    STATUS(OK, esolm_context_new(opened, &size, &context));
    STATUS(OK, esolm_generate_params_init(&how, sizeof how));
    how.seed = 7, how.ignore_eos = 1;
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(OK, esolm_copy_tokens(context, 0, tokens, TOKENS, &n));
    CHECK(n == TOKENS);
    esolm_context_free(context);
    esolm_model_free(opened);
}

int main(int argc, char **argv)
{
    uint32_t mapped[TOKENS] = {0}, copied[TOKENS] = {0}, repacked[TOKENS] = {0};
    open_model(argc, argv);
    esolm_set_log_callback(on_log, NULL);
    written(argv[1], ESOLM_MODE_MAP, ": mapped", mapped);
    written(argv[1], ESOLM_MODE_COPY, ": in memory", copied);
    written(argv[1], ESOLM_MODE_REPACK, ": in memory", repacked);
    CHECK(memcmp(mapped, copied, sizeof mapped) == 0 && memcmp(mapped, repacked, sizeof mapped) == 0);
    esolm_set_log_callback(NULL, NULL);
    esolm_model_free(model);
    return report();
}
