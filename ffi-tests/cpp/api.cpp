/* The C++ wrapper, with and without exceptions: api MODEL. */
#include "take.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>

static_assert(!std::is_copy_constructible_v<esolm::Model> && !std::is_copy_assignable_v<esolm::Context>);
static_assert(std::is_nothrow_move_constructible_v<esolm::Model> && std::is_nothrow_move_assignable_v<esolm::Context>);

// The struct of C borrows from its prompt: a temporary gives none.
template <typename P, typename = void> struct GivesStruct : std::false_type {};
template <typename P> struct GivesStruct<P, std::void_t<decltype(std::declval<P>().get())>> : std::true_type {};
static_assert(GivesStruct<const esolm::Prompt &>::value && !GivesStruct<esolm::Prompt>::value);

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
    esolm::TokenizeParams special;
    special.parse_special = 1;
    CHECK(take(model.tokenize("[MASK]<|endoftext|>", special)).size() == 2);
    CHECK(take(model.detokenize(take(model.tokenize("[MASK]")))) == "[MASK]" && take(model.tokenize("[MASK]")).size() > 1);
    CHECK(take(model.tokenize_template("<|endoftext|> {{mask 2}}", special)).length == 3);
    CHECK(take(model.tokenize("")).empty());

    CHECK(take(model.metadata("general.architecture")) == "esolm");
    CHECK(take(model.metadata("tokenizer.huggingface.json")).size() > 1000);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return model.metadata("no.such.key"); }));
    // C would take what is before the NUL.
    const std::string nul(1, '\0');
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return model.metadata("general.architecture" + nul); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::Model::open(path + nul); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::estimate_memory(path + nul); }));
    const auto keys = take(model.metadata_keys());
    CHECK(std::count(keys.begin(), keys.end(), "general.architecture") == 1);
    std::string joined;
    for (std::uint32_t token : take(model.tokenize("Zo\xc3\xab")))
        joined += take(model.token_bytes(token));
    CHECK(joined == "Zo\xc3\xab");
    STATUS(ESOLM_ERR_TOKENIZER, status_of([&] { return model.token_bytes(4000000000u); }));
    const esolm_model_info facts = take(model.info());
    CHECK(model.token_is_special(facts.mask_token) && !model.token_is_end(facts.mask_token));
    CHECK(facts.eos_token == ESOLM_NO_TOKEN || model.token_is_end(facts.eos_token));
    CHECK(take(esolm::estimate_memory(path)).weights == take(model.info()).tensor_bytes);
    STATUS(ESOLM_ERR_IO, status_of([] { return esolm::estimate_memory("/nowhere.gguf"); }));
}

static void generations(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.sequences = 2;
    limits.threads = 1;
    esolm::GenerateParams how;
    how.steps = 6;
    how.alpha_0 = 1;
    how.seed = 7;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const auto words = take(model.tokenize("Once upon"));
    const std::vector<std::uint32_t> last = {30, 31};
    const std::vector<esolm::Prompt> prompts = {words, {words, last}};
    // A prompt owns its tokens.
    const esolm::Prompt kept = take(model.tokenize("Once upon"));
    CHECK(kept.get().count == words.size() && std::equal(words.begin(), words.end(), kept.get().tokens));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.begin(esolm::Prompt(words, {1}), how); }));

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

    /* Several tokens per step where there would be one. */
    esolm::GenerateParams ahead;
    ahead.alpha_0 = 0, ahead.lookahead = 4, ahead.temperature = 0;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(prompts, ahead); }));
    std::size_t proposed = 0, accepted = 0;
    while (auto step = take(context.step())) {
        CHECK(step->accepted <= step->proposed && step->accepted <= step->updates.size());
        proposed += step->proposed, accepted += step->accepted;
    }
    CHECK(accepted > 0 && accepted <= proposed);

    /* Logits and probabilities on demand, and the most likely tokens. */
    how.top_log_probs = 2;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(prompts, how); }));
    const std::size_t vocabulary = take(model.info()).vocab_size;
    const std::vector<std::uint32_t> wanted = {9, 12};
    CHECK(take(context.logits(wanted)).size() == 2 * vocabulary);
    const auto likely = take(context.probabilities(wanted, 1));
    CHECK(std::abs(std::accumulate(likely.begin(), likely.end(), 0.0) - 2) < 1e-3);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.logits(std::vector<std::uint32_t>{0}); }));
    CHECK(take(context.step()));
    const auto top = take(context.top_log_probs(0));
    CHECK(top.size() == 2 && top[0].log_prob >= top[1].log_prob);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.top_log_probs(1000); }));
    how.top_log_probs = 0;

    /* In memory that the caller provides. */
    std::size_t size = take(esolm::Context::arena_size(model, limits));
    CHECK(take(esolm::Context::memory_use(model, limits)).arena == size);
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

