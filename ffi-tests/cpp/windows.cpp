/* The C++ wrapper: models that fill several places in a step, WeDLM its window that slides and BD3-LM its blocks:
 * windows WEDLM_MODEL BD3LM_MODEL. The same tokens as C. */
#include "take.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {
constexpr std::uint32_t LENGTH = 16, KNOWN = 2, BLOCK = 4;
using Tokens = std::vector<std::uint32_t>;

esolm::GenerateParams defaults()
{
    esolm::GenerateParams how;
    how.seed = 7;
    how.ignore_eos = 1;
    return how;
}

/* What C writes with the same parameters. */
Tokens by_c(const esolm::Model &model, const esolm_generate_params &how)
{
    Tokens tokens(LENGTH);
    const Tokens words = {5, 6};
    const esolm_prompt prompt = {words.data(), nullptr, words.size()};
    esolm_context *context = nullptr;
    std::size_t n = 0;
    STATUS(ESOLM_OK, esolm_context_new(model.get(), nullptr, &context));
    STATUS(ESOLM_OK, esolm_generate(context, &prompt, 1, &how, nullptr, nullptr));
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, tokens.data(), tokens.size(), &n));
    esolm_context_free(context);
    CHECK(n == LENGTH);
    return tokens;
}

/* How many places each step of a generation fills, which are all of them. */
std::vector<std::size_t> steps(const esolm::Model &model, const esolm::GenerateParams &how)
{
    const auto info = take(model.info());
    esolm::Context context = take(esolm::Context::make(model));
    std::vector<std::size_t> counts;
    std::size_t filled = 0;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(esolm::Prompt(Tokens{5, 6}), how); }));
    while (auto step = take(context.step())) {
        counts.push_back(step->updates.size());
        filled += step->updates.size();
    }
    const Tokens tokens = take(context.tokens());
    CHECK(filled == LENGTH - KNOWN && tokens.size() == LENGTH && tokens[0] == 5 && tokens[1] == 6);
    CHECK(std::all_of(tokens.begin(), tokens.end(), [&](std::uint32_t token) {
        return token < info.vocab_size && token != info.mask_token;
    }));
    CHECK(take(context.stop_reason()) == ESOLM_STOP_LENGTH && take(context.cached_tokens()) <= LENGTH);
    CHECK(tokens == by_c(model, how));
    return counts;
}

void windows(const esolm::Model &model)
{
    const auto own = steps(model, defaults());
    CHECK(!own.empty() && own.size() <= LENGTH - KNOWN);
    esolm::GenerateParams how = defaults();
    how.confidence = ESOLM_CONFIDENCE_ENTROPY;
    how.window = 4;
    how.threshold = 100; /* each place is certain enough */
    CHECK(steps(model, how) == (std::vector<std::size_t>{4, 4, 4, 2}));
    how.threshold = 0; /* none is */
    CHECK(steps(model, how) == std::vector<std::size_t>(LENGTH - KNOWN, 1));
    how.window = ESOLM_WINDOW_AUTO;
    how.threshold = 100;
    CHECK(steps(model, how).size() < LENGTH - KNOWN);
    /* By what a pass costs, measured. */
    esolm::ContextParams size;
    size.length = LENGTH;
    esolm::Context context = take(esolm::Context::make(model, size));
    const float rows = take(context.measure_pass_overhead());
    CHECK(rows > 0.05f && rows <= 256);
    STATUS(ESOLM_OK, status_of([&] { return context.set_pass_overhead(rows); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.set_pass_overhead(-1); }));
    /* A window without a confidence is WeDLM's. */
    esolm::GenerateParams narrow = defaults();
    narrow.window = 2;
    how.window = 2;
    how.threshold = 0.4f;
    how.penalty = 0.02f;
    how.in_order = 1;
    CHECK(steps(model, narrow) == steps(model, how));
    CHECK(by_c(model, narrow) == by_c(model, how));
}

void blocks(const esolm::Model &model)
{
    CHECK(steps(model, defaults()) == std::vector<std::size_t>(LENGTH - KNOWN, 1));
    esolm::GenerateParams how = defaults();
    how.steps = 2; /* of each block */
    CHECK(steps(model, how).size() <= 2 * LENGTH / BLOCK);
    const std::uint32_t schedule[] = {BLOCK};
    how = defaults();
    how.schedule = schedule;
    how.n_schedule = 1;
    CHECK(steps(model, how) == (std::vector<std::size_t>{2, 4, 4, 4}));
}
} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    windows(take(esolm::Model::open(argv[1])));
    blocks(take(esolm::Model::open(argv[2])));
    return report();
}
