/* All functions that copy to a caller's buffer, with every capacity from 0 to more than enough: api_buffers MODEL. Each
 * call gets a newly allocated buffer, so that the address sanitizer and valgrind report any access past its end. */
#include "api.h"

enum { GUARD = 16, FILLED = 170 };

static esolm_context *context;
static const char TEXT[] = "Once upon a {{mask 3}}time";
static uint32_t words[64];
static size_t n_words;

static esolm_status tokenize(void *to, size_t capacity, size_t *n)
{
    return esolm_tokenize(model, TEXT, strlen(TEXT), to, capacity, n);
}

static esolm_status detokenize(void *to, size_t capacity, size_t *n)
{
    return esolm_detokenize(model, words, n_words, to, capacity, n);
}

static esolm_status token_bytes(void *to, size_t capacity, size_t *n)
{
    return esolm_token_bytes(model, words[0], to, capacity, n);
}

/* The positions' buffer is as large as the tokens'. */
static esolm_status tokenize_template(void *to, size_t capacity, size_t *n)
{
    size_t length = 0;
    uint32_t *positions = capacity ? malloc(capacity * sizeof *positions) : NULL;
    esolm_status status =
        esolm_tokenize_template(model, TEXT, strlen(TEXT), to, positions, capacity, n, &length);
    CHECK(length == (status == OK ? *n + 3 : 0));
    free(positions);
    return status;
}

static esolm_status metadata_key(void *to, size_t capacity, size_t *n)
{
    return esolm_model_metadata_key(model, 0, to, capacity, n);
}

static esolm_status metadata(void *to, size_t capacity, size_t *n)
{
    return esolm_model_metadata_get(model, "general.architecture", to, capacity, n);
}

static esolm_status copy_tokens(void *to, size_t capacity, size_t *n)
{
    return esolm_copy_tokens(context, 0, to, capacity, n);
}

static esolm_status copy_order(void *to, size_t capacity, size_t *n)
{
    return esolm_copy_order(context, 0, to, capacity, n);
}

static esolm_status copy_text(void *to, size_t capacity, size_t *n)
{
    return esolm_copy_text(context, 0, to, capacity, n);
}

static esolm_status state_save(void *to, size_t capacity, size_t *n)
{
    return esolm_state_save(context, to, capacity, n);
}

/* How many of `size` bytes still have the value that they were filled with. */
static size_t untouched(const unsigned char *bytes, size_t size)
{
    size_t same = 0;
    for (size_t i = 0; i < size; i++)
        same += bytes[i] == FILLED;
    return same;
}

typedef esolm_status (*copier)(void *to, size_t capacity, size_t *n);

/* Calls with a capacity. `whole` is what a large enough buffer gets, `needed` its length (without a text's NUL). */
static void try_capacity(copier copy, size_t capacity, size_t element, int text, size_t needed, const void *whole)
{
    unsigned char *buffer = malloc(capacity * element + 1);
    size_t n = 12345, size = capacity * element;
    if (!buffer)
        exit(1);
    memset(buffer, FILLED, size + 1);
    if (capacity < needed + (text ? 1 : 0)) {
        STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, copy(buffer, capacity, &n));
        CHECK(n == needed);
        if (text && capacity > 0)
            CHECK(buffer[0] == 0 && untouched(buffer + 1, size - 1) == size - 1);
        else
            CHECK(untouched(buffer, size) == size);
    } else {
        STATUS(OK, copy(buffer, capacity, &n));
        CHECK(n == needed && memcmp(buffer, whole, needed * element) == 0);
        CHECK(!text || buffer[needed] == 0);
        size_t written = needed * element + (text ? 1 : 0);
        CHECK(untouched(buffer + written, size - written) == size - written);
    }
    CHECK(buffer[size] == FILLED);
    free(buffer);
}

static void every_capacity(copier copy, size_t element, int text)
{
    size_t needed = 0, n = 0;
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, copy(NULL, 0, &needed)); /* asks for the size */
    CHECK(needed > 0);
    size_t enough = needed + (text ? 1 : 0);
    void *whole = malloc(enough * element);
    if (!whole)
        exit(1);
    STATUS(OK, copy(whole, enough, &n));
    for (size_t capacity = 0; capacity < enough + GUARD; capacity++) {
        if (capacity == 40 && enough > 80) /* a state is long: only capacities near 0 and near its size */
            capacity = enough - 40;
        try_capacity(copy, capacity, element, text, needed, whole);
    }
    STATUS(INVALID, copy(NULL, enough, &n));
    STATUS(INVALID, copy(whole, enough, NULL));
    free(whole);
}

int main(int argc, char **argv)
{
    open_model(argc, argv);
    context = new_context();
    STATUS(OK, esolm_tokenize(model, "Once upon a time", 16, words, 64, &n_words));
    esolm_generate_params how = small_params();
    esolm_prompt prompt = {words, NULL, n_words};
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));

    every_capacity(tokenize, sizeof(uint32_t), 0);
    every_capacity(detokenize, 1, 1);
    every_capacity(token_bytes, 1, 0);
    every_capacity(metadata_key, 1, 1);
    every_capacity(metadata, 1, 1);
    every_capacity(copy_tokens, sizeof(uint32_t), 0);
    every_capacity(copy_order, sizeof(uint32_t), 0);
    every_capacity(copy_text, 1, 1);
    every_capacity(state_save, 1, 0);
    every_capacity(tokenize_template, sizeof(uint32_t), 0);
    esolm_context_free(context);
    esolm_model_free(model);
    return report();
}
