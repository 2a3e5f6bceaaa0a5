/* An open loop over HTTP/1.1 keep-alive connections that costs little beside what is measured.
 *
 *   open_loop PORT CONNECTIONS REQUEST_FILE < TIMES > SEEN
 *
 * TIMES are doubles: when each request is due, in seconds from the start.  SEEN are three doubles a
 * request, in the order of answers: its latency from when it was due, how late it was sent, both
 * in seconds, and the status of its answer.  An answer is as long as its Content-Length says.
 * Exit code 1 and a line on stderr when a connection breaks, or an answer is late by 30 s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX 65536
#define DRAIN_S 30.0

struct connection {
    double due_s, late_s;
    int waits;  // for an answer
    size_t received;
    char answer[ANSWER_MAX + 1];
};

static void fail(const char *what) {
    fprintf(stderr, "open_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *need(void *memory) {
    if (memory == NULL) fail("memory");
    return memory;
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Read all of a stream. */
static char *slurp(FILE *stream, size_t *length) {
    size_t room = 1 << 16;
    char *data = need(malloc(room));
    for (*length = 0;;) {
        *length += fread(data + *length, 1, room - *length, stream);
        if (*length < room) break;
        data = need(realloc(data, room *= 2));
    }
    if (ferror(stream)) fail("read");
    return data;
}

static int dial(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Return the status of an answer that is there as a whole, else 0. */
static int answered(struct connection *each) {
    each->answer[each->received] = 0;
    char *end = strstr(each->answer, "\r\n\r\n");
    if (end == NULL) return 0;
    char *length = strcasestr(each->answer, "content-length:");
    size_t body = length != NULL && length < end ? strtoul(length + 15, NULL, 10) : 0;
    if (each->received < (size_t)(end + 4 - each->answer) + body) return 0;
    return atoi(each->answer + sizeof "HTTP/1.1");
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "open_loop PORT CONNECTIONS REQUEST_FILE < TIMES > SEEN\n");
        return 2;
    }
    int connections = atoi(arguments[2]), idle = connections;
    FILE *file = fopen(arguments[3], "rb");
    if (file == NULL) fail(arguments[3]);
    size_t length, bytes;
    char *request = slurp(file, &length);
    double *times = (double *)slurp(stdin, &bytes);
    size_t wanted = bytes / sizeof *times, sent = 0, seen = 0;
    double *out = need(malloc(3 * bytes + 1));
    struct connection *all = need(calloc((size_t)connections, sizeof *all));
    struct pollfd *polled = need(calloc((size_t)connections, sizeof *polled));
    int *free_ones = need(calloc((size_t)connections, sizeof *free_ones));
    for (int i = 0; i < connections; i++) {
        polled[i].fd = dial(atoi(arguments[1]));
        polled[i].events = POLLIN;
        free_ones[i] = i;
    }
    double start_s = now_s(), end_s = start_s + (wanted ? times[wanted - 1] : 0) + DRAIN_S;
    while (seen < wanted) {
        double time_s = now_s();
        while (sent < wanted && idle > 0 && start_s + times[sent] <= time_s) {
            int i = free_ones[--idle];
            all[i].due_s = start_s + times[sent++];
            all[i].received = 0;
            if (send(polled[i].fd, request, length, 0) != (ssize_t)length) fail("send");
            time_s = now_s();
            all[i].late_s = time_s - all[i].due_s;
            all[i].waits = 1;
        }
        if (time_s > end_s) {
            errno = ETIMEDOUT;
            fail("an answer");
        }
        double until_s = sent < wanted && idle > 0 ? start_s + times[sent] : end_s;
        double wait_s = until_s > time_s ? until_s - time_s : 0;
        struct timespec wait = {(time_t)wait_s, (long)((wait_s - (double)(time_t)wait_s) * 1e9)};
        if (ppoll(polled, (nfds_t)connections, &wait, NULL) < 0) fail("poll");
        for (int i = 0; i < connections; i++) {
            if (polled[i].revents == 0) continue;
            struct connection *each = &all[i];
            ssize_t got = recv(
                polled[i].fd, each->answer + each->received, ANSWER_MAX - each->received, 0);
            if (!each->waits) {
                if (got > 0) {
                    errno = EPROTO;
                    fail("what nobody asked for");
                }
                // It idled for so long that the server let go.
                close(polled[i].fd);
                polled[i].fd = dial(atoi(arguments[1]));
                continue;
            }
            if (got < 0) fail("receive");
            if (got == 0) {
                errno = ECONNRESET;
                fail("receive");
            }
            each->received += (size_t)got;
            int status = answered(each);
            if (status == 0) continue;
            out[3 * seen] = now_s() - each->due_s;
            out[3 * seen + 1] = each->late_s;
            out[3 * seen++ + 2] = status;
            each->waits = 0;
            free_ones[idle++] = i;
        }
    }
    if (fwrite(out, 3 * sizeof *out, seen, stdout) != seen || fflush(stdout)) fail("write");
    return 0;
}
