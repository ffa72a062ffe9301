/* The C++ wrapper: each filter, penalty and grammar reaches the sampler, and is refused out of range: sampling MODEL. */
#include "short.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {
constexpr std::uint32_t FAVOURITE = 30;

/* One token after the other, from all of them. */
esolm::GenerateParams unfiltered()
{
    esolm::GenerateParams how;
    how.seed = 7;
    how.alpha_0 = 0;
    how.ignore_eos = 1;
    how.temperature = 1;
    how.top_p = 1;
    return how;
}

Tokens written(esolm::Context &context, const esolm::GenerateParams &how)
{
    STATUS(ESOLM_OK, status_of([&] { return context.generate(esolm::Prompt(), how); }));
    return take(context.tokens());
}

bool is_refused(esolm::Context &context, const esolm::GenerateParams &how)
{
    return status_of([&] { return context.begin(esolm::Prompt(), how); }) == ESOLM_ERR_INVALID_ARGUMENT;
}

/* The probabilities of the first token. */
std::vector<float> distribution(esolm::Context &context, const esolm::GenerateParams &how)
{
    STATUS(ESOLM_OK, status_of([&] { return context.begin(esolm::Prompt(), how); }));
    return take(context.probabilities(Tokens{0}));
}

/* Some of the tokens are left, and these with probabilities that are larger by one factor. */
void filters(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    const auto all = distribution(context, unfiltered());
    const Tokens text = written(context, unfiltered());
    const float most = *std::max_element(all.begin(), all.end());
    const struct {
        const char *name;
        void (*set)(esolm::GenerateParams &), (*spoil)(esolm::GenerateParams &);
    } options[] = {
        {"top_k", [](auto &how) { how.top_k = 5; }, nullptr},
        {"top_p", [](auto &how) { how.top_p = 0.5f; }, [](auto &how) { how.top_p = 1.5f; }},
        {"min_p", [](auto &how) { how.min_p = 0.5f; }, [](auto &how) { how.min_p = 1.5f; }},
        {"typical_p", [](auto &how) { how.typical_p = 0.2f; }, [](auto &how) { how.typical_p = 0; }},
        {"top_n_sigma", [](auto &how) { how.top_n_sigma = 1; }, [](auto &how) { how.top_n_sigma = NAN; }},
    };
    for (const auto &option : options) {
        esolm::GenerateParams how = unfiltered();
        option.set(how);
        const auto some = distribution(context, how);
        std::size_t left = 0, wrong = 0;
        double before = 0, factor = 0;
        for (std::size_t i = 0; i < all.size(); i++)
            if (some[i] > 0) {
                left++;
                before += all[i];
                factor = std::max(factor, double(some[i]) / all[i]);
            }
        const std::string name = option.name;
        for (std::size_t i = 0; i < all.size(); i++) {
            wrong += some[i] > 0 && std::abs(some[i] - factor * all[i]) > 1e-3;
            wrong += name == "min_p" && (some[i] > 0) != (all[i] >= most / 2);
        }
        CHECK(left > 0 && left < all.size() / 2 && wrong == 0);
        if (name == "top_k")
            CHECK(left == 5);
        if (name == "top_p" || name == "typical_p")
            CHECK(before >= (name == "top_p" ? 0.5 : 0.2) - 1e-3);
        CHECK(written(context, how) != text);
        if (option.spoil) {
            option.spoil(how);
            CHECK(is_refused(context, how));
            CHECK(std::string(esolm_last_error()).find(name) != std::string::npos);
        }
    }
    esolm::GenerateParams how = unfiltered();
    how.temperature = 0;
    const Tokens greedy = written(context, how);
    CHECK(greedy != text);
    how.temperature = 50;
    how.min_p = 1; /* only the most likely token */
    CHECK(written(context, how) == greedy);
    how.temperature = NAN;
    CHECK(is_refused(context, how));
}

/* A bias of 1000 makes one token by far the likeliest; penalties show in how often it is written in spite of that. */
struct Rules {
    const esolm_logit_bias bias = {FAVOURITE, 1000};
    esolm_constraints rules{};
    const esolm_constraints *constraints[1] = {&rules};
    esolm::GenerateParams how = unfiltered();

    Rules()
    {
        rules.struct_size = sizeof rules;
        rules.bias = &bias;
        rules.n_bias = 1;
        how.temperature = 0;
        how.constraints = constraints;
        how.n_constraints = 1;
    }
    Rules(const Rules &) = delete;
};

