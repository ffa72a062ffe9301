/* The mask token of a file that does not say it, esolm_model_params.mask_token: api_mask_token QWEN2_MODEL. */
#include "api.h"

static unsigned char *bytes;
static size_t size;

/* Opens the file's bytes, with this mask token if it is not ESOLM_NO_TOKEN. */
static esolm_status open_with(uint32_t mask, esolm_model **opened)
{
    esolm_model_params params;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    CHECK(params.has_mask_token == 0);
    /* Without has_mask_token it is not read. */
    params.mask_token = mask == ESOLM_NO_TOKEN ? 3 : mask;
    params.has_mask_token = mask != ESOLM_NO_TOKEN;
    return esolm_model_open_memory(bytes, size, &params, opened);
}

static void opens_as(uint32_t given, uint32_t mask, int diffusion)
{
    esolm_model *opened = NULL;
    esolm_model_info about = {.struct_size = sizeof about};
    STATUS(OK, open_with(given, &opened));
    STATUS(OK, esolm_model_info_get(opened, &about));
    CHECK(about.mask_token == mask);
    CHECK(esolm_model_supports(opened, ESOLM_FEATURE_DIFFUSION) == diffusion);
    esolm_model_free(opened);
}

int main(int argc, char **argv)
{
    static const char key[] = "esolm.variant";
    esolm_model *opened = NULL;
    open_model(argc, argv);
    size = (size_t)info.file_bytes;
    bytes = malloc(size);
    FILE *file = fopen(argv[1], "rb");
    if (!file || !bytes || fread(bytes, 1, size, file) != size)
        return 2;
    fclose(file);

    /* A file that says that it is autoregressive has none. */
    opens_as(ESOLM_NO_TOKEN, info.mask_token, 0);
    STATUS(INVALID, open_with(3, &opened));
    last_error_says("autoregressive");
    CHECK(opened == NULL);
    /* One that does not is WeDLM once its mask token is known. */
    size_t at = 0;
    while (at + sizeof key < size && memcmp(bytes + at, key, sizeof key - 1) != 0)
        at++;
    CHECK(at + sizeof key < size);
    if (at + sizeof key >= size)
        return report();
    memcpy(bytes + at, "other", 5);
    opens_as(ESOLM_NO_TOKEN, info.mask_token, 0);
    opens_as(3, 3, 1);
    opens_as(4, 4, 1);
    STATUS(INVALID, open_with((uint32_t)info.vocab_size, &opened));
    last_error_says("has 24 tokens");
    CHECK(opened == NULL);
    esolm_model_params params;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mask_token = 3, params.has_mask_token = 2;
    STATUS(INVALID, esolm_model_open_memory(bytes, size, &params, &opened));
    last_error_says("has_mask_token");
    esolm_model_free(model);
    free(bytes);
    return report();
}
