/* The part of libzmq's stable C API that the limits use; pyzmq's wheels bring no headers. */
#include <stddef.h>

void *zmq_ctx_new(void);
int zmq_ctx_term(void *context);
void *zmq_socket(void *context, int type);
int zmq_close(void *socket);
int zmq_setsockopt(void *socket, int option, const void *value, size_t size);
int zmq_getsockopt(void *socket, int option, void *value, size_t *size);
int zmq_bind(void *socket, const char *endpoint);
int zmq_connect(void *socket, const char *endpoint);
int zmq_send(void *socket, const void *data, size_t size, int flags);
int zmq_recv(void *socket, void *data, size_t size, int flags);

typedef struct {
    void *socket;
    int fd;
    short events;
    short revents;
} zmq_pollitem_t;
int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms);

enum { ZMQ_PUB = 1, ZMQ_SUB = 2, ZMQ_DEALER = 5, ZMQ_ROUTER = 6, ZMQ_XPUB = 9 };
enum {
    ZMQ_SUBSCRIBE = 6,
    ZMQ_RCVMORE = 13,
    ZMQ_LINGER = 17,
    ZMQ_SNDHWM = 23,
    ZMQ_RCVHWM = 24,
    ZMQ_LAST_ENDPOINT = 32,
    ZMQ_XPUB_NODROP = 69,
};
enum { ZMQ_DONTWAIT = 1, ZMQ_SNDMORE = 2, ZMQ_POLLIN = 1 };
