/*
 * esolm for C++17: classes that free what they own. esolm.h says what each call does; the topics here are in its order.
 * Only this header and the C library are needed.
 *
 *     auto model = esolm::Model::open("model.gguf");
 *     auto context = esolm::Context::make(model);
 *     auto tokens = model.tokenize("Once upon");
 *     context.generate(esolm::Prompt(tokens));
 *     std::cout << context.text() << '\n';
 *
 * Errors are exceptions (esolm::Exception). Without exceptions (-fno-exceptions, or ESOLM_NO_EXCEPTIONS is defined) every
 * function that is declared to return Result<T> returns an object that holds a T or an Error:
 *
 *     auto model = esolm::Model::open("model.gguf");
 *     if (!model)
 *         return complain(model.error().message);
 *     auto context = esolm::Context::make(*model);
 *
 * Model and Context can be moved, not copied; after that the source may only be destroyed or assigned to. Threads: any
 * number may use a Model, one at a time computes with a Context; Context::cancel, and what reads the last step's texts and
 * tokens, may be called at any time.
 *
 * Without a wrapper: esolm_version, esolm_system_info, esolm_abi_version and esolm_status_text, which are called as they are,
 * as is esolm_set_log_level; esolm_tokenize and
 * esolm_tokenize_template, which are those of the same name with parameters; and
 * esolm_generate, since Context::generate calls esolm_step for each step, so that its functions may throw.
 */
#ifndef ESOLM_HPP
#define ESOLM_HPP

#include "esolm.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(ESOLM_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#define ESOLM_NO_EXCEPTIONS
#endif
#ifndef ESOLM_NO_EXCEPTIONS
#include <exception>
#include <stdexcept>
#endif

namespace esolm {

// ---- Status and errors ----

// An ESOLM_ERR_ value and its message for people.
struct Error {
    esolm_status status = ESOLM_OK;
    std::string message;
};

// Has compilers that know it warn where the result outlives the argument.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::lifetimebound)
#define ESOLM_LIFETIMEBOUND [[clang::lifetimebound]]
#elif __has_cpp_attribute(msvc::lifetimebound)
#define ESOLM_LIFETIMEBOUND [[msvc::lifetimebound]]
#endif
#endif
#ifndef ESOLM_LIFETIMEBOUND
#define ESOLM_LIFETIMEBOUND
#endif

// The two kinds of Result are different types, so files compiled with and without exceptions can be linked together.
#ifndef ESOLM_NO_EXCEPTIONS
inline namespace throwing {

class Exception : public std::runtime_error {
public:
    explicit Exception(Error error) : std::runtime_error(error.message), status_(error.status) {}
    esolm_status status() const noexcept { return status_; }

private:
    esolm_status status_;
};

template <class T> using Result = T;

namespace detail {
template <class T> Result<T> fail(Error error) { throw Exception(std::move(error)); }
inline void done() {}
} // namespace detail

#else
inline namespace returning {

template <class T> class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::move(error)) {}

    explicit operator bool() const noexcept { return value_.has_value(); }
    // The value; aborts if there is none.
    T &operator*() & { return present(); }
    T &&operator*() && { return std::move(present()); }
    T *operator->() { return &present(); }
    const Error &error() const noexcept { return error_; }

private:
    T &present()
    {
        if (!value_)
            std::abort();
        return *value_;
    }
    std::optional<T> value_;
    Error error_;
};

template <> class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}

    explicit operator bool() const noexcept { return error_.status == ESOLM_OK; }
    const Error &error() const noexcept { return error_; }

private:
    Error error_;
};

namespace detail {
template <class T> Result<T> fail(Error error) { return error; }
inline Result<void> done() { return {}; }
} // namespace detail

#endif

// ---- Helpers ----

namespace detail {
// To be called right after the failing call, whose message it takes.
template <class T> Result<T> fail(esolm_status status) { return fail<T>(Error{status, esolm_last_error()}); }
inline Result<void> checked(esolm_status status) { return status ? fail<void>(status) : done(); }

// A text for C, where it ends at its first NUL: one that has a NUL is NULL, which the functions refuse.
inline const char *c_string(const std::string &text)
{
    return text.find('\0') == std::string::npos ? text.c_str() : nullptr;
}

// The struct that `fill` writes.
template <class T, class F> Result<T> described(F &&fill)
{
    T about{};
    about.struct_size = sizeof about;
    if (esolm_status status = fill(&about))
        return fail<T>(status);
    return about;
}

// The buffer that `fill(data, capacity, &size)` writes; `size` is a first guess.
template <class Buffer, class F> Result<Buffer> filled(std::size_t size, F &&fill)
{
    Buffer buffer(size, 0);
    esolm_status status;
    while ((status = fill(buffer.data(), buffer.size(), &size)) == ESOLM_ERR_BUFFER_TOO_SMALL)
        buffer.resize(size);
    if (status)
        return fail<Buffer>(status);
    buffer.resize(size);
    return buffer;
}

// The same for text, whose size does not include the NUL.
template <class F> Result<std::string> text(std::size_t size, F &&fill)
{
    return filled<std::string>(size, [&](char *text, std::size_t capacity, std::size_t *length) {
        esolm_status status = fill(text, capacity, length);
        *length += status == ESOLM_ERR_BUFFER_TOO_SMALL;
        return status;
    });
}
} // namespace detail