/* Threads of the caller's: here the one that computes alone. */
static void run_in_turn(esolm_task task, const void *data, std::size_t count, void *calls)
{
    ++*static_cast<int *>(calls);
    for (std::size_t i = 0; i < count; i++)
        task(data, i);
}

/* On one processor, at a low priority, and without spinning. */
static esolm::PoolParams placed()
{
    static const std::size_t first = 0;
    esolm::PoolParams params;
    params.threads = 2;
    params.poll = 0;
#ifdef __linux__
    params.cpus = &first;
    params.n_cpus = 1;
    params.nice = 1;
#endif
    return params;
}

/* Contexts that share the threads of a pool. */
static void pools(const esolm::Model &model)
{
    esolm::PoolParams params;
    params.threads = 2;
    esolm::ContextParams limits;
    limits.length = 32;
    esolm::GenerateParams how;
    how.steps = 6;
    std::vector<std::string> texts;
    {
        esolm::Pool pool = take(esolm::Pool::make(params));
        CHECK(pool.threads() == 2);
        limits.pool = pool.get();
        esolm::Context first = take(esolm::Context::make(model, limits));
        esolm::Context second = take(esolm::Context::make(model, limits));
        STATUS(ESOLM_OK, status_of([&] { return second.set_threads(1); }));
        CHECK(take(first.threads()) == 2 && take(second.threads()) == 1);
        STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return second.set_threads(3); }));
        for (esolm::Context *context : {&first, &second}) {
            STATUS(ESOLM_OK, status_of([&] { return context->generate(esolm::Prompt(), how); }));
            texts.push_back(take(context->text()));
        }
    }
    CHECK(texts[0] == texts[1]);
    int calls = 0;
    esolm::PoolParams callers = params;
    callers.run = run_in_turn;
    callers.run_user_data = &calls;
    for (const esolm::PoolParams &other : {callers, placed()}) {
        esolm::Pool pool = take(esolm::Pool::make(other));
        limits.pool = pool.get();
        esolm::Context context = take(esolm::Context::make(model, limits));
        STATUS(ESOLM_OK, status_of([&] { return context.generate(esolm::Prompt(), how); }));
        CHECK(pool.threads() == 2 && take(context.text()) == texts[0]);
    }
    CHECK(calls > 0);
    params.poll = 101;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::Pool::make(params); }));
}

static void step_callbacks(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    esolm::GenerateParams how;
    how.steps = 6;
    how.alpha_0 = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    int calls = 0;
    CHECK(take(context.generate(esolm::Prompt{}, how, [&](const esolm::Step &step) {
        calls += step.updates.size() > 0;
        return true;
    })));
    CHECK(calls > 2);
    CHECK(!take(context.generate(esolm::Prompt{}, how, [&](const esolm::Step &step) { return step.index < 1; })));
    CHECK(bool(take(context.step()))); /* a stopped generation can be continued */
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] {
               return context.generate(esolm::Prompt{}, how, [&](const esolm::Step &) {
                   context.cancel();
                   return true;
               });
           }));
    CHECK(take(context.stop_reason()) == ESOLM_STOP_CANCELLED);
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] { return context.begin(esolm::Prompt{}, how); }));
    context.cancel_reset();
    STATUS(ESOLM_OK, status_of([&] { return context.begin(esolm::Prompt{}, how); }));
    STATUS(ESOLM_OK, status_of([&] { return context.reset(); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.tokens(); }));
#ifndef ESOLM_NO_EXCEPTIONS
    int caught = 0;
    try {
        context.generate(esolm::Prompt{}, how, [](const esolm::Step &) -> bool { throw 42; });
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42);
#endif
}

static std::int32_t only_thirty(const esolm_logits_row *row, float *logits, void *user_data)
{
    ++*static_cast<int *>(user_data);
    for (std::size_t token = 0; token < row->n_logits; token++)
        if (token != 30)
            logits[token] = -INFINITY;
    return 0;
}

