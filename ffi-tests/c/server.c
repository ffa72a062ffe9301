/* The server of examples-c, with clients of many kinds: server-test SERVER MODEL.
 * SERVER is linked with server_faults.c: with seed 666 a text fails, with seed 667 it takes long. */
#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 16, TOKENS = 20, ROOM = 65536 };

static const char *program, *path;
static const char PROMPT[] = "Once upon a time";

typedef struct {
    pid_t process;
    uint16_t port;
} server;

/* What a client was told. */
typedef struct {
    int status;
    char text[ROOM], reason[32];
    size_t len, chunks;
} answer;

/* Starts one that may have so many files and sockets open. */
static server start_limited(rlim_t files, const char *sequences, const char *queue)
{
    server started = {0, 0};
    int output[2];
    char line[128] = "";
    if (pipe(output) || (started.process = fork()) < 0)
        exit(report());
    if (started.process == 0) {
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        struct rlimit limit = {files, files};
        if (files && setrlimit(RLIMIT_NOFILE, &limit))
            _exit(8);
        execl(program, program, path, "0", sequences, queue, (char *)NULL);
        _exit(9);
    }
    close(output[1]);
    FILE *said = fdopen(output[0], "r");
    if (!said || !fgets(line, sizeof line, said) || sscanf(line, "http://127.0.0.1:%hu/completion\n", &started.port) != 1)
        printf("the server says '%s'\n", line);
    CHECK(started.port > 0);
    if (said)
        fclose(said);
    return started;
}

static server start(const char *sequences, const char *queue)
{
    return start_limited(0, sequences, queue);
}

/* Ends the server with a signal. */
static void stop(server running, int number)
{
    int status = -1;
    CHECK(kill(running.process, number) == 0);
    CHECK(waitpid(running.process, &status, 0) == running.process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int connect_to(server running)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(running.port)};
    struct timeval patience = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void say(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the server may have refused it already */
        text += n, len -= (size_t)n;
    }
}

/* Sends a request and leaves the connection open. */
static int ask(server running, const char *query, const char *prompt)
{
    char request[512];
    int fd = connect_to(running);
    snprintf(request, sizeof request, "POST /completion%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
             query, strlen(prompt), prompt);
    say(fd, request);
    return fd;
}

static int ask_for(server running, unsigned seed, unsigned n)
{
    char query[64];
    snprintf(query, sizeof query, "?n=%u&seed=%u", n, seed);
    return ask(running, query, PROMPT);
}

/* Joins the chunks of an answer, and reads its trailer. Returns whether they are well-formed. */
static int read_chunks(const char *from, const char *end, answer *to)
{
    char *after;
    for (;;) {
        size_t size = strtoul(from, &after, 16);
        if (after == from || strncmp(after, "\r\n", 2) != 0)
            return 0;
        from = after + 2;
        if (size == 0)
            break;
        if (size > (size_t)(end - from) || memcmp(from + size, "\r\n", 2) != 0)
            return 0;
        memcpy(to->text + to->len, from, size);
        to->len += size;
        to->chunks++;
        from += size + 2;
    }
    to->text[to->len] = 0;
    size_t rest = strlen("Stop-Reason: ");
    const char *line = strstr(from, "\r\n");
    if (strncmp(from, "Stop-Reason: ", rest) || !line || strcmp(line, "\r\n\r\n"))
        return 0;
    snprintf(to->reason, sizeof to->reason, "%.*s", (int)(line - from) - (int)rest, from + rest);
    return 1;
}

/* Reads the answer until the server closes the connection. */
static void hear(int fd, answer *to)
{
    static char bytes[ROOM];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof bytes - 1 && (n = recv(fd, bytes + len, sizeof bytes - 1 - len, 0)) > 0)
        len += (size_t)n;
    CHECK(n == 0);
    close(fd);
    bytes[len] = 0;
    memset(to, 0, sizeof *to);
    const char *body = strstr(bytes, "\r\n\r\n");
    CHECK(sscanf(bytes, "HTTP/1.1 %d ", &to->status) == 1 && body);
    if (to->status == 200 && body)
        CHECK(strstr(bytes, "Transfer-Encoding: chunked\r\n") && read_chunks(body + 4, bytes + len, to));
}

/* The texts that the library writes alone, without the prompt. */
static esolm_model *model;
static esolm_context *single;