// A pointer and a number of elements, made from anything with data() and size(), from which it borrows.
template <class T> class Span {
public:
    Span() = default;
    Span(T *data, std::size_t size) : data_(data), size_(size) {}
    template <class C, class = decltype(static_cast<T *>(std::declval<C &>().data()))>
    Span(C &&container ESOLM_LIFETIMEBOUND) : data_(container.data()), size_(container.size())
    {
    }

    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t index) const { return data_[index]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

// ---- Log messages ----

// Called with each message: its level (ESOLM_LOG_*) and text that is valid during the call.
using Log = std::function<void(std::int32_t level, std::string_view message)>;

namespace detail {
// The current Log. Never destroyed, because threads may outlive main.
struct LogSink {
    std::mutex guard;
    std::shared_ptr<const Log> log;

    static LogSink &get()
    {
        static LogSink &sink = *new LogSink;
        return sink;
    }

    static void call(std::int32_t level, const char *message, void *)
    {
        const std::shared_ptr<const Log> log = get().current();
        if (!log)
            return;
#ifndef ESOLM_NO_EXCEPTIONS
        try {
            (*log)(level, message);
        } catch (...) {
        }
#else
        (*log)(level, message);
#endif
    }

    std::shared_ptr<const Log> current()
    {
        std::lock_guard<std::mutex> held(guard);
        return log;
    }

    void set(std::shared_ptr<const Log> with)
    {
        std::unique_lock<std::mutex> held(guard);
        log.swap(with);
        esolm_set_log_callback(log ? &call : nullptr, nullptr);
        held.unlock(); // before the previous one is destroyed, which may log
    }
};
} // namespace detail

// Sets the function that receives all later messages of this process; empty (the default): no messages. It may be
// called from any thread and from several at once, is destroyed after its last call, and its exceptions are dropped.
inline void set_log(Log log) { detail::LogSink::get().set(log ? std::make_shared<const Log>(std::move(log)) : nullptr); }

// ---- Devices ----

// The devices that this build finds on this machine, the CPU included.
inline Result<std::vector<esolm_device_info>> devices()
{
    using Infos = std::vector<esolm_device_info>;
    std::size_t count = 0;
    if (esolm_status status = esolm_device_count(&count))
        return detail::fail<Infos>(status);
    Infos infos(count);
    for (std::size_t i = 0; i < count; i++) {
        infos[i].struct_size = sizeof infos[i];
        if (esolm_status status = esolm_device_info_get(i, &infos[i]))
            return detail::fail<Infos>(status);
    }
    return infos;
}

// ---- Models, tokens and text ----

// Set to the defaults, as are the other structs of parameters.
struct ModelParams : esolm_model_params {
    ModelParams() { esolm_model_params_init(this, sizeof(esolm_model_params)); }
};

struct TokenizeParams : esolm_tokenize_params {
    TokenizeParams() { esolm_tokenize_params_init(this, sizeof(esolm_tokenize_params)); }
};

// How the messages of a conversation become one text: chat_template, behind, add_generation_prompt, chat_template_kwargs.
struct ChatParams : esolm_chat_params {
    ChatParams() { esolm_chat_params_init(this, sizeof(esolm_chat_params)); }
};

// A message of a conversation.
struct Message {
    std::string role, content;
};

// Reads a model's file: up to size bytes from offset on into buffer. Returns how many there are; 0: the file ends here;
// negative: it cannot be read. An exception ends Model::open_reader and passes through it.
using Read = std::function<std::int64_t(std::uint64_t offset, void *buffer, std::size_t size)>;

// A text with holes: its known tokens, their positions, and the length of the whole text in tokens.
struct Template {
    std::vector<std::uint32_t> tokens, positions;
    std::size_t length = 0;
};

class Model {
public:
    static Result<Model> open(const std::string &path, const ModelParams &params = {})
    {
        esolm_model *model = nullptr;
        if (esolm_status status = esolm_model_open(detail::c_string(path), &params, &model))
            return detail::fail<Model>(status);
        return Model(model);
    }

    // With ESOLM_MODE_MAP (default) the bytes must outlive the model and its contexts.
    static Result<Model> open_memory(const void *data, std::size_t size, const ModelParams &params = {})
    {
        esolm_model *model = nullptr;
        if (esolm_status status = esolm_model_open_memory(data, size, &params, &model))
            return detail::fail<Model>(status);
        return Model(model);
    }

    // Opens a file of size bytes that a function reads; name is for messages. (The field close of C is left out: a function
    // frees what it has captured.)
    static Result<Model> open_reader(std::uint64_t size, Read read, const ModelParams &params = {},
                                     const std::string &name = "")
    {
        Reader state{std::move(read)};
        esolm_model_reader reader{};
        reader.struct_size = sizeof reader;
        reader.size = size;
        reader.read = state.function ? &Reader::call : nullptr;
        reader.user_data = &state;
        reader.name = name.c_str();
        esolm_model *model = nullptr;
        const esolm_status status = esolm_model_open_reader(&reader, &params, &model);
#ifndef ESOLM_NO_EXCEPTIONS
        if (state.thrown)
            std::rethrow_exception(state.thrown);
#endif
        if (status)
            return detail::fail<Model>(status);
        return Model(model);
    }

    // Opens length bytes of an open file from offset on; 0: all up to its end. The descriptor stays the caller's.
    static Result<Model> open_fd(int fd, std::uint64_t offset = 0, std::uint64_t length = 0,
                                 const ModelParams &params = {})
    {
        esolm_model *model = nullptr;
        if (esolm_status status = esolm_model_open_fd(fd, offset, length, &params, &model))
            return detail::fail<Model>(status);
        return Model(model);
    }

    // Another reference to the same model.
    Result<Model> share() const
    {
        if (esolm_status status = esolm_model_retain(get()))
            return detail::fail<Model>(status);
        return Model(handle_.get());
    }

    Result<esolm_model_info> info() const
    {
        return detail::described<esolm_model_info>([&](esolm_model_info *info) {
            return esolm_model_info_get(get(), info);
        });
    }

    // Whether this model, in this build, can do something: ESOLM_FEATURE_*.
    bool supports(std::int32_t feature) const noexcept { return esolm_model_supports(get(), feature) != 0; }

    // The value of a key of the metadata, as text.
    Result<std::string> metadata(const std::string &key) const
    {
        return detail::text(128, [&](char *text, std::size_t capacity, std::size_t *length) {
            return esolm_model_metadata_get(get(), detail::c_string(key), text, capacity, length);
        });
    }

    // The keys of the metadata, in the file's order.
    Result<std::vector<std::string>> metadata_keys() const
    {
        using Keys = std::vector<std::string>;
        std::size_t count = 0;
        if (esolm_status status = esolm_model_metadata_count(get(), &count))
            return detail::fail<Keys>(status);
        Keys keys(count);
        for (std::size_t i = 0; i < count; i++) {
            std::size_t length = 0;
            esolm_status status = esolm_model_metadata_key(get(), i, nullptr, 0, &length);
            if (status == ESOLM_ERR_BUFFER_TOO_SMALL) {
                keys[i].resize(length + 1); // with the NUL
                status = esolm_model_metadata_key(get(), i, keys[i].data(), keys[i].size(), &length);
                keys[i].resize(length);
            }
            if (status)
                return detail::fail<Keys>(status);
        }
        return keys;
    }

    Result<std::vector<std::uint32_t>> tokenize(std::string_view text, const TokenizeParams &params = {}) const
    {
        using Tokens = std::vector<std::uint32_t>;
        return detail::filled<Tokens>(text.size() / 2 + 8, [&](std::uint32_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_tokenize_with_params(get(), text.data(), text.size(), &params, to, capacity, n);
        });
    }

    Result<std::string> detokenize(Span<const std::uint32_t> tokens) const
    {
        return detail::text(tokens.size() * 4 + 1, [&](char *text, std::size_t capacity, std::size_t *length) {
            return esolm_detokenize(get(), tokens.data(), tokens.size(), text, capacity, length);
        });
    }

    // Converts a text with holes, such as "Once {{mask 12}} after.".
    Result<Template> tokenize_template(std::string_view text, const TokenizeParams &params = {}) const
    {
        Template found;
        std::size_t n = text.size() / 2 + 8;
        esolm_status status;
        do {
            found.tokens.resize(n);
            found.positions.resize(n);
            status = esolm_tokenize_template_with_params(get(), text.data(), text.size(), &params, found.tokens.data(),
                                                         found.positions.data(), n, &n, &found.length);
        } while (status == ESOLM_ERR_BUFFER_TOO_SMALL);
        if (status)
            return detail::fail<Template>(status);
        found.tokens.resize(n);
        found.positions.resize(n);
        return found;
    }

    // The bytes of one token, which may be part of a character.
    Result<std::string> token_bytes(std::uint32_t token) const
    {
        return detail::filled<std::string>(32, [&](char *bytes, std::size_t capacity, std::size_t *n) {
            return esolm_token_bytes(get(), token, reinterpret_cast<std::uint8_t *>(bytes), capacity, n);
        });
    }

    // Whether a token ends a text.
    bool token_is_end(std::uint32_t token) const noexcept { return esolm_token_is_end(get(), token) != 0; }

    // Whether a token stands for no text: special ones, and the mask.
    bool token_is_special(std::uint32_t token) const noexcept { return esolm_token_is_special(get(), token) != 0; }

    // The text of a conversation.
    Result<std::string> chat_apply(const std::vector<Message> &messages, const ChatParams &params = {}) const
    {
        const std::vector<esolm_message> own = borrowed(messages);
        return detail::text(1024, [&](char *text, std::size_t capacity, std::size_t *length) {
            return esolm_chat_apply(get(), own.data(), own.size(), &params, text, capacity, length);
        });
    }

    // The tokens of a conversation up to the model's next answer; with params.behind, of what follows an answer.
    Result<std::vector<std::uint32_t>> chat_tokenize(const std::vector<Message> &messages,
                                                     const ChatParams &params = {}) const
    {
        using Tokens = std::vector<std::uint32_t>;
        const std::vector<esolm_message> own = borrowed(messages);
        return detail::filled<Tokens>(512, [&](std::uint32_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_chat_tokenize(get(), own.data(), own.size(), &params, to, capacity, n);
        });
    }

    // What the template writes behind an answer: a stop string, which may be the name of a token.
    Result<std::string> chat_answer_end(const ChatParams &params = {}) const
    {
        return detail::text(32, [&](char *text, std::size_t capacity, std::size_t *length) {
            return esolm_chat_answer_end(get(), &params, text, capacity, length);
        });
    }

    const esolm_model *get() const noexcept { return handle_.get(); }

private:
    static std::vector<esolm_message> borrowed(const std::vector<Message> &messages)
    {
        std::vector<esolm_message> own;
        for (const Message &message : messages)
            own.push_back({detail::c_string(message.role), detail::c_string(message.content)});
        return own;
    }

    struct Free {
        void operator()(esolm_model *model) const noexcept { esolm_model_free(model); }
    };
    // What esolm_model_open_reader calls.
    struct Reader {
        Read function;
#ifndef ESOLM_NO_EXCEPTIONS
        std::exception_ptr thrown = nullptr;
#endif

        static std::int64_t call(std::uint64_t offset, void *buffer, std::size_t size, void *self)
        {
            auto &reader = *static_cast<Reader *>(self);
#ifndef ESOLM_NO_EXCEPTIONS
            try {
                return reader.function(offset, buffer, size);
            } catch (...) {
                reader.thrown = std::current_exception();
                return -1;
            }
#else
            return reader.function(offset, buffer, size);
#endif
        }
    };

    explicit Model(esolm_model *model) : handle_(model) {}
    std::unique_ptr<esolm_model, Free> handle_;
};

// ---- Thread pools ----

struct PoolParams : esolm_pool_params {
    PoolParams() { esolm_pool_params_init(this, sizeof(esolm_pool_params)); }
};

// Threads that several contexts share: ContextParams::pool = pool.get(). Contexts keep them alive.
class Pool {
public:
    static Result<Pool> make(const PoolParams &params = {})
    {
        esolm_pool *pool = nullptr;
        if (esolm_status status = esolm_pool_new(&params, &pool))
            return detail::fail<Pool>(status);
        return Pool(pool);
    }

    std::size_t threads() const noexcept { return esolm_pool_threads(handle_.get()); }
    const esolm_pool *get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(esolm_pool *pool) const noexcept { esolm_pool_free(pool); }
    };
    explicit Pool(esolm_pool *pool) : handle_(pool) {}
    std::unique_ptr<esolm_pool, Free> handle_;
};

