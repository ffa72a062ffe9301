/* Versions, log, devices, opening models, model info and metadata: api_model MODEL. */
#include "api.h"

#include <stddef.h>

static void versions(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", ESOLM_VERSION_MAJOR, ESOLM_VERSION_MINOR, ESOLM_VERSION_PATCH);
    CHECK(strcmp(text, esolm_version()) == 0);
    CHECK(esolm_abi_version() == ESOLM_ABI_VERSION);
    for (esolm_status status = -1; status < 20; status++)
        CHECK(strlen(esolm_status_text(status)) > 1);
    CHECK(strcmp(esolm_status_text(OK), "ok") == 0);
}

static void log_callback(int32_t level, const char *message, void *user_data)
{
    CHECK(level >= ESOLM_LOG_ERROR && level <= ESOLM_LOG_DEBUG && message && user_data == &info);
}

static void device(void)
{
    size_t count = 0;
    STATUS(OK, esolm_device_count(&count));
    CHECK(count >= 1);
    esolm_device_info found = {.struct_size = sizeof found};
    int cpus = 0;
    for (size_t i = 0; i < count; i++) {
        STATUS(OK, esolm_device_info_get(i, &found));
        CHECK(found.name[0] && found.struct_size == sizeof found);
        cpus += found.kind == ESOLM_DEVICE_CPU;
    }
    CHECK(cpus == 1);
    STATUS(INVALID, esolm_device_info_get(count, &found));
    CHECK(!found.name[0] && found.struct_size == sizeof found);
    STATUS(INVALID, esolm_device_info_get(0, NULL));
    STATUS(INVALID, esolm_device_count(NULL));
    found.struct_size = 8;
    STATUS(INVALID, esolm_device_info_get(0, &found));
}

static void opening(const char *path)
{
    esolm_model *out = (esolm_model *)&info;
    STATUS(ESOLM_ERR_IO, esolm_model_open("/nowhere/model.gguf", NULL, &out));
    CHECK(out == NULL);
    last_error_says("/nowhere/model.gguf");
    out = (esolm_model *)&info;
    STATUS(INVALID, esolm_model_open(NULL, NULL, &out));
    CHECK(out == NULL);
    last_error_says("path is NULL");
    STATUS(INVALID, esolm_model_open(path, NULL, NULL));
    last_error_says("out is NULL");

    esolm_model_params params;
    STATUS(INVALID, esolm_model_params_init(NULL, sizeof params));
    STATUS(INVALID, esolm_model_params_init(&params, offsetof(esolm_model_params, progress_callback) - 1));
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mode = 9;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    last_error_says("mode 9");
    params.mode = ESOLM_MODE_MAP;
    params.device = "abacus";
    STATUS(ESOLM_ERR_DEVICE, esolm_model_open(path, &params, &out));
    params.device = "\xff";
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.device = "cpu";
    params.struct_size = 4;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.struct_size = 0;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    last_error_says("struct_size");
    /* Half of a pointer (found by fuzzing). */
    params.struct_size = offsetof(esolm_model_params, progress_user_data) + sizeof(void *) / 2;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    last_error_says("struct_size");
    params.struct_size = (size_t)-1;
    STATUS(INVALID, esolm_model_open(path, &params, &out));
    params.struct_size = sizeof params;
    params.reserved = 1;
    STATUS(INVALID, esolm_model_open(path, &params, &out));

    /* A program compiled with a later header, whose struct has fields that this library does not know. */
    struct {
        esolm_model_params known;
        uint64_t later[3];
    } larger;
    memset(&larger, 255, sizeof larger);
    STATUS(OK, esolm_model_params_init(&larger.known, sizeof larger));
    CHECK(larger.later[0] == 0 && larger.later[2] == 0 && larger.known.struct_size == sizeof larger);
    larger.known.device = "cpu";
    STATUS(OK, esolm_model_open(path, &larger.known, &out));
    esolm_model_free(out);
    larger.later[2] = 1;
    STATUS(INVALID, esolm_model_open(path, &larger.known, &out));
    CHECK(out == NULL);

    /* A program compiled with an earlier header, whose struct ended before `progress`. */
    memset(&params, 255, sizeof params);
    STATUS(OK, esolm_model_params_init(&params, offsetof(esolm_model_params, progress_callback)));
    CHECK(params.struct_size == offsetof(esolm_model_params, progress_callback));
    CHECK(*(unsigned char *)&params.progress_user_data == 255);
    STATUS(OK, esolm_model_open(path, &params, &out));
    esolm_model_free(out);

    STATUS(INVALID, esolm_model_retain(NULL));
    esolm_model_free(NULL);
    esolm_context_free(NULL);
}

/* Counts progress reports, which must not decrease, and cancels at one of them. */
struct watch {
    int reports, stop_at;
    double last;
};