static void logits(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    const auto info = take(model.info());
    const auto empty = esolm::Prompt(esolm::Template{});
    esolm::GenerateParams plain;
    plain.steps = 6;
    plain.alpha_0 = 1;
    esolm::Context made = take(esolm::Context::make(model, limits));
    STATUS(ESOLM_OK, status_of([&] { return made.generate(empty, plain); }));
    const auto expected = take(made.tokens());

    /* A callback that only reads changes nothing. */
    std::size_t calls = 0;
    esolm::GenerateParams how = plain;
    how.on_logits = [&](const esolm_logits_row &row, esolm::Span<float> logits) {
        calls += logits.size() == info.vocab_size && row.n_logits == logits.size() &&
                 logits[info.mask_token] == -INFINITY && logits[5] == row.model_logits[5];
        return true;
    };
    STATUS(ESOLM_OK, status_of([&] { return made.generate(empty, how); }));
    CHECK(calls == 32 && take(made.tokens()) == expected);

    /* A callback that edits does. The context keeps a copy of it, and takes it along when it is moved. */
    std::weak_ptr<int> kept;
    {
        auto first = std::make_shared<int>(30);
        kept = first;
        esolm::GenerateParams mine = plain;
        mine.on_logits = [first](const esolm_logits_row &row, esolm::Span<float> logits) {
            for (std::size_t token = 0; token < logits.size(); token++)
                if (token != *first + row.position % 2)
                    logits[token] = -INFINITY;
            return true;
        };
        STATUS(ESOLM_OK, status_of([&] { return made.begin(empty, mine); }));
    }
    esolm::Context context = std::move(made);
    how.steps = (1 << 20) + 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.begin(empty, how); }));
    how.steps = 6;
    how.alpha_0 = 1;
    while (take(context.step())) {
    }
    const auto edited = take(context.tokens());
    for (std::size_t i = 0; i < edited.size(); i++)
        CHECK(edited[i] == 30 + i % 2);

    /* The copy is freed with its generation. */
    CHECK(!kept.expired());
    STATUS(ESOLM_OK, status_of([&] { return context.generate(empty, plain); }));
    CHECK(kept.expired() && take(context.tokens()) == expected);
    auto held = std::make_shared<int>(0);
    how.on_logits = [held](const esolm_logits_row &, esolm::Span<float>) { return true; };
    STATUS(ESOLM_OK, status_of([&] { return context.begin(empty, how); }));
    how.on_logits = nullptr;
    CHECK(held.use_count() == 2);
    STATUS(ESOLM_OK, status_of([&] { return context.reset(); }));
    CHECK(held.use_count() == 1);
    /* Scoring ends a generation, too. Where the arguments are refused, the generation is still there. */
    using Tokens = std::vector<std::uint32_t>;
    const struct {
        std::function<esolm_status(const Tokens &)> score;
        Tokens refused;
    } scoring[] = {
        {[&](const Tokens &tokens) { return status_of([&] { return context.score_text(tokens); }); }, {}},
        {[&](const Tokens &tokens) { return status_of([&] { return context.score_order(tokens); }); }, {4000000000u}},
        {[&](const Tokens &tokens) { return status_of([&] { return context.score_masked(tokens); }); }, {4000000000u}},
    };
    for (const auto &test : scoring) {
        how.on_logits = [held](const esolm_logits_row &, esolm::Span<float>) { return true; };
        STATUS(ESOLM_OK, status_of([&] { return context.begin(empty, how); }));
        how.on_logits = nullptr;
        STATUS(ESOLM_ERR_INVALID_ARGUMENT, test.score(test.refused));
        CHECK(held.use_count() == 2 && bool(take(context.step())));
        STATUS(ESOLM_OK, test.score({5, 6, 7}));
        CHECK(held.use_count() == 1);
    }

    /* A generation that it has stopped can be continued. */
    calls = 0;
    how.on_logits = [&](const esolm_logits_row &, esolm::Span<float>) { return ++calls != 5; };
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] { return context.generate(empty, how); }));
    while (take(context.step())) {
    }
    CHECK(take(context.tokens()) == expected && calls > 32);
#ifndef ESOLM_NO_EXCEPTIONS
    calls = 0;
    how.on_logits = [&](const esolm_logits_row &, esolm::Span<float>) { return ++calls == 5 ? throw 42 : true; };
    int caught = 0;
    try {
        context.generate(empty, how);
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42 && calls == 5);
    while (take(context.step())) {
    }
    CHECK(take(context.tokens()) == expected);
