/* libzmq's DEALER to ROUTER and back over TCP, from C, a number of requests in flight.
 *
 * One process of each, as with everything else that is measured. A round's parameters come
 * as the JSON line that all contestants get; only "count", "in_flight" and "clients" matter.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rounds.h"
#include "zmq_api.h"

enum { BYTES = 120, CLIENTS = 8 };

static void serve(int told)
{
    char identity[64], body[4096], endpoint[128];
    size_t size = sizeof endpoint;
    void *router = zmq_socket(zmq_ctx_new(), ZMQ_ROUTER);
    int endless = 0;
    zmq_setsockopt(router, ZMQ_SNDHWM, &endless, sizeof endless);
    zmq_setsockopt(router, ZMQ_RCVHWM, &endless, sizeof endless);
    if (zmq_bind(router, "tcp://127.0.0.1:*"))
        exit(1);
    zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size);
    if (write(told, endpoint, sizeof endpoint) < 0)
        exit(1);
    for (;;) {
        int named = zmq_recv(router, identity, sizeof identity, 0);
        int filled = zmq_recv(router, body, sizeof body, 0);
        zmq_send(router, identity, named, ZMQ_SNDMORE);
        zmq_send(router, body, filled, 0);
    }
}

int main(void)
{
    int told[2];
    char endpoint[128], line[4096], body[4096] = {0};
    if (pipe(told))
        return 1;
    pid_t server = fork();
    if (server == 0)
        serve(told[1]);
    if (read(told[0], endpoint, sizeof endpoint) <= 0)
        return 1;
    void *context = zmq_ctx_new();
    zmq_pollitem_t items[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        int nothing = 0;
        void *dealer = zmq_socket(context, ZMQ_DEALER);
        zmq_setsockopt(dealer, ZMQ_LINGER, &nothing, sizeof nothing);
        zmq_setsockopt(dealer, ZMQ_SNDHWM, &nothing, sizeof nothing);
        zmq_setsockopt(dealer, ZMQ_RCVHWM, &nothing, sizeof nothing);
        zmq_connect(dealer, endpoint);
        items[i] = (zmq_pollitem_t){.socket = dealer, .events = ZMQ_POLLIN};
    }
    puts("{}");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long count = number_of(line, "count", 1), clients = number_of(line, "clients", 1);
        long in_flight = number_of(line, "in_flight", 1), sent = 0, received = 0;
        double begun = now();
        for (; sent < in_flight && sent < count; sent++)
            zmq_send(items[sent % clients].socket, body, BYTES, 0);
        while (received < count) {
            zmq_poll(items, (int)clients, -1);
            for (int i = 0; i < clients; i++) {
                while (zmq_recv(items[i].socket, body, sizeof body, ZMQ_DONTWAIT) >= 0) {
                    received++;
                    if (sent < count) {
                        zmq_send(items[i].socket, body, BYTES, 0);
                        sent++;
                    }
                }
            }
        }
        printf("{\"rate\": %f, \"done\": %ld}\n", count / (now() - begun), received);
        fflush(stdout);
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return 0;
}
