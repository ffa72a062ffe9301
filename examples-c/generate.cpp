// Continues a prompt, and reports each step, with the C++ wrapper: generate-cpp MODEL [PROMPT].
#include "esolm.hpp"

#include <iostream>

int main(int argc, char **argv)
{
    if (argc < 2) {
        std::cerr << "usage: generate-cpp MODEL [PROMPT]\n";
        return 1;
    }
    try {
        auto model = esolm::Model::open(argv[1]);
        esolm::ContextParams limits;
        limits.length = 64;
        auto context = esolm::Context::make(model, limits);
        auto tokens = model.tokenize(argc > 2 ? argv[2] : "Once upon a time");

        esolm::GenerateParams how;
        how.seed = 1;
        context.generate(esolm::Prompt(tokens), how, [](const esolm::Step &step) {
            std::cerr << "step " << step.index + 1 << " of " << step.total << ": " << step.updates.size() << " tokens\n";
            return true; // false would stop the generation
        });
        std::cout << context.text() << '\n';
        return 0;
    } catch (const esolm::Exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