#endif

    /* The callback of the C interface works too. */
    int times = 0;
    plain.logits_callback = only_thirty;
    plain.logits_user_data = &times;
    STATUS(ESOLM_OK, status_of([&] { return context.generate(empty, plain); }));
    CHECK(times == 32 && take(context.tokens()) == std::vector<std::uint32_t>(32, 30));
}

/* Readers, descriptors, features, levels of the log. */
static void loading(const char *path)
{
    std::string bytes;
    {
        std::FILE *file = std::fopen(path, "rb");
        char some[65536];
        for (std::size_t n; (n = std::fread(some, 1, sizeof some, file)) > 0;)
            bytes.append(some, n);
        std::fclose(file);
    }
    const auto read = [&](std::uint64_t offset, void *buffer, std::size_t size) {
        const std::size_t count = std::min(size, bytes.size() - static_cast<std::size_t>(offset));
        std::memcpy(buffer, bytes.data() + offset, count);
        return static_cast<std::int64_t>(count);
    };
    esolm::ModelParams how;
    how.use_mlock = how.prefetch = 1;
    const esolm::Model model = take(esolm::Model::open_reader(bytes.size(), read, how, "asset"));
    CHECK(take(model.info()).file_bytes == bytes.size());
    STATUS(ESOLM_ERR_IO, status_of([&] { return esolm::Model::open_reader(bytes.size() + 1, read, how, "asset"); }));
    CHECK(std::strstr(esolm_last_error(), "asset: it ends"));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return esolm::Model::open_reader(1, nullptr); }));
#ifndef ESOLM_NO_EXCEPTIONS
    int caught = 0;
    try {
        take(esolm::Model::open_reader(9, [](std::uint64_t, void *, std::size_t) -> std::int64_t { throw 42; }));
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42);
#endif
#ifdef _WIN32
    STATUS(ESOLM_ERR_UNSUPPORTED, status_of([] { return esolm::Model::open_fd(0); }));
#else
    std::FILE *file = std::fopen(path, "rb");
    const esolm::Model mapped = take(esolm::Model::open_fd(fileno(file)));
    std::fclose(file);
    CHECK(take(mapped.info()).file_bytes == bytes.size());
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([] { return esolm::Model::open_fd(-1); }));
#endif
    CHECK(model.supports(ESOLM_FEATURE_HOLES) && model.supports(ESOLM_FEATURE_LOOKAHEAD) && !model.supports(99));

    std::vector<std::string> heard;
    esolm::set_log([&](std::int32_t, std::string_view message) { heard.emplace_back(message); });
    CHECK(esolm_set_log_level(ESOLM_LOG_WARN) == ESOLM_OK);
    take(esolm::Model::open(path));
    CHECK(heard.empty() && esolm_set_log_level(ESOLM_LOG_INFO) == ESOLM_OK);
    take(esolm::Model::open(path));
    CHECK(heard.size() == 1 && heard[0].find("mapped") != std::string::npos);
    // A locked model, or a warning of one that cannot be; and the progress of what is read in.
    const auto says_locked = [&] {
        return std::any_of(heard.begin(), heard.end(), [](const auto &line) { return line.find("locked") != line.npos; });
    };
    const auto calls = [&](bool prefetch) {
        int count = 0;
        esolm::ModelParams params;
        params.prefetch = prefetch;
        params.progress_callback = [](double, void *counted) {
            ++*static_cast<int *>(counted);
            return std::int32_t{0};
        };
        params.progress_user_data = &count;
        take(esolm::Model::open(path, params));
        return count;
    };
    CHECK(!says_locked() && calls(true) > calls(false) && !says_locked());
    esolm::ModelParams locked;
    locked.use_mlock = true;
    take(esolm::Model::open(path, locked));
    CHECK(says_locked());
    esolm::set_log(nullptr);
    CHECK(std::string(esolm_system_info()).find("ggml") != std::string::npos);
}