static void write_alone(const esolm_generate_params *how, char *text)
{
    uint32_t tokens[16];
    esolm_prompt prompt = {tokens, NULL, 0};
    char all[ROOM];
    size_t n = 0;
    STATUS(ESOLM_OK, esolm_tokenize(model, PROMPT, strlen(PROMPT), tokens, 16, &prompt.count));
    STATUS(ESOLM_OK, esolm_generate(single, &prompt, 1, how, NULL, NULL));
    STATUS(ESOLM_OK, esolm_copy_text(single, 0, all, sizeof all, &n));
    CHECK(strncmp(all, PROMPT, strlen(PROMPT)) == 0 && n > strlen(PROMPT));
    strcpy(text, all + strlen(PROMPT));
}

static char expected[CLIENTS][ROOM];
static answer heard;

static void expect_text(int fd, const char *text, const char *reason)
{
    hear(fd, &heard);
    CHECK(heard.status == 200 && strcmp(heard.text, text) == 0 && strcmp(heard.reason, reason) == 0);
}

/* Clients with different seeds, at once: each gets what the library writes alone. More than one server can serve at a
 * time, with clients between them that are slow, silent or leave. */
static void many_clients(server running)
{
    int fds[CLIENTS], silent = connect_to(running), half = connect_to(running), gone, failing, lazy;
    say(half, "POST /completion?n=4 HTTP/1.1\r\nContent-Le");
    lazy = ask_for(running, 3, TOKENS); /* reads nothing until the end */
    gone = ask_for(running, 667, 200);
    failing = ask_for(running, 666, TOKENS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = ask_for(running, i, TOKENS);
        if (i == CLIENTS / 2)
            close(gone);
    }
    size_t chunks = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        expect_text(fds[i], expected[i], "length");
        chunks += heard.chunks;
    }
    /* The text came while it was written. */
    CHECK(chunks > 5 * CLIENTS);
    hear(failing, &heard);
    CHECK(heard.status == 200 && strcmp(heard.reason, "error") == 0);
    expect_text(lazy, expected[3], "length");
    say(half, "ngth: 4\r\n\r\nOnce");
    hear(half, &heard);
    CHECK(heard.status == 200);
    close(silent);
}

/* The parameters of the query. */
static void parameters(server running)
{
    static char text[ROOM];
    esolm_generate_params how;
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    how.max_tokens = 12, how.seed = 5, how.temperature = 0;
    write_alone(&how, text);
    expect_text(ask(running, "?n=12&seed=5&temperature=0", PROMPT), text, "length");
    how.temperature = 0.5f, how.steps = 4;
    write_alone(&how, text);
    expect_text(ask(running, "?temperature=0.5&steps=4&seed=5&n=12", PROMPT), text, "length");
}