// ---- Contexts and memory ----

struct ContextParams : esolm_context_params {
    ContextParams() { esolm_context_params_init(this, sizeof(esolm_context_params)); }
};

// The memory that the model in a file and a context of it would take, without opening it.
inline Result<esolm_memory_use> estimate_memory(const std::string &path, const ModelParams &model = {},
                                                const ContextParams &context = {})
{
    return detail::described<esolm_memory_use>([&](esolm_memory_use *use) {
        return esolm_memory_estimate(detail::c_string(path), &model, &context, use);
    });
}

// ---- Prompts ----

// The known tokens of a sequence, and their positions: one each, or none at all for a prefix.
class Prompt {
public:
    Prompt() = default;
    Prompt(std::vector<std::uint32_t> tokens) : tokens_(std::move(tokens)) {}
    Prompt(std::vector<std::uint32_t> tokens, std::vector<std::uint32_t> positions)
        : tokens_(std::move(tokens)), positions_(std::move(positions)), valid_(tokens_.size() == positions_.size())
    {
    }
    Prompt(Template known) : Prompt(std::move(known.tokens), std::move(known.positions)) {}

    // The struct of C, which borrows from this.
    esolm_prompt get() const & noexcept ESOLM_LIFETIMEBOUND
    {
        // A token without an address is refused as an invalid argument.
        if (!valid_)
            return {nullptr, nullptr, 1};
        return {tokens_.data(), positions_.empty() ? nullptr : positions_.data(), tokens_.size()};
    }
    esolm_prompt get() const && = delete;

private:
    std::vector<std::uint32_t> tokens_, positions_;
    bool valid_ = true;
};

