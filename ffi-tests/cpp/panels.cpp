/* The C++ wrapper and a file whose matrices lie in plain rows, opened in each way: panels PLAIN_MODEL. */
#include "../c/check.h"
#include "esolm.hpp"

#include <string>
#include <vector>

static std::vector<std::uint32_t> written(const char *path, std::int32_t mode, const char *name)
{
    std::string heard;
    esolm::set_log([&](std::int32_t, std::string_view message) { heard = message; });
    esolm::ModelParams how;
    how.mode = mode;
    const esolm::Model model = esolm::Model::open(path, how);
    esolm::set_log(nullptr);
    CHECK(heard.find(name) != std::string::npos);
    esolm::ContextParams limits;
    limits.length = 12;
    limits.threads = 1;
    esolm::Context context = esolm::Context::make(model, limits);
    esolm::GenerateParams params;
    params.seed = 7;
    params.ignore_eos = 1;
    context.generate(esolm::Prompt(), params);
    return context.tokens();
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const std::vector<std::uint32_t> mapped = written(argv[1], ESOLM_MODE_MAP, ": mapped");
    CHECK(mapped.size() == 12);
    CHECK(written(argv[1], ESOLM_MODE_COPY, ": in memory") == mapped);
    CHECK(written(argv[1], ESOLM_MODE_REPACK, ": in memory") == mapped);
    return report();
}
