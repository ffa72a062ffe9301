/* The C++ wrapper: the end-of-text token ends a text, and the work on it, where the model writes it: end_of_text MODEL. The
 * model is one that writes one by one: an Eso-LM in its sequential phase, or an autoregressive one. */
#include "take.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const esolm::Model model = take(esolm::Model::open(argv[1]));
    const std::uint32_t eos = take(model.info()).eos_token;
    esolm::ContextParams limits;
    limits.length = 16;
    limits.threads = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const esolm::Prompt prompt(std::vector<std::uint32_t>{5, 6});
    /* At one position nothing but that token is allowed. */
    const esolm_allowed_tokens allowed = {9, 0, &eos, 1};
    esolm_constraints rules{};
    rules.struct_size = sizeof rules;
    rules.allowed = &allowed;
    rules.n_allowed = 1;
    const esolm_constraints *constraints[] = {&rules};
    esolm::GenerateParams how;
    how.alpha_0 = 0;
    how.seed = 7;
    how.constraints = constraints;
    how.n_constraints = 1;
    const auto steps = [&] {
        std::size_t count = 0;
        STATUS(ESOLM_OK, status_of([&] { return context.begin(prompt, how); }));
        while (take(context.step()))
            count++;
        return count;
    };
    how.ignore_eos = 1;
    CHECK(steps() == 14 && take(context.stop_reason()) == ESOLM_STOP_LENGTH);
    const std::vector<std::uint32_t> whole = take(context.tokens());
    CHECK(whole.size() == 16 && whole[9] == eos);
    if (whole.size() != 16 || whole[9] != eos)
        return report();
    /* The same tokens up to the first that is one, and no step behind it. */
    const auto end = std::find(whole.begin() + 2, whole.end(), eos) + 1;
    how.ignore_eos = 0;
    CHECK(steps() == static_cast<std::size_t>(end - whole.begin()) - 2);
    CHECK(take(context.stop_reason()) == ESOLM_STOP_END_OF_TEXT);
    CHECK(take(context.tokens()) == std::vector<std::uint32_t>(whole.begin(), end));
    /* The text does not show it. */
    CHECK(take(context.text()) == take(model.detokenize(std::vector<std::uint32_t>(whole.begin(), end - 1))));
    how.ignore_eos = 2;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.begin(prompt, how); }));
    return report();
}