// An argument: the prompts of all sequences, or the prompt of the only one. It borrows, so it is not for keeping.
class Prompts {
public:
    Prompts(const Prompt &one ESOLM_LIFETIMEBOUND) : structs_{one.get()} {}
    Prompts(const std::vector<Prompt> &all ESOLM_LIFETIMEBOUND)
    {
        structs_.reserve(all.size());
        for (const Prompt &prompt : all)
            structs_.push_back(prompt.get());
    }
    const esolm_prompt *data() const noexcept { return structs_.data(); }
    std::size_t size() const noexcept { return structs_.size(); }

private:
    std::vector<esolm_prompt> structs_;
};

// ---- Generation parameters ----

// Beside the fields of C; alpha_0 is ESOLM_ALPHA_0_AUTO by default.
struct GenerateParams : esolm_generate_params {
    GenerateParams() { esolm_generate_params_init(this, sizeof(esolm_generate_params)); }

    // Replaces logits_callback: reads or changes the logits that a token is drawn from; false cancels the step. The
    // context keeps a copy for all steps of the generation. An exception ends the step and reaches the caller. Either
    // way the generation is as before the step.
    std::function<bool(const esolm_logits_row &, Span<float>)> on_logits;

    // Replaces stop_strings.
    std::vector<std::string> stop;
};

