/* A minimal HTTP server: requests join a running context, and each gets its text as it is written.
 *
 *     server MODEL [PORT [SEQUENCES [QUEUE]]]     (0, any port, which is printed; 16; 64)
 *     curl -d "Once upon a time" "http://127.0.0.1:PORT/completion?n=40&seed=1"
 *
 * The body of a request is the prompt; n, seed, steps and temperature may be in the query. The body of the answer is the text,
 * a chunk for each step that makes some; its trailer Stop-Reason says why it ended. One thread does all: it looks at the sockets
 * between two steps. It listens on this machine only and knows no passwords: it is not for networks. */
#ifdef _WIN32
#error "this example uses the sockets of POSIX systems"
#endif
#define _POSIX_C_SOURCE 200809L
#include "esolm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CLIENTS = 128, /* connections; further ones wait in the system */
    HEADER = 4096, BODY = 16384, TOKENS = 4096, /* of a request, of a prompt */
    OUT = 65536,   /* what a client has not fetched yet; one that lets more pile up is cut off */
    PATIENCE = 10, /* seconds for a request to arrive, and for a complete answer to be fetched */
};

/* What a client is doing. One that is ANSWERED is let go when it has closed its side, or has taken too long: closing a
 * socket that has bytes to be read would destroy the answer. */
enum state { FREE, READING, WAITING, RUNNING, ANSWERED };

struct client {
    enum state state;
    time_t since; /* of the state */
    int fd, cut_off, shut;
    uint64_t ticket;    /* WAITING: the smallest is the next one */
    uint32_t sequence;  /* RUNNING */
    const char *prompt; /* in `in` */
    size_t prompt_len, n_in, n_out;
    esolm_generate_params how;
    char in[HEADER + BODY + 1], out[OUT];
};

static struct client clients[CLIENTS];
static esolm_model *model;
static esolm_context *context;
static uint64_t sequences = 16, queue = 64, running, waiting, tickets;
static int signals[2];   /* a pipe to which a signal writes, so that poll returns */
static time_t exhausted; /* when the system could not accept a connection; no other is tried in this second */

#define FOR_EACH(client) for (struct client *client = clients; client < clients + CLIENTS; client++)

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

static void check_system(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(EXIT_FAILURE);
    }
}

/* A client that is no longer RUNNING leaves the generation. */
static void enter(struct client *client, enum state state)
{
    if (client->state == RUNNING)
        check(esolm_sequence_remove(context, client->sequence));
    waiting = waiting + (state == WAITING) - (client->state == WAITING);
    running = running + (state == RUNNING) - (client->state == RUNNING);
    client->state = state;
    client->since = time(NULL);
}

static void hang_up(struct client *client)
{
    enter(client, FREE);
    close(client->fd);
}

static void put(struct client *client, const char *bytes, size_t n)
{
    client->cut_off |= n > sizeof client->out - client->n_out;
    if (!client->cut_off) {
        memcpy(client->out + client->n_out, bytes, n);
        client->n_out += n;
    }
}

