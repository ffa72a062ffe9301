/* Uses esolm, llama.cpp or whisper.cpp with a ggml of its own, and another Rust library in one program, all linked
 * statically: coexist MODEL. */
#include "check.h"

#include <ggml-cpu.h>
#include <ggml.h>
#ifdef WITH_WHISPER
#include <whisper.h>
#else
#include <llama.h>
#endif

int64_t second_sum(uint32_t n);

static int other_messages;

static void other_log(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)level, (void)text, (void)user_data;
    other_messages++;
}

/* llama.cpp or whisper.cpp starts, and reports a missing file to its own log. */
static void other_library(void)
{
#ifdef WITH_WHISPER
    whisper_log_set(other_log, NULL);
    CHECK(strstr(whisper_print_system_info(), "CPU") != NULL);
    CHECK(!whisper_init_from_file_with_params("/nowhere.bin", whisper_context_default_params()));
#else
    llama_log_set(other_log, NULL);
    llama_backend_init();
    CHECK(strstr(llama_print_system_info(), "CPU") != NULL);
    CHECK(!llama_model_load_from_file("/nowhere.gguf", llama_model_default_params()));
#endif
    CHECK(other_messages > 0);
}

/* The sum of a * b, computed by the program's own ggml. */
static float other_ggml(void)
{
    struct ggml_init_params params = {.mem_size = 1 << 20};
    struct ggml_context *context = ggml_init(params);
    struct ggml_tensor *a = ggml_new_tensor_2d(context, GGML_TYPE_F32, 8, 4);
    struct ggml_tensor *b = ggml_new_tensor_2d(context, GGML_TYPE_F32, 8, 2);
    struct ggml_tensor *sum = ggml_sum(context, ggml_mul_mat(context, a, b));
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_set_f32(a, 2);
    ggml_set_f32(b, 3);
    ggml_build_forward_expand(graph, sum);
    ggml_graph_compute_with_ctx(context, graph, 2);
    float result = ggml_get_f32_1d(sum, 0);
    ggml_free(context);
    return result;
}

/* A step callback: the other libraries run, and a Rust panic unwinds, while functions of esolm are on the stack. */
static int32_t others_in_between(const esolm_step_info *info, void *calls)
{
    (void)info;
    CHECK(other_ggml() == 8 * 4 * 2 * 2 * 3);
    CHECK(second_sum(100) == 5050);
    CHECK(second_sum(0) == -1);
    ++*(int *)calls;
    return 0;
}

/* Generates 16 tokens; the result is always the same, whatever runs in between. */
static void generate(const esolm_model *model, uint32_t tokens[16])
{
    esolm_context_params limits = {.struct_size = sizeof limits, .length = 16, .threads = 2};
    esolm_generate_params how;
    esolm_context *context = NULL;
    esolm_prompt prompt = {NULL, NULL, 0};
    size_t n = 0;
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    int calls = 0;
    how.steps = 4;
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &context));
    STATUS(ESOLM_OK, esolm_generate(context, &prompt, 1, &how, others_in_between, &calls));
    CHECK(calls > 0);
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, tokens, 16, &n));
    CHECK(n == 16);
    esolm_context_free(context);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    other_library();

    int before = other_messages;
    uint32_t first[16] = {0}, again[16] = {1};
    esolm_model *model = NULL;
    STATUS(ESOLM_ERR_IO, esolm_model_open("/nowhere.gguf", NULL, &model));
    STATUS(ESOLM_OK, esolm_model_open(argv[1], NULL, &model));
    generate(model, first);
    generate(model, again);
    CHECK(memcmp(first, again, sizeof first) == 0);
    esolm_model_free(model);
    CHECK(other_messages == before); /* esolm does not log through the other ggml */
#ifndef WITH_WHISPER
    llama_backend_free();
#endif
    CHECK(other_ggml() == 8 * 4 * 2 * 2 * 3);
    return report();
}