// ---- Generating, states, profile, scoring ----

// What a step did. Valid until the next call on the context.
struct Step {
    std::size_t index;
    std::size_t total;
    Span<const esolm_update> updates;
    // The log-probability of each token; empty unless GenerateParams::log_probs is 1.
    Span<const double> log_probs;
    // The new text of each sequence; empty unless GenerateParams::step_text is 1.
    Span<const esolm_step_text> texts;
    // How many tokens had been proposed for this step, and how many of them are among the updates: GenerateParams::lookahead.
    std::size_t proposed;
    std::size_t accepted;

    // The text of a sequence that became final in this step.
    std::string_view text(std::uint32_t sequence = 0) const
    {
        if (sequence >= texts.size())
            return {};
        return {texts.data()[sequence].text, texts.data()[sequence].len};
    }
};

struct ScoreParams : esolm_score_params {
    ScoreParams() { esolm_score_params_init(this, sizeof(esolm_score_params)); }
};

// Called with the fraction of a long operation that is done, 0 to 1 and never decreasing; false cancels it. An exception ends
// the operation and reaches the caller.
using Progress = std::function<bool(double fraction)>;

class Context {
public:
    // The exact number of bytes that make_in needs.
    static Result<std::size_t> arena_size(const Model &model, const ContextParams &params = {})
    {
        std::size_t size = 0;
        if (esolm_status status = esolm_context_arena_size(model.get(), &params, &size))
            return detail::fail<std::size_t>(status);
        return size;
    }

    static Result<Context> make(const Model &model, const ContextParams &params = {})
    {
        esolm_context *context = nullptr;
        if (esolm_status status = esolm_context_new(model.get(), &params, &context))
            return detail::fail<Context>(status);
        return Context(Handle(context), params);
    }

    // In the caller's memory, aligned to ESOLM_ARENA_ALIGNMENT, which must outlive the context.
    static Result<Context> make_in(const Model &model, void *arena, std::size_t size, const ContextParams &params = {})
    {
        esolm_context *context = nullptr;
        if (esolm_status status = esolm_context_new_in(model.get(), &params, arena, size, &context))
            return detail::fail<Context>(status);
        return Context(Handle(context), params);
    }

    // Has this many threads compute, up to as many as the context was made for.
    Result<void> set_threads(std::size_t threads)
    {
        return detail::checked(esolm_context_set_threads(handle_.get(), threads));
    }
    Result<std::size_t> threads() const
    {
        std::size_t threads = 0;
        if (esolm_status status = esolm_context_threads(handle_.get(), &threads))
            return detail::fail<std::size_t>(status);
        return threads;
    }

    // What a pass costs beside its rows, in rows, measured; it ends the generation. By it an automatic lookahead or window decides
    // once it is set. 0 stands for what is the same on all machines.
    Result<float> measure_pass_overhead()
    {
        float rows = 0;
        if (esolm_status status = forgetting(esolm_context_measure_pass_overhead(handle_.get(), &rows)))
            return detail::fail<float>(status);
        return rows;
    }
    Result<void> set_pass_overhead(float rows)
    {
        return detail::checked(esolm_context_set_pass_overhead(handle_.get(), rows));
    }

    // Drops the generation.
    Result<void> reset() { return detail::checked(forgetting(esolm_context_reset(handle_.get()))); }

    // Cancels the call that is running and every later one, until cancel_reset. From any thread.
    void cancel() const noexcept { esolm_cancel(handle_.get()); }
    void cancel_reset() const noexcept { esolm_cancel_reset(handle_.get()); }

    // The exact memory of a context, without making it.
    static Result<esolm_memory_use> memory_use(const Model &model, const ContextParams &params = {})
    {
        return detail::described<esolm_memory_use>([&](esolm_memory_use *use) {
            return esolm_context_memory_use(model.get(), &params, use);
        });
    }

    // Generates to the end.
    Result<void> generate(Prompts prompts, const GenerateParams &params = {})
    {
        esolm_step_info info{};
        info.struct_size = sizeof info;
        std::int32_t done = 0;
        esolm_status status = started(esolm_begin, prompts, params);
        while (!status && !done)
            status = stepped(info, done);
        return detail::checked(status);
    }