/* A template, an order, a constraint, and log-probabilities. */
static void requests(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 64;
    limits.threads = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const esolm::Template known = take(model.tokenize_template("Once upon a time{{mask 9}} the end."));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return model.tokenize_template("{{mask"); }));
    std::uint32_t hole = 0;
    while (known.positions[hole] == hole)
        hole++;
    const std::vector<std::uint32_t> only = {30};
    const esolm_allowed_tokens allowed = {hole, 0, only.data(), 1};
    esolm_constraints constraint{};
    constraint.struct_size = sizeof constraint;
    const esolm_constraints *constraints[] = {&constraint};
    esolm::GenerateParams how;
    how.length = known.length;
    how.order = ESOLM_ORDER_LEFT_TO_RIGHT;
    how.alpha_0 = 0;
    how.log_probs = 1;
    constraint.allowed = &allowed;
    constraint.n_allowed = 1;
    how.constraints = constraints;
    how.n_constraints = 1;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(esolm::Prompt(known), how); }));
    std::size_t numbers = 0;
    while (auto step = take(context.step()))
        for (double log_prob : step->log_probs)
            numbers += log_prob <= 0;
    CHECK(numbers == 9 && take(context.order()).size() == known.length);
    const auto tokens = take(context.tokens());
    CHECK(tokens[hole] == 30);
    CHECK(std::equal(known.tokens.begin(), known.tokens.begin() + 3, tokens.begin()));
}

static void stop_rules(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 48;
    limits.threads = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    esolm::GenerateParams how;
    how.seed = 3;
    how.ignore_eos = 1;
    const esolm::Prompt prompt(take(model.tokenize("Once upon a time")));
    STATUS(ESOLM_OK, status_of([&] { return context.generate(prompt, how); }));
    CHECK(take(context.stop_reason()) == ESOLM_STOP_LENGTH);
    const std::string whole = take(context.text());
    const std::uint32_t last = take(context.tokens()).back();
    how.stop = {"no such text", whole.substr(whole.size() - 20, 4)};
    STATUS(ESOLM_OK, status_of([&] { return context.generate(prompt, how); }));
    CHECK(take(context.stop_reason()) == ESOLM_STOP_STRING);
    const std::string text = take(context.text());
    CHECK(text.size() < whole.size() && whole.compare(0, text.size() + 4, text + how.stop[1]) == 0);
    /* The texts of the steps, joined, are the text. */
    how.step_text = 1;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(prompt, how); }));
    std::string joined = take(context.text());
    CHECK(joined == "Once upon a time");
    while (auto step = take(context.step())) {
        CHECK(step->texts.size() == 1 && step->text(1).empty());
        joined += step->text();
        CHECK(joined == take(context.text()));
    }
    CHECK(joined == text);
    /* A token of the text ends it, behind the prompt. */
    how.stop.clear();
    how.step_text = 0;
    how.stop_tokens = &last;
    how.n_stop_tokens = 1;
    STATUS(ESOLM_OK, status_of([&] { return context.generate(prompt, how); }));
    CHECK(take(context.stop_reason()) == ESOLM_STOP_TOKEN && take(context.text()).size() < whole.size());
    how.n_stop_tokens = 0;
    for (const std::string &wrong : {std::string(), std::string("a\0b", 3)}) {
        how.stop = {wrong};
        STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.begin(prompt, how); }));
    }
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.stop_reason(1); }));
}

/* What is written so far can be read in another thread between steps and beside them: no call is busy, no text shorter. */
static void reader_beside(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 64;
    limits.threads = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    esolm::GenerateParams how;
    how.alpha_0 = 0;
    how.ignore_eos = 1;
    STATUS(ESOLM_OK, status_of([&] { return context.begin(esolm::Prompt(), how); }));
    std::atomic<bool> done{false};
    std::size_t reads = 0, wrong = 0, longest = 0;
    std::thread reader([&] {
        do {
            const std::string text = take(context.text());
            wrong += text.size() < longest;
            longest = std::max(longest, text.size());
            reads++;
        } while (!done);
    });
    while (take(context.step())) {
    }
    done = true;
    reader.join();
    CHECK(reads > 0 && wrong == 0 && longest <= take(context.text()).size());
}

