/* A program outside of esolm's tree, which generates 16 tokens: app MODEL. */
#include <esolm.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    esolm_context_params limits = {.struct_size = sizeof limits, .length = 16, .threads = 1};
    esolm_generate_params how;
    esolm_prompt prompt = {NULL, NULL, 0};
    uint32_t tokens[16];
    size_t n = 0;

    if (argc != 2 || esolm_abi_version() != ESOLM_ABI_VERSION)
        return 2;
    esolm_generate_params_init(&how, sizeof how);
    how.steps = 4, how.alpha_0 = 1;
    if (esolm_model_open(argv[1], NULL, &model) || esolm_context_new(model, &limits, &context) ||
        esolm_generate(context, &prompt, 1, &how, NULL, NULL) || esolm_copy_tokens(context, 0, tokens, 16, &n))
        fprintf(stderr, "%s\n", esolm_last_error());
    else
        printf("esolm %s wrote %zu tokens\n", esolm_version(), n);
    esolm_context_free(context);
    esolm_model_free(model);
    return n != 16;
}