    // Generates to the end, or until on_step, a bool(const Step &), returns false; the result is whether the end was
    // reached. An exception of on_step ends the call and reaches the caller.
    template <class F> Result<bool> generate(Prompts prompts, const GenerateParams &params, F &&on_step)
    {
        esolm_step_info info{};
        info.struct_size = sizeof info;
        std::int32_t done = 0;
        esolm_status status = started(esolm_begin, prompts, params);
        while (!status && !(status = stepped(info, done)) && !done)
            if (!on_step(seen(info)))
                return false;
        if (status)
            return detail::fail<bool>(status);
        return true;
    }

    Result<void> begin(Prompts prompts, const GenerateParams &params = {})
    {
        return detail::checked(started(esolm_begin, prompts, params));
    }

    // Continues from all known tokens, to a longer text; step runs it.
    Result<void> extend(Prompts prompts, const GenerateParams &params = {})
    {
        return detail::checked(started(esolm_extend, prompts, params));
    }

    // Adds a sequence to the generation, between two steps or in a new context, and returns its number. The others are not
    // disturbed; its text is the one that it would get alone. GenerateParams::on_logits is for this sequence.
    Result<std::uint32_t> add_sequence(const Prompt &prompt, const GenerateParams &params = {})
    {
        const Request request(params);
        const esolm_prompt known = prompt.get();
        std::uint32_t sequence = 0;
        if (esolm_status status = esolm_sequence_add(handle_.get(), &known, &request.how, &sequence))
            return detail::fail<std::uint32_t>(status);
        logits_callbacks_[sequence] = request.callback;
        return sequence;
    }

    // As extend for one sequence; the others are not disturbed.
    Result<void> extend_sequence(std::uint32_t sequence, const Prompt &prompt, const GenerateParams &params = {})
    {
        const Request request(params);
        const esolm_prompt known = prompt.get();
        esolm_status status = esolm_sequence_extend(handle_.get(), sequence, &known, &request.how);
        if (!status)
            logits_callbacks_[sequence] = request.callback;
        return detail::checked(status);
    }

    // Goes on behind the text of a sequence with a prompt whose positions count from there, and keeps at most its first keep
    // tokens; the others are not disturbed.
    Result<void> append_sequence(std::uint32_t sequence, const Prompt &prompt, const GenerateParams &params = {},
                                 std::size_t keep = SIZE_MAX)
    {
        const Request request(params);
        const esolm_prompt known = prompt.get();
        esolm_status status = esolm_sequence_append(handle_.get(), sequence, keep, &known, &request.how);
        if (!status)
            logits_callbacks_[sequence] = request.callback;
        return detail::checked(status);
    }

    // Removes a sequence, finished or not; its number may then be another's.
    Result<void> remove_sequence(std::uint32_t sequence)
    {
        esolm_status status = esolm_sequence_remove(handle_.get(), sequence);
        if (!status)
            logits_callbacks_[sequence].reset();
        return detail::checked(status);
    }

    // How many tokens of a sequence have keys and values that the next steps need not compute. Before the first step of one
    // that was added: those that came from another sequence.
    Result<std::size_t> cached_tokens(std::uint32_t sequence = 0)
    {
        std::size_t count = 0;
        if (esolm_status status = esolm_sequence_cached_tokens(handle_.get(), sequence, &count))
            return detail::fail<std::size_t>(status);
        return count;
    }

    // Runs the next step of all sequences; std::nullopt if they are finished. If it fails for one of them, stop_reason is
    // ESOLM_STOP_ERROR for this one alone, and the others go on once it is removed.
    Result<std::optional<Step>> step()
    {
        esolm_step_info info{};
        info.struct_size = sizeof info;
        std::int32_t done = 0;
        if (esolm_status status = stepped(info, done))
            return detail::fail<std::optional<Step>>(status);
        return done ? std::optional<Step>() : std::optional<Step>(seen(info));
    }

    // The order in which the positions of a sequence are generated; while a window slides, those that are final.
    Result<std::vector<std::uint32_t>> order(std::uint32_t sequence = 0)
    {
        using Positions = std::vector<std::uint32_t>;
        return detail::filled<Positions>(64, [&](std::uint32_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_copy_order(handle_.get(), sequence, to, capacity, n);
        });
    }

    Result<std::vector<std::uint32_t>> tokens(std::uint32_t sequence = 0)
    {
        using Tokens = std::vector<std::uint32_t>;
        return detail::filled<Tokens>(64, [&](std::uint32_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_copy_tokens(handle_.get(), sequence, to, capacity, n);
        });
    }

    Result<std::string> text(std::uint32_t sequence = 0)
    {
        return detail::text(256, [&](char *text, std::size_t capacity, std::size_t *length) {
            return esolm_copy_text(handle_.get(), sequence, text, capacity, length);
        });
    }