/* Sequences that come and go: each has the text that it has alone, and its own function on the logits. */
static void sequences(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    esolm::Context alone = take(esolm::Context::make(model, limits));
    limits.sequences = 2;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const esolm::Prompt prompt(take(model.tokenize("Once upon a time")));
    esolm::GenerateParams how[4];
    std::string expected[4];
    for (std::uint32_t i = 0; i < 4; i++) {
        how[i].seed = i;
        how[i].steps = 3 + i;
        how[i].step_text = 1;
        how[i].max_tokens = i == 1 ? 4 : 0;
        if (i == 2)
            how[i].on_logits = [](const esolm_logits_row &row, esolm::Span<float> logits) {
                for (std::size_t token = 0; token < logits.size(); token++)
                    if (token != 30 + row.position % 2)
                        logits[token] = -INFINITY;
                return true;
            };
        STATUS(ESOLM_OK, status_of([&] { return alone.generate(prompt, how[i]); }));
        expected[i] = take(alone.text());
    }
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.remove_sequence(0); }));
    std::uint32_t of[2] = {4, 4}, next = 0, finished = 0;
    std::string texts[2];
    while (finished < 4) {
        if (next < 4 && next - finished < 2) {
            const auto number = take(context.add_sequence(prompt, how[next]));
            CHECK(number < 2 && of[number] == 4 && (next == 0 || take(context.cached_tokens(number)) > 0));
            texts[number] = take(context.text(number));
            of[number] = next++;
        } else if (next - finished == 2) {
            STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.add_sequence(prompt); }));
        }
        auto step = take(context.step());
        CHECK(bool(step));
        if (!step)
            return;
        for (std::uint32_t number = 0; number < 2; number++) {
            if (of[number] == 4)
                continue;
            texts[number] += step->text(number);
            if (step->texts[number].stop_reason != ESOLM_STOP_NONE) {
                CHECK(texts[number] == expected[of[number]]);
                finished++;
            }
        }
        for (std::uint32_t number = 0; number < 2; number++)
            if (of[number] < 4 && take(context.stop_reason(number)) != ESOLM_STOP_NONE) {
                STATUS(ESOLM_OK, status_of([&] { return context.remove_sequence(number); }));
                of[number] = 4;
            }
    }
    CHECK(!take(context.step()));

    /* A long prompt joins in parts; meanwhile the other sequence writes. */
    limits.prompt_rows = 4;
    esolm::Context parts = take(esolm::Context::make(model, limits));
    const esolm::Prompt long_prompt(std::vector<std::uint32_t>(18, 5));
    take(parts.add_sequence(prompt, how[0]));
    CHECK(take(parts.step())->updates.size() > 0);
    const auto joining = take(parts.add_sequence(long_prompt, how[1]));
    CHECK(take(parts.step())->updates[0].sequence == 0 && take(parts.cached_tokens(joining)) == 4);
    while (take(parts.step()))
        continue;
    STATUS(ESOLM_OK, status_of([&] { return alone.generate(long_prompt, how[1]); }));
    CHECK(take(parts.text(joining)) == take(alone.text()));

    /* One that fails, or whose function throws, does not end the other; the functions go with their sequences. */
    auto held = std::make_shared<int>(0);
    const auto good = take(context.add_sequence(prompt, how[2]));
    esolm::GenerateParams bad;
    bad.on_logits = [held](const esolm_logits_row &, esolm::Span<float> logits) {
#ifndef ESOLM_NO_EXCEPTIONS
        if (*held == 1)
            throw 42;
#endif
        for (float &logit : logits)
            logit = -INFINITY;
        return true;
    };
    const auto failing = take(context.add_sequence(prompt, bad));
    bad.on_logits = nullptr;
    CHECK(held.use_count() == 2);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.step(); }));
    CHECK(take(context.stop_reason(failing)) == ESOLM_STOP_ERROR && take(context.stop_reason(good)) == ESOLM_STOP_NONE);