static void say(struct client *client, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(client, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

/* Sends as much as the socket takes. Frees a client that is gone. */
static void send_some(struct client *client)
{
    ssize_t n = client->n_out > 0 ? write(client->fd, client->out, client->n_out) : 0;
    if (client->cut_off || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        hang_up(client);
    } else if (n > 0) {
        client->n_out -= (size_t)n;
        memmove(client->out, client->out + n, client->n_out);
    }
    if (client->state == ANSWERED && client->n_out == 0 && !client->shut)
        client->shut = shutdown(client->fd, SHUT_WR) == 0;
}

/* A whole answer: an error. */
static void refuse(struct client *client, const char *status, const char *message)
{
    say(client, "HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n", status,
        strncmp(status, "405", 3) ? "" : "Allow: POST\r\n");
    say(client, "%s\n", message);
    enter(client, ANSWERED);
    send_some(client);
}

/* The end of an answer that came in chunks. */
static void finish(struct client *client, int32_t reason)
{
    const char *name = reason == ESOLM_STOP_LENGTH ? "length" : reason == ESOLM_STOP_ERROR ? "error" : "end-of-text";
    say(client, "0\r\nStop-Reason: %s\r\n\r\n", reason == ESOLM_STOP_CANCELLED ? "cancelled" : name);
    enter(client, ANSWERED);
    send_some(client);
}

/* A number without a sign, at most `most`, up to a blank or the end of the line. Returns whether it is one. */
static int read_count(const char *text, uint64_t most, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && errno == 0 && strchr(" \t\r", *end) && *out <= most;
}

/* Reads "n=40&seed=1", which is cut into pieces. Returns whether it is well-formed. */
static int read_query(char *query, esolm_generate_params *how)
{
    char *rest = NULL, *end;
    for (char *name = strtok_r(query, "&", &rest); name; name = strtok_r(NULL, "&", &rest)) {
        uint64_t count = 0;
        char *value = strchr(name, '=');
        if (!value)
            return 0;
        *value++ = 0;
        if (!strcmp(name, "temperature")) {
            how->temperature = strtof(value, &end);
            if (*value == 0 || *end != 0 || !(how->temperature >= 0))
                return 0;
        } else if (!strcmp(name, "seed") && read_count(value, UINT64_MAX, &count)) {
            how->seed = count;
        } else if (!strcmp(name, "n") && read_count(value, SIZE_MAX, &count)) {
            how->max_tokens = (size_t)count;
        } else if (!strcmp(name, "steps") && read_count(value, SIZE_MAX, &count)) {
            how->steps = (size_t)count;
        } else {
            return 0;
        }
    }
    return 1;
}

/* The value of a header field, or NULL. */
static const char *find_field(const char *header, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(header, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':')
            return line + 3 + length + strspn(line + 3 + length, " \t");
    return NULL;
}

/* Looks whether the whole request is there. Then it waits for its turn. */
static void read_request(struct client *client)
{
    char method[8], target[256], minor[2], *in = client->in, *end;
    in[client->n_in] = 0;
    end = strstr(in, "\r\n\r\n");
    size_t header = end ? (size_t)(end - in) + 4 : client->n_in;
    if (header > HEADER || (!end && strlen(in) < header))
        refuse(client, "431 Request Header Fields Too Large", "the header is too long, or this is not HTTP");
    if (client->state != READING || !end)
        return;
    uint64_t length = 0;
    *end = 0;
    const char *declared = find_field(in, "Content-Length");
    if (sscanf(in, "%7[A-Z] %255[^ \r\n] HTTP/1.%1[0-9]", method, target, minor) != 3)
        refuse(client, "400 Bad Request", "this is not HTTP/1.1");
    else if (strncmp(target, "/completion", 11) || (target[11] && target[11] != '?'))
        refuse(client, "404 Not Found", "there is /completion only");
    else if (strcmp(method, "POST"))
        refuse(client, "405 Method Not Allowed", "/completion takes POST");
    else if (!declared || find_field(in, "Transfer-Encoding"))
        refuse(client, "411 Length Required", "a request needs Content-Length");
    else if (!read_count(declared, UINT64_MAX, &length))
        refuse(client, "400 Bad Request", "Content-Length is not a number");
    else if (length > BODY)
        refuse(client, "413 Content Too Large", "the prompt is too long");
    *end = '\r';
    if (client->state != READING || client->n_in < header + length)
        return;
    check(esolm_generate_params_init(&client->how, sizeof client->how));
    client->how.step_text = 1;
    client->prompt = in + header;
    client->prompt_len = (size_t)length;
    client->ticket = tickets++;
    if (target[11] && !read_query(target + 12, &client->how))
        refuse(client, "400 Bad Request", "the parameters are n, seed, steps and temperature: numbers");
    else if (running + waiting >= sequences + queue)
        refuse(client, "503 Service Unavailable", "too many requests are waiting");
    else
        enter(client, WAITING);
}

/* Reads what has come. */
static void receive(struct client *client)
{
    char ignored[1024];
    int reading = client->state == READING;
    ssize_t n = reading ? read(client->fd, client->in + client->n_in, sizeof client->in - 1 - client->n_in)
                        : read(client->fd, ignored, sizeof ignored);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(client); /* nobody is there to read a text, or it has been read */
    } else if (reading) {
        client->n_in += (size_t)n;
        read_request(client);
    }
}

static void accept_clients(int listener)
{
    FOR_EACH(client) {
        if (client->state != FREE)
            continue;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            exhausted = time(NULL); /* usually of descriptors: poll would come back at once */
        if (fd < 0)
            return;
        check_system(fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl");
        client->fd = fd;
        client->n_in = client->n_out = 0, client->cut_off = client->shut = 0;
        enter(client, READING);
    }
}

/* Requests that wait join the generation, in the order in which they came. */
static void join(void)
{
    static uint32_t tokens[TOKENS];
    while (waiting > 0 && running < sequences) {
        struct client *next = NULL;
        FOR_EACH(client)
            if (client->state == WAITING && (!next || client->ticket < next->ticket))
                next = client;
        esolm_prompt prompt = {tokens, NULL, 0};
        if (esolm_tokenize(model, next->prompt, next->prompt_len, tokens, TOKENS, &prompt.count) ||
            esolm_sequence_add(context, &prompt, &next->how, &next->sequence)) {
            refuse(next, "400 Bad Request", esolm_last_error());
            continue;
        }
        enter(next, RUNNING);
        say(next, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
                  "Trailer: Stop-Reason\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
    }
}

/* Runs a step of all sequences, and passes on what has become text. Who has failed, or is finished, leaves. */
static void step(void)
{
    esolm_step_info info = {.struct_size = sizeof info};
    int32_t done = 0;
    if (esolm_step(context, &info, &done))
        fprintf(stderr, "%s\n", esolm_last_error());
    /* The texts are there until the next call on the context. */
    FOR_EACH(client) {
        if (client->state != RUNNING || client->sequence >= info.n_texts || info.texts[client->sequence].len == 0)
            continue;
        say(client, "%zx\r\n", info.texts[client->sequence].len);
        put(client, info.texts[client->sequence].text, info.texts[client->sequence].len);
        say(client, "\r\n");
    }
    FOR_EACH(client) {
        int32_t reason = ESOLM_STOP_NONE;
        if (client->state != RUNNING)
            continue;
        check(esolm_stop_reason(context, client->sequence, &reason));
        if (reason != ESOLM_STOP_NONE)
            finish(client, reason);
        else
            send_some(client);
    }
}

static void serve_until_signal(int listener)
{
    for (;;) {
        size_t n = 2; /* no more than the process may have open */
        struct pollfd polled[CLIENTS + 2] = {{.fd = signals[0], .events = POLLIN}, {.fd = -1, .events = POLLIN}};
        for (size_t i = 0; i < CLIENTS; i++) {
            if (clients[i].state != FREE)
                n = i + 3;
            else if (time(NULL) != exhausted)
                polled[1].fd = listener;
            polled[i + 2].fd = clients[i].state == FREE ? -1 : clients[i].fd;
            polled[i + 2].events = clients[i].n_out > 0 ? POLLIN | POLLOUT : POLLIN;
        }
        if (poll(polled, (nfds_t)n, running > 0 ? 0 : 1000) < 0 && errno != EINTR)
            check_system(-1, "poll");
        if (polled[0].revents)
            return;
        for (size_t i = 0; i < CLIENTS; i++) {
            struct client *client = &clients[i];
            if (client->state != FREE && polled[i + 2].revents & POLLOUT)
                send_some(client);
            if (client->state != FREE && polled[i + 2].revents & ~POLLOUT)
                receive(client);
            if ((client->state == READING || client->state == ANSWERED) && time(NULL) - client->since > PATIENCE)
                hang_up(client);
        }
        if (polled[1].revents)
            accept_clients(listener);
        join();
        if (running > 0)
            step();
    }
}

static void on_signal(int number)
{
    (void)number;
    if (write(signals[1], "", 1) < 0)
        _exit(EXIT_FAILURE);
}

static int listen_on_loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check_system(listener, "socket");
    check_system(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "setsockopt");
    check_system(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check_system(listen(listener, 128), "listen");
    check_system(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
    check_system(getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
    printf("http://127.0.0.1:%d/completion\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv)
{
    uint64_t port = 0;
    if (argc < 2 || argc > 5 || (argc > 2 && !read_count(argv[2], 65535, &port)) ||
        (argc > 3 && !read_count(argv[3], CLIENTS, &sequences)) || sequences == 0 ||
        (argc > 4 && !read_count(argv[4], CLIENTS, &queue))) {
        fprintf(stderr, "usage: server MODEL [PORT [SEQUENCES [QUEUE]]], at most %d of each\n", CLIENTS);
        return EXIT_FAILURE;
    }
    check(esolm_model_open(argv[1], NULL, &model));
    esolm_context_params limits = {.struct_size = sizeof limits, .sequences = (size_t)sequences};
    check(esolm_context_new(model, &limits, &context));
    check_system(pipe(signals), "pipe");
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    serve_until_signal(listen_on_loopback((uint16_t)port));
    FOR_EACH(client) {
        if (client->state == RUNNING)
            finish(client, ESOLM_STOP_CANCELLED);
        if (client->state != FREE)
            hang_up(client);
    }
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
