/* The calls that a program may make first, on a processor that may lack instructions which the library was compiled for:
 * processor MODEL. Prints "refused", or the tokens of a text and their score. The program itself is compiled for any. */
#include "check.h"

enum { LENGTH = 24 };

/* The tokens of a text, half of it written about four at once. */
static void write_text(esolm_model *model)
{
    esolm_context *context = NULL;
    esolm_context_params limits;
    esolm_generate_params how;
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_text_score score = {.struct_size = sizeof score};
    uint32_t tokens[LENGTH];
    double log_p[LENGTH], sum = 0;
    size_t n = 0;
    STATUS(ESOLM_OK, esolm_context_params_init(&limits, sizeof limits));
    limits.length = LENGTH, limits.threads = 1;
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &context));
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    how.seed = 3, how.steps = 3, how.alpha_0 = 0.5, how.ignore_eos = 1;
    STATUS(ESOLM_OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, tokens, LENGTH, &n));
    CHECK(n == LENGTH);
    printf("ran:");
    for (size_t i = 0; i < n; i++)
        printf(" %u", tokens[i]);
    /* Each probability has the rounding of all of the network in it. */
    STATUS(ESOLM_OK, esolm_score_text(context, tokens, n, NULL, log_p, LENGTH, &score, NULL, NULL));
    for (size_t i = 0; i < n; i++)
        sum += log_p[i] * (double)(i + 1);
    printf(", %.8f\n", sum);
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_model_params open;
    esolm_context_params limits;
    esolm_generate_params how;
    esolm_model_info info = {.struct_size = sizeof info};
    esolm_score_params score;
    uint32_t tokens[16];
    size_t n = 0;
    if (argc != 2)
        return 2;
    CHECK(*esolm_version() && esolm_abi_version() == ESOLM_ABI_VERSION);
    esolm_status first = esolm_model_params_init(&open, sizeof open);
    CHECK(first == ESOLM_OK || first == ESOLM_ERR_UNSUPPORTED);
    STATUS(first, esolm_context_params_init(&limits, sizeof limits));
    STATUS(first, esolm_generate_params_init(&how, sizeof how));
    STATUS(first, esolm_score_params_init(&score, sizeof score));
    esolm_set_log_callback(NULL, NULL);
    STATUS(first, esolm_model_open(argv[1], NULL, &model));
    CHECK(*esolm_status_text(first));
    if (first) {
        CHECK(!model && strstr(esolm_last_error(), "instructions that the processor lacks, such as "));
        STATUS(first, esolm_model_open_memory("GGUF", 4, NULL, &model));
        STATUS(first, esolm_tokenize(NULL, "a", 1, tokens, 16, &n));
        STATUS(first, esolm_context_new(NULL, NULL, &context));
        STATUS(first, esolm_model_info_get(NULL, &info));
        STATUS(first, esolm_step(NULL, NULL, NULL));
        CHECK(strstr(esolm_last_error(), "instructions that the processor lacks, such as "));
    } else {
        STATUS(ESOLM_OK, esolm_tokenize(model, "Once upon a time", 16, tokens, 16, &n));
        STATUS(ESOLM_OK, esolm_model_info_get(model, &info));
        CHECK(n == 4 && info.context_length > 0);
        write_text(model);
    }
    esolm_context_free(context);
    esolm_model_free(model);
    if (first)
        puts("refused");
    return report();
}