#ifndef ESOLM_NO_EXCEPTIONS
    *held = 1;
    int caught = 0;
    try {
        context.step();
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42 && take(context.stop_reason(good)) == ESOLM_STOP_NONE);
#endif
    STATUS(ESOLM_OK, status_of([&] { return context.remove_sequence(failing); }));
    CHECK(held.use_count() == 1);
    while (take(context.step())) {
    }
    CHECK(take(context.text(good)) == expected[2]);

    /* One goes on. */
    esolm::GenerateParams begin, go_on;
    begin.length = 12;
    go_on.seed = 8;
    STATUS(ESOLM_OK, status_of([&] { return alone.generate(prompt, begin); }));
    STATUS(ESOLM_OK, status_of([&] { return alone.extend(esolm::Prompt{}, go_on); }));
    while (take(alone.step())) {
    }
    const auto number = take(context.add_sequence(prompt, begin));
    while (take(context.step())) {
    }
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.extend_sequence(9, prompt, go_on); }));
    STATUS(ESOLM_OK, status_of([&] { return context.extend_sequence(number, esolm::Prompt{}, go_on); }));
    while (take(context.step())) {
    }
    CHECK(take(context.tokens(number)) == take(alone.tokens()) && take(context.text(good)) == expected[2]);
    const std::vector<std::uint32_t> before = take(context.tokens(number));
    esolm::GenerateParams answer = go_on;
    answer.length = 0;
    answer.max_tokens = 3;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.append_sequence(9, prompt, answer); }));
    const std::vector<std::uint32_t> behind = {8, 9};
    STATUS(ESOLM_OK, status_of([&] { return context.append_sequence(number, esolm::Prompt(behind), answer, 4); }));
    while (take(context.step())) {
    }
    const std::vector<std::uint32_t> after = take(context.tokens(number));
    CHECK(after.size() == 9 && std::equal(after.begin(), after.begin() + 4, before.begin()) && after[4] == 8);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.cached_tokens(9); }));
    const std::vector<std::uint8_t> saved = take(context.save_sequence(number));
    STATUS(ESOLM_OK, status_of([&] { return context.remove_sequence(number); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.save_sequence(number); }));
    CHECK(take(context.tokens(take(context.restore_sequence(saved)))) == after);
}

static void conversations(const esolm::Model &model)
{
    const std::vector<esolm::Message> messages = {{"user", "Hi"}, {"assistant", "Yes"}, {"user", "So?"}};
    esolm::ChatParams how;
    STATUS(ESOLM_ERR_UNSUPPORTED, status_of([&] { return model.chat_apply(messages, how); }));
    how.chat_template = "chatml";
    const esolm_status status = status_of([&] { return model.chat_apply(messages, how); });
    CHECK(status == ESOLM_OK || status == ESOLM_ERR_UNSUPPORTED);
    if (status != ESOLM_OK) {
        /* So says a library without the feature alone. */
        CHECK(std::string(esolm_last_error()).find("feature 'chat'") != std::string::npos);
        return;
    }
    CHECK(take(model.chat_apply({messages[0]}, how)) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    how.add_generation_prompt = 0;
    CHECK(take(model.chat_apply({messages[0]}, how)) == "<|im_start|>user\nHi<|im_end|>\n");
    how.add_generation_prompt = 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT,
           status_of([&] { return model.chat_apply({{"user", std::string("a\0b", 3)}}, how); }));
    CHECK(take(model.chat_answer_end(how)) == "<|im_end|>");
    esolm::ChatParams told;
    told.chat_template = "{{ think }}", told.chat_template_kwargs = "{\"think\": [false]}";
    CHECK(take(model.chat_apply(messages, told)) == "[False]");
    const std::size_t all = take(model.chat_tokenize(messages, how)).size();
    how.behind = 2;
    CHECK(take(model.chat_tokenize(messages, how)).size() < all);
}

static void scores(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    esolm::Context context = take(esolm::Context::make(model, limits));
    const auto words = take(model.tokenize("Once upon a time"));
    const auto all = take(context.score_order(words)), last = take(context.score_order(words, {}, words.size() - 1));
    CHECK(all.size() == words.size() && last.size() == 1 && std::abs(last[0] - all.back()) < 1e-3);
    CHECK(take(context.score_order(words, {}, words.size())).empty());
    CHECK(std::abs(take(context.score_masked(words, {}, words.size() - 1))[0] - last[0]) < 1e-3);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.score_order(words, {}, words.size() + 1); }));
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.score_masked(words, {words.data(), 1}); }));
    const double nll = take(context.score_text(words)).nll;
    CHECK(std::abs(nll + std::accumulate(all.begin(), all.end(), 0.0)) < 1e-6);
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.score_text({}); }));

    /* More than two windows, with the log-probability of each token and the progress. */
    std::vector<std::uint32_t> longer;
    while (longer.size() < 2 * limits.length + 5)
        longer.push_back(words[longer.size() % words.size()]);
    std::vector<double> log_p = {7}, heard;
    const auto score = take(context.score_text(longer, {}, &log_p, [&](double fraction) {
        heard.push_back(fraction);
        return true;
    }));
    CHECK(log_p.size() == longer.size() && score.scored_tokens == longer.size());
    CHECK(std::abs(score.nll + std::accumulate(log_p.begin(), log_p.end(), 0.0)) < 1e-6);
    CHECK(heard.size() == 3 && heard[0] > 0 && heard[0] < heard[1] && heard[1] < heard[2] && heard[2] == 1);
    /* Cancelled after a window; what was there stays. */
    std::vector<double> kept = {7};
    int calls = 0;
    const auto second = [&](double) { return ++calls != 2; };
    STATUS(ESOLM_ERR_CANCELLED, status_of([&] { return context.score_text(longer, {}, &kept, second); }));
    CHECK(calls == 2 && kept == std::vector<double>{7});
    esolm::ScoreParams bound;
    bound.orders = 0;
    bound.draws = 1;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return context.score_text(words, bound, &kept); }));