static int32_t on_progress(double fraction, void *user_data)
{
    struct watch *watch = user_data;
    CHECK(fraction >= watch->last && fraction >= 0 && fraction <= 1);
    watch->last = fraction;
    return watch->reports++ == watch->stop_at ? 5 : 0;
}

/* Opens the file at `path`, or the one in memory if it is NULL. */
static esolm_status open_from(const char *path, const void *data, const esolm_model_params *params, esolm_model **out)
{
    return path ? esolm_model_open(path, params, out)
                : esolm_model_open_memory(data, info.file_bytes, params, out);
}

/* Opening can be cancelled at each progress report, and then returns no model. */
static void watched_opening(const char *path, const void *data)
{
    esolm_model *out = (esolm_model *)&info;
    esolm_model_params params;
    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    CHECK(params.progress_callback == NULL && params.progress_user_data == NULL);
    params.progress_callback = on_progress;
    for (int32_t mode = ESOLM_MODE_MAP; mode <= ESOLM_MODE_REPACK; mode++) {
        struct watch all = {0, -1, 0};
        int part_way = 0;
        params.mode = mode;
        params.progress_user_data = &all;
        STATUS(OK, open_from(path, data, &params, &out));
        esolm_model_free(out);
        CHECK(all.last == 1 && all.reports >= 1);
        for (int i = 0; i < all.reports; i++) {
            struct watch stopped = {0, i, 0};
            params.progress_user_data = &stopped;
            out = (esolm_model *)&info;
            STATUS(ESOLM_ERR_CANCELLED, open_from(path, data, &params, &out));
            CHECK(out == NULL && stopped.reports == i + 1);
            part_way += stopped.last > 0 && stopped.last < 1;
        }
        CHECK(mode != ESOLM_MODE_COPY || part_way > 0);
    }
}

static void model_info(void)
{
    memset(&info, 255, sizeof info);
    info.struct_size = sizeof info;
    STATUS(OK, esolm_model_info_get(model, &info));
    CHECK(info.context_length >= LENGTH && info.vocab_size > 2 && info.mask_token < info.vocab_size);
    CHECK(info.eos_token == ESOLM_NO_TOKEN || info.eos_token < info.vocab_size);
    CHECK(info.bos_token == ESOLM_NO_TOKEN || info.bos_token < info.vocab_size);
    CHECK(info.prepended_token == ESOLM_NO_TOKEN || info.prepended_token < info.vocab_size);
    CHECK(info.parameters > 0 && info.tensor_bytes > 0 && info.file_bytes >= info.tensor_bytes);
    STATUS(INVALID, esolm_model_info_get(model, NULL));
    esolm_model_info other = {.struct_size = sizeof other, .vocab_size = 3};
    STATUS(INVALID, esolm_model_info_get(NULL, &other));
    CHECK(other.vocab_size == 0);
    /* One of the devices. */
    size_t count = 0;
    esolm_device_info found = {.struct_size = sizeof found};
    STATUS(OK, esolm_device_count(&count));
    for (size_t i = 0; i < count && strcmp(found.name, info.device) != 0; i++)
        STATUS(OK, esolm_device_info_get(i, &found));
    CHECK(info.device[0] && strcmp(found.name, info.device) == 0);
    /* As it was before it named the device. */
    memset(other.device, 'x', sizeof other.device);
    other.struct_size = offsetof(esolm_model_info, device);
    STATUS(OK, esolm_model_info_get(model, &other));
    CHECK(other.load_time_us == info.load_time_us && other.device[0] == 'x');
    other.struct_size = offsetof(esolm_model_info, device) - 8;
    STATUS(INVALID, esolm_model_info_get(model, &other));
}

static void metadata(void)
{
    char text[64];
    size_t count = 0, len = 0, names = 0;
    STATUS(OK, esolm_model_metadata_count(model, &count));
    CHECK(count > 3);
    for (size_t i = 0; i < count; i++) {
        char key[128];
        STATUS(OK, esolm_model_metadata_key(model, i, key, sizeof key, &len));
        CHECK(len > 0 && strlen(key) == len);
        names += strcmp(key, "general.architecture") == 0;
        /* Every value can be read, however long it is. */
        esolm_status status = esolm_model_metadata_get(model, key, NULL, 0, &len);
        CHECK(status == ESOLM_ERR_BUFFER_TOO_SMALL);
        char *value = malloc(len + 1);
        size_t again = 0;
        if (!value)
            exit(1);
        STATUS(OK, esolm_model_metadata_get(model, key, value, len + 1, &again));
        CHECK(again == len && value[len] == 0);
        free(value);
    }
    CHECK(names == 1);
    STATUS(OK, esolm_model_metadata_get(model, "general.architecture", text, sizeof text, &len));
    CHECK(strcmp(text, "esolm") == 0);
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_model_metadata_get(model, "general.architecture", text, 5, &len));
    CHECK(len == 5 && text[0] == 0);
    STATUS(INVALID, esolm_model_metadata_get(model, "no.such.key", text, sizeof text, &len));
    last_error_says("no.such.key");
    CHECK(len == 0);
    STATUS(INVALID, esolm_model_metadata_get(model, NULL, text, sizeof text, &len));
    STATUS(INVALID, esolm_model_metadata_get(model, "\xff", text, sizeof text, &len));
    STATUS(INVALID, esolm_model_metadata_get(NULL, "general.architecture", text, sizeof text, &len));
    STATUS(INVALID, esolm_model_metadata_get(model, "general.architecture", NULL, 9, &len));
    STATUS(INVALID, esolm_model_metadata_get(model, "general.architecture", text, sizeof text, NULL));
    STATUS(INVALID, esolm_model_metadata_key(model, count, text, sizeof text, &len));
    STATUS(INVALID, esolm_model_metadata_key(NULL, 0, text, sizeof text, &len));
    STATUS(ESOLM_ERR_BUFFER_TOO_SMALL, esolm_model_metadata_key(model, 0, text, 2, &len));
    STATUS(INVALID, esolm_model_metadata_count(NULL, &count));
    CHECK(count == 0);
    STATUS(INVALID, esolm_model_metadata_count(model, NULL));
}

