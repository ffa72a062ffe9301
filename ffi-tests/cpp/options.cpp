/* The C++ wrapper: fields of its parameters that no other program here sets: options MODEL QWEN2_MODEL. */
#include "short.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

namespace {
esolm::GenerateParams diffusion()
{
    esolm::GenerateParams how;
    how.seed = 7;
    how.alpha_0 = 1;
    how.ignore_eos = 1;
    return how;
}

esolm_status begin(esolm::Context &context, const esolm::GenerateParams &how)
{
    return status_of([&] { return context.begin(esolm::Prompt(), how); });
}

void orders(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    esolm::GenerateParams how = diffusion();
    how.order = ESOLM_ORDER_STRIDED;
    for (const std::uint32_t stride : {8u, 4u}) {
        how.order_size = stride;
        STATUS(ESOLM_OK, begin(context, how));
        const Tokens order = take(context.order());
        for (std::uint32_t i = 0; i < LENGTH; i++)
            CHECK(order[i] == i / (LENGTH / stride) + i % (LENGTH / stride) * stride);
    }
    how.order_size = LENGTH + 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));
    Tokens reversed(LENGTH);
    std::iota(reversed.rbegin(), reversed.rend(), 0u);
    how.order = ESOLM_ORDER_CUSTOM;
    how.order_size = 0;
    how.custom_order = reversed.data();
    how.n_custom_order = LENGTH;
    STATUS(ESOLM_OK, begin(context, how));
    CHECK(take(context.order()) == reversed);
    how.n_custom_order = LENGTH - 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));

    const Tokens schedule = {5, 3}, nothing = {4, 0};
    how = diffusion();
    how.schedule = schedule.data();
    how.n_schedule = schedule.size();
    STATUS(ESOLM_OK, begin(context, how));
    Tokens counts;
    while (auto step = take(context.step()))
        counts.push_back(static_cast<std::uint32_t>(step->updates.size()));
    CHECK(counts == (Tokens{5, 3, 3, 3, 3, 3, 3, 3, 3, 3}));
    how.schedule = nothing.data();
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));
}

void adaptive_steps(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    const struct {
        std::int32_t confidence;
        float threshold, penalty;
        std::size_t window, written;
    } cases[] = {
        {ESOLM_CONFIDENCE_PROBABILITY, 0, 0, 8, 8}, {ESOLM_CONFIDENCE_PROBABILITY, 0, 0, 5, 5},
        {ESOLM_CONFIDENCE_PROBABILITY, 2, 0, 8, 1}, {ESOLM_CONFIDENCE_PROBABILITY, 0, 2, 8, 1},
        {ESOLM_CONFIDENCE_MARGIN, 0, 0, 8, 8},      {ESOLM_CONFIDENCE_ENTROPY, 0, 0, 8, 1},
    };
    for (const auto &test : cases) {
        esolm::GenerateParams how = diffusion();
        how.confidence = test.confidence;
        how.threshold = test.threshold;
        how.penalty = test.penalty;
        how.window = test.window;
        STATUS(ESOLM_OK, begin(context, how));
        CHECK(take(context.step())->updates.size() == test.written);
    }
    /* A window that slides, from left to right: its size may be left to the library, which it may not be elsewhere. */
    esolm::GenerateParams how = diffusion();
    how.confidence = ESOLM_CONFIDENCE_PROBABILITY;
    how.window = ESOLM_WINDOW_AUTO;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));
    how.in_order = 1;
    STATUS(ESOLM_OK, begin(context, how));
    CHECK(take(context.step())->updates[0].position == 0);
    how.in_order = 2;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));
    how = diffusion();
    how.confidence = ESOLM_CONFIDENCE_ENTROPY + 1;
    how.window = 8;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, begin(context, how));
}

void limits(const esolm::Model &model)
{
    esolm::ContextParams params;
    params.batch_rows = 16;
    CHECK(take(esolm::Context::memory_use(model, params)).compute < take(esolm::Context::memory_use(model)).compute);
    params.kernels = ESOLM_KERNELS_GGML;
    esolm::Context context = new_context(model, params);
    STATUS(ESOLM_OK, status_of([&] { return context.generate(esolm::Prompt(), diffusion()); }));
    STATUS(ESOLM_ERR_UNSUPPORTED, status_of([&] { return context.profile(); })); /* ggml computes */
    params.kernels = ESOLM_KERNELS_GGML + 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::Context::make(model, params); }));
}

void texts(const esolm::Model &model)
{
    const std::string first = "Once upon", second = " a time";
    esolm::TokenizeParams behind;
    behind.continues = 1;
    Tokens joined = take(model.tokenize(first));
    for (std::uint32_t token : take(model.tokenize(second, behind)))
        joined.push_back(token);
    CHECK(take(model.detokenize(joined)) == first + second);
    behind.continues = 2;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return model.tokenize(second, behind); }));
}

void scores(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    const Tokens words = take(model.tokenize("Once upon a time there was a king."));
    const auto score = [&](const esolm::ScoreParams &how) { return take(context.score_text(words, how)); };
    const auto forward = score({});
    esolm::ScoreParams how;
    how.random_order = 1;
    const auto random = score(how);
    CHECK(forward.diffusion == 0 && random.nll > 0 && random.nll != forward.nll);
    how.seed = 1;
    CHECK(score(how).nll != random.nll);
    how.orders = 0;
    how.draws = 4;
    const auto drawn = score(how);
    CHECK(drawn.nll == 0 && drawn.diffusion > 0 && drawn.sequential == 0);
    how.alpha_0 = 0.5;
    CHECK(score(how).sequential > 0);
    how.alpha_0 = 2;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.score_text(words, how); }));
}

/* A function that is called while a file is read, and the mask token of one that does not say it. */
void opening(const char *path, const char *qwen2)
{
    std::vector<double> heard;
    esolm::ModelParams how;
    how.mode = ESOLM_MODE_COPY;
    how.progress_user_data = &heard;
    how.progress_callback = [](double fraction, void *user_data) {
        static_cast<std::vector<double> *>(user_data)->push_back(fraction);
        return std::int32_t(0);
    };
    take(esolm::Model::open(path, how));
    CHECK(!heard.empty() && heard.back() == 1 && std::is_sorted(heard.begin(), heard.end()));
    how.progress_callback = [](double, void *) { return std::int32_t(1); };
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] { return esolm::Model::open(path, how); }));

    std::ifstream file(qwen2, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), {});
    const auto open = [&](const esolm::ModelParams &params) {
        return esolm::Model::open_memory(bytes.data(), bytes.size(), params);
    };
    esolm::ModelParams masked;
    masked.mask_token = 3;
    masked.has_mask_token = 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return open(masked); })); /* it says that it is autoregressive */
    const std::size_t key = bytes.find("esolm.variant");
    CHECK(key != std::string::npos);
    bytes.replace(key, 5, "other");
    CHECK(!take(open({})).supports(ESOLM_FEATURE_DIFFUSION));
    const esolm::Model model = take(open(masked));
    CHECK(take(model.info()).mask_token == 3 && model.supports(ESOLM_FEATURE_DIFFUSION));
}
} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const esolm::Model model = take(esolm::Model::open(argv[1]));
    orders(model);
    adaptive_steps(model);
    limits(model);
    texts(model);
    scores(model);
    opening(argv[1], argv[2]);
    return report();
}
