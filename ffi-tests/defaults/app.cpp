/* Writes a text with the default parameters: app MODEL PROMPT. */
#include "esolm.hpp"

#include <iostream>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    auto model = esolm::Model::open(argv[1]);
    auto context = esolm::Context::make(model);
    context.generate(esolm::Prompt(model.tokenize(argv[2])));
    std::cout << context.text() << '\n';
    return 0;
}
