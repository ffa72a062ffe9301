/* What the programs of the C++ wrapper share: their checks, for a build with exceptions and for one without. */
#ifndef TAKE_H
#define TAKE_H

#include "../c/check.h"
#include "esolm.hpp"

#include <utility>

/* The same tests for both modes: `take` is the value of a successful call, `status_of` the status of any call. */
#ifndef ESOLM_NO_EXCEPTIONS
template <class T> T take(T value) { return value; }
template <class F> esolm_status status_of(F &&call)
{
    try {
        call();
    } catch (const esolm::Exception &error) {
        CHECK(error.what()[0] != 0);
        return error.status();
    }
    return ESOLM_OK;
}
#else
template <class T> T take(esolm::Result<T> result) { return *std::move(result); }
template <class F> esolm_status status_of(F &&call)
{
    auto result = call();
    CHECK(bool(result) == result.error().message.empty());
    return result.error().status;
}
#endif

#endif