    // Why the text of a sequence ended: ESOLM_STOP_*.
    Result<std::int32_t> stop_reason(std::uint32_t sequence = 0)
    {
        std::int32_t reason = ESOLM_STOP_NONE;
        if (esolm_status status = esolm_stop_reason(handle_.get(), sequence, &reason))
            return detail::fail<std::int32_t>(status);
        return reason;
    }

    // The most likely tokens at the position of an update of the last step, the likeliest first: as many as
    // GenerateParams::top_log_probs says.
    Result<std::vector<esolm_token_log_prob>> top_log_probs(std::size_t update)
    {
        using Entries = std::vector<esolm_token_log_prob>;
        std::size_t n = 0;
        Entries entries(16);
        esolm_status status;
        while ((status = esolm_copy_top_log_probs(handle_.get(), update, entries.data(), entries.size(), &n)) ==
               ESOLM_ERR_BUFFER_TOO_SMALL)
            entries.resize(n);
        if (status)
            return detail::fail<Entries>(status);
        entries.resize(n);
        return entries;
    }

    // The network's logits at positions that are not written yet, one row of the vocabulary's size for each.
    Result<std::vector<float>> logits(Span<const std::uint32_t> positions, std::uint32_t sequence = 0)
    {
        return evaluated(esolm_evaluate_logits, positions, sequence);
    }

    // The same as the probabilities that the tokens would be drawn with.
    Result<std::vector<float>> probabilities(Span<const std::uint32_t> positions, std::uint32_t sequence = 0)
    {
        return evaluated(esolm_evaluate_probabilities, positions, sequence);
    }

    // The known part of the generation, for restore.
    Result<std::vector<std::uint8_t>> save()
    {
        using Bytes = std::vector<std::uint8_t>;
        return detail::filled<Bytes>(0, [&](std::uint8_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_state_save(handle_.get(), to, capacity, n);
        });
    }
    Result<void> restore(Span<const std::uint8_t> bytes)
    {
        return detail::checked(forgetting(esolm_state_restore(handle_.get(), bytes.data(), bytes.size())));
    }

    // The state of one sequence, for restore_sequence of this context or another; the other sequences are not disturbed.
    Result<std::vector<std::uint8_t>> save_sequence(std::uint32_t sequence)
    {
        using Bytes = std::vector<std::uint8_t>;
        return detail::filled<Bytes>(0, [&](std::uint8_t *to, std::size_t capacity, std::size_t *n) {
            return esolm_sequence_save(handle_.get(), sequence, to, capacity, n);
        });
    }

    // Adds a saved sequence, which has no steps left, and returns its number; extend_sequence and append_sequence go on with it.
    Result<std::uint32_t> restore_sequence(Span<const std::uint8_t> bytes)
    {
        std::uint32_t sequence = 0;
        if (esolm_status status = esolm_sequence_restore(handle_.get(), bytes.data(), bytes.size(), &sequence))
            return detail::fail<std::uint32_t>(status);
        logits_callbacks_[sequence].reset();
        return sequence;
    }

    // How the time of the generation's steps was spent, in seconds.
    Result<esolm_profile> profile()
    {
        return detail::described<esolm_profile>([&](esolm_profile *profile) {
            return esolm_context_profile(handle_.get(), profile);
        });
    }

    // Scores a text of any length, and ends the generation, as all scoring does. log_p, unless it is NULL, gets the
    // log-probability of each token, and stays as it is after a failure. progress is called after each window of the text.
    Result<esolm_text_score> score_text(Span<const std::uint32_t> tokens, const ScoreParams &params = {},
                                        std::vector<double> *log_p = nullptr, Progress progress = nullptr)
    {
        std::vector<double> numbers(log_p ? tokens.size() : 0);
        ProgressCallback callback{std::move(progress)};
        return detail::described<esolm_text_score>([&](esolm_text_score *score) {
            const esolm_status status =
                esolm_score_text(handle_.get(), tokens.data(), tokens.size(), &params, log_p ? numbers.data() : nullptr,
                                 numbers.size(), score, callback.function ? &ProgressCallback::call : nullptr, &callback);
#ifndef ESOLM_NO_EXCEPTIONS
            if (callback.thrown)
                std::rethrow_exception(callback.thrown);
#endif
            if (!status && log_p)
                log_p->swap(numbers);
            return forgetting(status);
        });
    }

    // The log-probability of each token except the first `known` of an order (default: left to right).
    Result<std::vector<double>> score_order(Span<const std::uint32_t> tokens, Span<const std::uint32_t> order = {},
                                            std::size_t known = 0)
    {
        return scores(esolm_score_order, tokens, order, known);
    }

    // The same with all unknown tokens masked at once: one step of diffusion.
    Result<std::vector<double>> score_masked(Span<const std::uint32_t> tokens, Span<const std::uint32_t> order = {},
                                             std::size_t known = 0)
    {
        return scores(esolm_score_masked, tokens, order, known);
    }

