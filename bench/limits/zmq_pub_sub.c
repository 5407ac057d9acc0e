/* libzmq's PUB/SUB over TCP, from C.
 *
 * "source FRAMES SERVER_ID" is a publisher that loses nothing: it sends the frames of a file
 * (each after its length in four bytes) whenever a line comes on its stdin, and answers a
 * subscription to sync/... with that topic and the server's id, as our servers do.
 * "measure FRAMES" is the limit: it starts such a source and receives in C.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rounds.h"
#include "zmq_api.h"

enum { MOST_SUBSCRIBERS = 64 };

static const char *frames;
static size_t frames_size;
static const char topic[] = "status/";

static void send_frames(void *xpub)
{
    for (size_t at = 0; at < frames_size;) {
        uint32_t size;
        memcpy(&size, frames + at, sizeof size);
        at += sizeof size;
        zmq_send(xpub, frames + at, size, 0);
        at += size;
    }
}

static void answer_subscriptions(void *xpub, const char *server_id)
{
    char message[512];
    int size;
    while ((size = zmq_recv(xpub, message, sizeof message, ZMQ_DONTWAIT)) > 0) {
        if (size > 256 || message[0] != 1 || strncmp(message + 1, "sync/", 5))
            continue;
        message[size] = 0;
        memcpy(message + size + 1, server_id, strlen(server_id));
        zmq_send(xpub, message + 1, size + strlen(server_id), 0);
    }
}

static int run_source(const char *server_id, FILE *orders, FILE *answers)
{
    char line[4096], endpoint[128];
    size_t size = sizeof endpoint;
    int yes = 1, nothing = 0;
    void *xpub = zmq_socket(zmq_ctx_new(), ZMQ_XPUB);
    zmq_setsockopt(xpub, ZMQ_XPUB_NODROP, &yes, sizeof yes);
    zmq_setsockopt(xpub, ZMQ_LINGER, &nothing, sizeof nothing);
    if (zmq_bind(xpub, "tcp://127.0.0.1:*"))
        return 1;
    zmq_getsockopt(xpub, ZMQ_LAST_ENDPOINT, endpoint, &size);
    fprintf(answers, "%s\n", endpoint);
    fflush(answers);
    zmq_pollitem_t items[] = {
        {.socket = xpub, .events = ZMQ_POLLIN}, {.fd = fileno(orders), .events = ZMQ_POLLIN}};
    for (;;) {
        zmq_poll(items, 2, -1);
        answer_subscriptions(xpub, server_id);
        if (items[1].revents) {
            if (!fgets(line, sizeof line, orders))
                return 0;
            send_frames(xpub);
        }
    }
}

static int measure(void)
{
    int orders[2], answers[2];
    char endpoint[128], line[4096], message[4096];
    if (pipe(orders) || pipe(answers))
        return 1;
    pid_t source = fork();
    if (source == 0) {
        close(orders[1]);
        _exit(run_source("", fdopen(orders[0], "r"), fdopen(answers[1], "w")));
    }
    close(orders[0]);
    if (!fgets(endpoint, sizeof endpoint, fdopen(answers[0], "r")))
        return 1;
    endpoint[strcspn(endpoint, "\n")] = 0;
    void *context = zmq_ctx_new();
    zmq_pollitem_t items[MOST_SUBSCRIBERS];
    long known = 0;
    puts("{}");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long count = number_of(line, "count", 1), subscribers = number_of(line, "subscribers", 1);
        for (; known < subscribers; known++) {
            items[known] = (zmq_pollitem_t){
                .socket = zmq_socket(context, ZMQ_SUB), .events = ZMQ_POLLIN};
            zmq_setsockopt(items[known].socket, ZMQ_SUBSCRIBE, topic, strlen(topic));
            zmq_connect(items[known].socket, endpoint);
        }
        usleep(200000); /* A SUB socket is not told when its subscription has arrived. */
        long received = 0;
        double begun = now();
        if (write(orders[1], "go\n", 3) != 3)
            return 1;
        while (received < count * subscribers) {
            zmq_poll(items, (int)subscribers, -1);
            for (long i = 0; i < subscribers; i++)
                while (zmq_recv(items[i].socket, message, sizeof message, ZMQ_DONTWAIT) >= 0)
                    received++;
        }
        printf("{\"rate\": %f, \"done\": %ld}\n", received / (now() - begun), received);
        fflush(stdout);
    }
    close(orders[1]);
    waitpid(source, NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    struct stat status;
    int file = argc > 2 ? open(argv[2], O_RDONLY) : -1;
    if (file < 0 || fstat(file, &status))
        return 2;
    frames_size = status.st_size;
    frames = mmap(NULL, frames_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    return strcmp(argv[1], "source") ? measure() : run_source(argv[3], stdin, stdout);
}