#ifndef ESOLM_NO_EXCEPTIONS
    int caught = 0;
    try {
        context.score_text(longer, {}, &kept, [](double) -> bool { throw 42; });
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42 && kept == std::vector<double>{7});
#endif
    STATUS(ESOLM_OK, status_of([&] { return context.score_text(words); }));
}

static void states(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 32;
    limits.threads = 1;
    esolm::Context one = take(esolm::Context::make(model, limits)), two = take(esolm::Context::make(model, limits));
    esolm::GenerateParams how;
    how.length = 16;
    const auto prompt = esolm::Prompt(esolm::Template{});
    STATUS(ESOLM_OK, status_of([&] { return one.generate(prompt, how); }));
    const auto bytes = take(one.save());
    STATUS(ESOLM_OK, status_of([&] { return two.restore(bytes); }));
    STATUS(ESOLM_ERR_BAD_FILE, status_of([&] { return two.restore({bytes.data(), bytes.size() - 1}); }));
    how.length = 32;
    for (esolm::Context *context : {&one, &two}) {
        STATUS(ESOLM_OK, status_of([&] { return context->extend(prompt, how); }));
        while (take(context->step())) {
        }
    }
    CHECK(take(one.tokens()) == take(two.tokens()) && take(one.tokens()).size() == 32);
    CHECK(take(two.profile()).blocks > 0);
    how.length = 31;
    STATUS(ESOLM_ERR_INVALID_ARGUMENT, status_of([&] { return two.extend(prompt, how); }));
}

static void messages(const esolm::Model &model)
{
    esolm::ContextParams limits;
    limits.length = 16;
    limits.threads = 1;
    esolm::Context one = take(esolm::Context::make(model, limits));
    limits.kv_type = ESOLM_KV_F32;
    esolm::Context two = take(esolm::Context::make(model, limits));
    STATUS(ESOLM_OK, status_of([&] { return one.generate(esolm::Prompt{}); }));
    const auto bytes = take(one.save());
    const auto restored = [&] { STATUS(ESOLM_OK, status_of([&] { return two.restore(bytes); })); };

    const std::string says = "3: saved state: keys and values (F16) are computed again for this context (F32)";
    std::vector<std::string> heard, last;
    const auto into = [](std::vector<std::string> &list) {
        return [&list](std::int32_t level, std::string_view message) {
            list.push_back(std::to_string(level) + ": " + std::string(message));
        };
    };
    /* The destructor of the old function's captures may cause a message: the new function gets it. */
    std::shared_ptr<int> word(new int, [&](int *number) {
        delete number;
        restored();
    });
    esolm::set_log([word = std::move(word), log = into(heard)](std::int32_t level, std::string_view message) {
        log(level, message);
    });
    restored();
    CHECK(heard == std::vector<std::string>{says});
    esolm::set_log(into(last));
    CHECK(heard.size() == 1 && last == std::vector<std::string>{says});
#ifndef ESOLM_NO_EXCEPTIONS
    esolm::set_log([&](std::int32_t, std::string_view) {
        heard.emplace_back();
        throw 42;
    });
    restored();
    CHECK(heard.size() == 2);
#endif
    const std::size_t before = heard.size();
    esolm::set_log(nullptr);
    restored();
    CHECK(heard.size() == before && last.size() == 1);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    handles(argv[1]);
    loading(argv[1]);
    esolm::Model model = take(esolm::Model::open(argv[1]));
    generations(model);
    pools(model);
    step_callbacks(model);
    logits(model);
    requests(model);
    stop_rules(model);
    reader_beside(model);
    sequences(model);
    conversations(model);
    scores(model);
    states(model);
    messages(model);
    return report();
}