/* Each is refused, with a reason, and the server goes on. */
static void bad_requests(server running)
{
    static char long_header[8192], long_body[200000], long_prompt[16000];
    static const struct {
        const char *request;
        int status;
    } bad[] = {
        {"hello\r\n\r\n", 400},
        {"POST /completion\r\n\r\n", 400},
        {"POST /completion SPDY/3\r\n\r\n", 400},
        {"GET /completion HTTP/1.1\r\n\r\n", 405},
        {"POST /nothing HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404},
        {"POST /completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404},
        {"POST /completion HTTP/1.1\r\n\r\n", 411},
        {"POST /completion HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
        {"POST /completion HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST /completion HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400},
        {"POST /completion HTTP/1.1\r\nContent-Length: 16385\r\n\r\n", 413},
        {"POST /completion?n HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?n=x HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?n=-1 HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?temperature=nan HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?temperature= HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?steps=9999999 HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?colour=red HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /completion?n=4 HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff", 400},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = connect_to(running);
        say(fd, bad[i].request);
        hear(fd, &heard);
        CHECK(heard.status == bad[i].status);
        if (heard.status != bad[i].status)
            printf("    %d for %s\n", heard.status, bad[i].request);
    }
    memset(long_header, 'a', sizeof long_header - 1);
    memset(long_body, 'a', sizeof long_body - 1);
    memset(long_prompt, ' ', sizeof long_prompt - 1);
    for (size_t i = 0; i < sizeof long_prompt - 2; i += 2)
        long_prompt[i] = (char)('a' + i % 26);
    int fd = connect_to(running);
    say(fd, "POST /completion HTTP/1.1\r\nX: ");
    say(fd, long_header);
    hear(fd, &heard);
    CHECK(heard.status == 431);
    fd = connect_to(running);
    say(fd, "POST /completion HTTP/1.1\r\nContent-Length: 199999\r\n\r\n");
    say(fd, long_body);
    hear(fd, &heard);
    CHECK(heard.status == 413);
    /* A prompt that fits the server but not the model. */
    fd = connect_to(running);
    say(fd, "POST /completion HTTP/1.1\r\nContent-Length: 15999\r\n\r\n");
    say(fd, long_prompt);
    hear(fd, &heard);
    CHECK(heard.status == 400);
    expect_text(ask_for(running, 1, TOKENS), expected[1], "length");
}

/* Two run, two wait, and no more are taken. Those who leave, running or waiting, make room. */
static void too_many(server running)
{
    static char text[ROOM];
    char byte;
    int slow[2], waiting[2];
    esolm_generate_params how;
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    how.max_tokens = 4;
    write_alone(&how, text);
    for (int i = 0; i < 2; i++)
        slow[i] = ask_for(running, 667, 200);
    for (int i = 0; i < 2; i++)
        CHECK(recv(slow[i], &byte, 1, 0) == 1);
    for (int i = 0; i < 2; i++)
        waiting[i] = ask_for(running, 0, 4);
    hear(ask_for(running, 0, 4), &heard);
    CHECK(heard.status == 503);
    close(waiting[0]);
    close(slow[0]);
    /* This would take more than the 10 seconds that a client waits, if the slow one had to be finished. */
    expect_text(waiting[1], text, "length");
    close(slow[1]);
    expect_text(ask_for(running, 2, TOKENS), expected[2], "length");
}

/* Who is being served when Ctrl-C comes is told. */
static void interrupted(server running)
{
    char byte;
    int slow = ask_for(running, 667, 200), told;
    CHECK(recv(slow, &byte, 1, 0) == 1 && byte == 'H');
    stop(running, SIGINT);
    memset(&heard, 0, sizeof heard);
    static char rest[ROOM];
    size_t len = 0;
    ssize_t n;
    while ((n = recv(slow, rest + len, sizeof rest - 1 - len, 0)) > 0)
        len += (size_t)n;
    told = strstr(rest, "\r\n0\r\nStop-Reason: cancelled\r\n\r\n") != NULL;
    CHECK(n == 0 && told);
    close(slow);
}

/* Seconds of processor time that the servers which have ended took. */
static double time_taken(void)
{
    struct rusage used;
    CHECK(getrusage(RUSAGE_CHILDREN, &used) == 0);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* More connections than the server may have open: it waits for room without using the processor. */
static void out_of_descriptors(void)
{
    enum { FILES = 16, CONNECTIONS = 20 };
    int fds[CONNECTIONS];
    struct timespec pause = {3, 0};
    double before = time_taken();
    server running = start_limited(FILES, "2", "2");
    for (int i = 0; i < CONNECTIONS; i++)
        fds[i] = connect_to(running);
    nanosleep(&pause, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    expect_text(ask_for(running, 1, TOKENS), expected[1], "length");
    stop(running, SIGTERM);
    double taken = time_taken() - before;
    CHECK(taken < 0.4);
    printf("with too many connections for 3 s the server took %.2f s\n", taken);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    program = argv[1], path = argv[2];
    STATUS(ESOLM_OK, esolm_model_open(path, NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .threads = 1};
    STATUS(ESOLM_OK, esolm_context_new(model, &limits, &single));
    esolm_generate_params how;
    STATUS(ESOLM_OK, esolm_generate_params_init(&how, sizeof how));
    how.max_tokens = TOKENS;
    for (unsigned i = 0; i < CLIENTS; i++) {
        how.seed = i;
        write_alone(&how, expected[i]);
    }
    server all = start("16", "64"), few = start("5", "64"), small = start("2", "2");
    many_clients(all);
    many_clients(few);
    parameters(few);
    bad_requests(few);
    too_many(small);
    interrupted(small);
    stop(few, SIGTERM);
    stop(all, SIGINT);
    out_of_descriptors();
    esolm_context_free(single);
    esolm_model_free(model);
    return report();
}