/* Reads a file to an address that is `offset` bytes after a multiple of 64; the caller frees `base`. */
static unsigned char *file_in_memory(const char *path, size_t offset, unsigned char **base)
{
    FILE *file = fopen(path, "rb");
    size_t size = info.file_bytes;
    *base = aligned_alloc(64, (size + offset + 63) / 64 * 64);
    if (!file || !*base || fread(*base + offset, 1, size, file) != size)
        exit(1);
    fclose(file);
    return *base + offset;
}

/* A file in memory may have any alignment: unaligned tensors are copied. */
static void unaligned(const char *path)
{
    static const size_t OFFSETS[] = {1, 8, 31, 32};
    uint32_t expected[LENGTH], found[LENGTH];
    run_briefly(model, expected);
    for (size_t i = 0; i < sizeof OFFSETS / sizeof OFFSETS[0]; i++) {
        unsigned char *base = NULL, *data = file_in_memory(path, OFFSETS[i], &base);
        for (int32_t mode = ESOLM_MODE_MAP; mode <= ESOLM_MODE_REPACK; mode++) {
            esolm_model *out = NULL;
            esolm_model_params params;
            STATUS(OK, esolm_model_params_init(&params, sizeof params));
            params.mode = mode;
            STATUS(OK, esolm_model_open_memory(data, info.file_bytes, &params, &out));
            run_briefly(out, found);
            CHECK(memcmp(found, expected, sizeof found) == 0);
            esolm_model_free(out);
            STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory(data, info.file_bytes - 1, &params, &out));
            CHECK(out == NULL);
        }
        aligned_free(base);
    }
}

static void memory(const char *path)
{
    uint32_t expected[LENGTH], found[LENGTH];
    run_briefly(model, expected);
    size_t size = info.file_bytes;
    unsigned char *base = NULL, *data = file_in_memory(path, 0, &base);
    watched_opening(NULL, data);

    esolm_model *out = NULL;
    esolm_model_params params;
    STATUS(OK, esolm_model_open_memory(data, size, NULL, &out));
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);

    STATUS(INVALID, esolm_model_open_memory(NULL, size, NULL, &out));
    CHECK(out == NULL);
    STATUS(INVALID, esolm_model_open_memory(data, size, NULL, NULL));
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory(data, 0, NULL, &out));
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory(data, size - 1, NULL, &out));
    last_error_says("(memory)");
    STATUS(ESOLM_ERR_BAD_FILE, esolm_model_open_memory("not a model", 11, NULL, &out));

    STATUS(OK, esolm_model_params_init(&params, sizeof params));
    params.mode = ESOLM_MODE_COPY;
    STATUS(OK, esolm_model_open_memory(data, size, &params, &out));
    memset(data, 255, size);
    aligned_free(base);
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);

    STATUS(OK, esolm_model_open(path, &params, &out));
    run_briefly(out, found);
    CHECK(memcmp(found, expected, sizeof found) == 0);
    esolm_model_free(out);
}

int main(int argc, char **argv)
{
    CHECK(esolm_last_error()[0] == 0);
    esolm_set_log_callback(log_callback, &info);
    versions();
    device();
    open_model(argc, argv);
    opening(argv[1]);
    watched_opening(argv[1], NULL);
    model_info();
    metadata();
    memory(argv[1]);
    unaligned(argv[1]);

    /* A context keeps its model alive. */
    esolm_context *context = new_context();
    STATUS(OK, esolm_model_retain(model));
    esolm_model_free(model);
    esolm_model_free(model);
    esolm_prompt prompt = {NULL, NULL, 0};
    esolm_generate_params how = small_params();
    STATUS(OK, esolm_generate(context, &prompt, 1, &how, NULL, NULL));
    esolm_context_free(context);
    esolm_set_log_callback(NULL, NULL);
    return report();
}
