/* What esolm.hpp adds to esolm.h, with and without exceptions: api MODEL. */
#include "../c/check.h"
#include "esolm.hpp"

#include <memory>

static_assert(!std::is_copy_constructible_v<esolm::Model> && !std::is_copy_assignable_v<esolm::Context>);
static_assert(std::is_nothrow_move_constructible_v<esolm::Model> && std::is_nothrow_move_assignable_v<esolm::Context>);

/* The same test in both modes: `take` is the value of a call that works, `status_of` how a call ends. */
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

static void handles(const char *path)
{
    STATUS(ESOLM_ERR_IO, status_of([] { return esolm::Model::open("/nowhere.gguf"); }));
    esolm::ModelParams odd;
    odd.mode = 9;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::Model::open(path, odd); }));
    STATUS(ESOLM_ERR_BAD_FILE, status_of([&] { return esolm::Model::open_memory("no model", 8); }));
    CHECK(take(esolm::devices()).size() >= 1);

    esolm::Model model = take(esolm::Model::open(path));
    esolm::Model moved = std::move(model);
    CHECK(model.get() == nullptr && moved.get() != nullptr);
    model = take(moved.share());
    CHECK(model.get() == moved.get());
    CHECK(take(model.info()).vocab_size > 2);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return model.tokenize("\xff"); }));

    std::string text = "Once upon a time there was a girl, ";
    for (int i = 0; i < 5; i++)
        text += text;
    auto tokens = take(model.tokenize(text));
    CHECK(take(model.detokenize(tokens)) == text);
    CHECK(take(model.tokenize("")).empty());
}

static void generations(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.sequences = 2;
    limits.threads = 1;
    esolm::GenerateParams how;
    how.steps = 6;
    how.seed = 7;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const auto words = take(model.tokenize("Once upon"));
    const std::vector<std::uint32_t> last = {30, 31};
    const std::vector<esolm_prompt> prompts = {esolm::prompt(words), esolm::prompt(words, last)};

    STATUS(ESOLM_OK, status_of([&] { return context.generate(prompts, how); }));
    const auto once = take(context.tokens(0));
    CHECK(once.size() == 32 && std::equal(words.begin(), words.end(), once.begin()));
    CHECK(take(context.tokens(1))[30] == words[0]);
    CHECK(take(context.text()).rfind("Once upon", 0) == 0);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.text(2); }));

    STATUS(ESOLM_OK, status_of([&] { return context.begin(prompts, how); }));
    std::size_t written = 0, steps = 0;
    while (auto step = take(context.step())) {
        CHECK(step->index == steps++ && step->total >= steps);
        for (const esolm_update &update : step->updates)
            written += update.position < 32;
    }
    CHECK(written == 64 - 2 * words.size() && take(context.tokens(0)) == once);

    /* In memory of one's own. */
    std::size_t size = take(esolm::Context::arena_size(model, limits));
    std::vector<unsigned char> memory(size + ESOLM_ARENA_ALIGNMENT);
    void *arena = memory.data();
    std::size_t space = memory.size();
    std::align(ESOLM_ARENA_ALIGNMENT, size, arena, space);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL,
           status_of([&] { return esolm::Context::make_in(model, arena, size - 1, limits); }));
    esolm::Context inside = take(esolm::Context::make_in(model, arena, size, limits));
    STATUS(ESOLM_OK, status_of([&] { return inside.generate(prompts, how); }));
    CHECK(take(inside.tokens(0)) == once);
}

static void watching(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    esolm::GenerateParams how;
    how.steps = 6;
    esolm::Context context = take(esolm::Context::make(model, limits));
    int calls = 0;
    CHECK(take(context.generate(esolm_prompt{}, how, [&](const esolm::Step &step) {
        calls += step.updates.size() > 0;
        return true;
    })));
    CHECK(calls > 2);
    CHECK(!take(context.generate(esolm_prompt{}, how, [&](const esolm::Step &step) { return step.index < 1; })));
    CHECK(bool(take(context.step()))); /* it goes on */
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] {
               return context.generate(esolm_prompt{}, how, [&](const esolm::Step &) {
                   context.cancel();
                   return true;
               });
           }));
#ifndef ESOLM_NO_EXCEPTIONS
    int caught = 0;
    try {
        context.generate(esolm_prompt{}, how, [](const esolm::Step &) -> bool { throw 42; });
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42);
#endif
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    handles(argv[1]);
    esolm::Model model = take(esolm::Model::open(argv[1]));
    generations(model);
    watching(model);
    return report();
}