    esolm_context *get() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(esolm_context *context) const noexcept { esolm_context_free(context); }
    };
    using Handle = std::unique_ptr<esolm_context, Free>;

    Result<std::vector<double>> scores(decltype(&esolm_score_order) score, Span<const std::uint32_t> tokens,
                                       Span<const std::uint32_t> order, std::size_t known)
    {
        using Scores = std::vector<double>;
        if (order.data() && order.size() != tokens.size())
            return detail::fail<Scores>(
                Error{ESOLM_ERR_INVALID_ARGUMENT, "the order does not have one position for each token"});
        Scores log_p(tokens.size() > known ? tokens.size() - known : 1);
        if (esolm_status status = forgetting(score(handle_.get(), tokens.data(), order.data(), tokens.size(), known,
                                                   log_p.data(), log_p.size())))
            return detail::fail<Scores>(status);
        log_p.resize(tokens.size() - known);
        return log_p;
    }

    Result<std::vector<float>> evaluated(decltype(&esolm_evaluate_logits) evaluate, Span<const std::uint32_t> positions,
                                         std::uint32_t sequence)
    {
        using Numbers = std::vector<float>;
        return detail::filled<Numbers>(0, [&](float *to, std::size_t capacity, std::size_t *n) {
            return evaluate(handle_.get(), sequence, positions.data(), positions.size(), to, capacity, n);
        });
    }

    static Step seen(const esolm_step_info &info)
    {
        return {info.index,
                info.total,
                {info.updates, info.n_updates},
                {info.log_probs, info.log_probs ? info.n_updates : 0},
                {info.texts, info.n_texts},
                info.n_proposed,
                info.n_accepted};
    }

    // Calls a Progress from C, and keeps its exception, which must not cross the library.
    struct ProgressCallback {
        Progress function;
#ifndef ESOLM_NO_EXCEPTIONS
        std::exception_ptr thrown = nullptr;
#endif

        static std::int32_t call(double fraction, void *user_data)
        {
            auto &self = *static_cast<ProgressCallback *>(user_data);
#ifndef ESOLM_NO_EXCEPTIONS
            try {
                return !self.function(fraction);
            } catch (...) {
                self.thrown = std::current_exception();
                return 1;
            }
#else
            return !self.function(fraction);
#endif
        }
    };

    // The same for on_logits.
    struct LogitsCallback {
        std::function<bool(const esolm_logits_row &, Span<float>)> function;
#ifndef ESOLM_NO_EXCEPTIONS
        std::exception_ptr thrown = nullptr;
#endif

        static std::int32_t call(const esolm_logits_row *row, float *logits, void *user_data)
        {
            auto &self = *static_cast<LogitsCallback *>(user_data);
#ifndef ESOLM_NO_EXCEPTIONS
            try {
                return !self.function(*row, {logits, row->n_logits});
            } catch (...) {
                self.thrown = std::current_exception();
                return 1;
            }
#else
            return !self.function(*row, {logits, row->n_logits});
#endif
        }
    };

    // The parameters for C, which borrow from those of the caller and from this.
    struct Request {
        explicit Request(const GenerateParams &params) : how(params)
        {
            if (params.on_logits) {
                callback = std::make_shared<LogitsCallback>();
                callback->function = params.on_logits;
                how.logits_callback = &LogitsCallback::call;
                how.logits_user_data = callback.get();
            }
            for (const std::string &string : params.stop)
                stop.push_back(detail::c_string(string));
            if (!stop.empty()) {
                how.stop_strings = stop.data();
                how.n_stop_strings = stop.size();
            }
        }
        Request(const Request &) = delete;
        Request &operator=(const Request &) = delete;

        esolm_generate_params how;
        std::shared_ptr<LogitsCallback> callback;
        std::vector<const char *> stop;
    };

    // If a generation does not begin, the previous one stays, with its logits callbacks.
    esolm_status started(decltype(&esolm_begin) begin, Prompts prompts, const GenerateParams &params)
    {
        const Request request(params);
        esolm_status status = begin(handle_.get(), prompts.data(), prompts.size(), &request.how);
        if (!status)
            for (auto &callback : logits_callbacks_)
                callback = request.callback;
        return status;
    }

    esolm_status stepped(esolm_step_info &info, std::int32_t &done)
    {
        esolm_status status = esolm_step(handle_.get(), &info, &done);
#ifndef ESOLM_NO_EXCEPTIONS
        for (auto &callback : logits_callbacks_)
            if (callback && callback->thrown)
                std::rethrow_exception(std::exchange(callback->thrown, nullptr));
#endif
        return status;
    }

    // After a call that ended the generation: drops its logits callbacks.
    esolm_status forgetting(esolm_status status)
    {
        if (!status)
            for (auto &callback : logits_callbacks_)
                callback.reset();
        return status;
    }

    Context(Handle context, const ContextParams &params)
        : logits_callbacks_(params.sequences > 1 ? params.sequences : 1), handle_(std::move(context))
    {
    }
    // Those of the sequences.
    std::vector<std::shared_ptr<LogitsCallback>> logits_callbacks_;
    Handle handle_;
};

} // namespace throwing or returning
} // namespace esolm

#endif
