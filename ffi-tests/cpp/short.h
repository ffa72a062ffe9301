/* Contexts of short texts. */
#ifndef SHORT_H
#define SHORT_H

#include "take.h"

#include <cstdint>
#include <vector>

constexpr std::uint32_t LENGTH = 32;

using Tokens = std::vector<std::uint32_t>;

inline esolm::Context new_context(const esolm::Model &model, esolm::ContextParams limits = {})
{
    limits.length = LENGTH;
    limits.threads = 1;
    return take(esolm::Context::make(model, limits));
}

#endif