void penalties(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    const struct {
        float frequency, presence;
        std::uint32_t times;
    } cases[] = {{0, 0, LENGTH}, {300, 0, 4}, {400, 0, 3}, {0, 300, LENGTH}, {0, 2000, 1}};
    for (const auto &test : cases) {
        Rules of;
        of.rules.frequency_penalty = test.frequency;
        of.rules.presence_penalty = test.presence;
        const Tokens tokens = written(context, of.how);
        CHECK(std::count(tokens.begin(), tokens.end(), FAVOURITE) == test.times);
    }
    /* Without the bias a strong penalty of each kind leaves no token twice. */
    for (float esolm_constraints::*penalty : {&esolm_constraints::repetition_penalty, &esolm_constraints::frequency_penalty,
                                              &esolm_constraints::presence_penalty}) {
        Rules of;
        of.rules.n_bias = 0;
        of.rules.*penalty = 1e6f;
        Tokens tokens = written(context, of.how);
        std::sort(tokens.begin(), tokens.end());
        CHECK(std::adjacent_find(tokens.begin(), tokens.end()) == tokens.end());
        of.rules.*penalty = NAN;
        CHECK(is_refused(context, of.how));
    }
    Rules of;
    of.rules.banned = &FAVOURITE;
    of.rules.n_banned = 1;
    const Tokens tokens = written(context, of.how);
    CHECK(std::count(tokens.begin(), tokens.end(), FAVOURITE) == 0);
    const std::uint32_t none = 1u << 30;
    of.rules.banned = &none;
    CHECK(is_refused(context, of.how));
    const esolm_logit_bias infinite = {FAVOURITE, INFINITY};
    of.rules.n_banned = 0;
    of.rules.bias = &infinite;
    CHECK(is_refused(context, of.how));
}

/* How long the first run of the token is that has the bias. */
void repetitions(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    const struct {
        float multiplier, base;
        std::uint32_t allowed, range;
        std::size_t breakers;
        std::ptrdiff_t run;
    } cases[] = {
        {0, 0, 0, 0, 0, LENGTH},      {1e6f, 0, 0, 0, 0, 3}, {1e6f, 0, 4, 0, 0, 5},      {600, 2, 2, 0, 0, 4},
        {600, 1, 2, 0, 0, LENGTH},    {600, 0, 2, 0, 0, 4},  {1e6f, 0, 3, 2, 0, LENGTH}, /* too few to be a repetition */
        {1e6f, 0, 3, 0, 1, LENGTH},
    };
    for (const auto &test : cases) {
        Rules of;
        of.rules.dry_multiplier = test.multiplier;
        of.rules.dry_base = test.base;
        of.rules.dry_allowed_length = test.allowed;
        of.rules.dry_range = test.range;
        of.rules.dry_breakers = &FAVOURITE;
        of.rules.n_dry_breakers = test.breakers;
        const Tokens tokens = written(context, of.how);
        const auto other = std::find_if(tokens.begin(), tokens.end(), [](auto token) { return token != FAVOURITE; });
        CHECK(other - tokens.begin() == test.run);
    }
    Rules of;
    of.rules.dry_multiplier = -1;
    CHECK(is_refused(context, of.how));
    of.rules.dry_multiplier = 1;
    of.rules.dry_base = 0.5f;
    CHECK(is_refused(context, of.how));
    of.rules.dry_base = 0;
    const std::uint32_t mask = take(model.info()).mask_token;
    of.rules.dry_breakers = &mask;
    of.rules.n_dry_breakers = 1;
    CHECK(is_refused(context, of.how));
}

/* A library without the feature "grammar" says so. */
void grammars(const esolm::Model &model)
{
    esolm::Context context = new_context(model);
    for (const bool json : {false, true}) {
        Rules of;
        (json ? of.rules.json_schema : of.rules.regex) = json ? "{\"enum\": [17]}" : "[a-f]{40,90}";
        const esolm_status status = status_of([&] { return context.generate(esolm::Prompt(), of.how); });
        CHECK(status == (model.supports(ESOLM_FEATURE_GRAMMAR) ? ESOLM_OK : ESOLM_ERR_UNSUPPORTED));
        if (status == ESOLM_OK) {
            const std::string text = take(context.text());
            CHECK(json ? text == "17" : !text.empty() && text.find_first_not_of("abcdef") == std::string::npos);
            (json ? of.rules.json_schema : of.rules.regex) = json ? "{" : "(";
            CHECK(is_refused(context, of.how));
        }
    }
    Rules of;
    of.rules.regex = "a";
    of.rules.json_schema = "{}";
    CHECK(is_refused(context, of.how));
}
} // namespace

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const esolm::Model model = take(esolm::Model::open(argv[1]));
    filters(model);
    penalties(model);
    repetitions(model);
    grammars(model);
    return report();
}
