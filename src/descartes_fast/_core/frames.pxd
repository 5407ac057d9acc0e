"""libzmq's functions, for C code that uses a socket without the GIL. See ``frames.pyx``.

They are there if ``LIBZMQ_FOUND``. A socket may be used by one thread at a time only.
"""

from libc.stddef cimport size_t

cdef enum:
    # Of zmq.h.
    NOBLOCK = 1
    SNDMORE = 2
    EVENTS = 15
    EVENT_IN = 1
    EVENT_OUT = 2

cdef struct Message:
    # zmq_msg_t: 64 bytes whose insides are libzmq's own, aligned as a pointer is.
    void* insides[8]

ctypedef int (*on_message_t)(Message*) noexcept nogil
ctypedef int (*receive_t)(Message*, void*, int) noexcept nogil
ctypedef void* (*data_t)(Message*) noexcept nogil
ctypedef size_t (*size_of_t)(const Message*) noexcept nogil
ctypedef int (*is_more_t)(const Message*) noexcept nogil
ctypedef int (*send_t)(void*, const void*, size_t, int) noexcept nogil
ctypedef int (*get_option_t)(void*, int, void*, size_t*) noexcept nogil
ctypedef int (*errno_t)() noexcept nogil

cdef on_message_t msg_init
cdef on_message_t msg_close
cdef receive_t msg_recv
cdef data_t msg_data
cdef size_of_t msg_size
cdef is_more_t msg_more
cdef send_t send_bytes
cdef get_option_t get_option
cdef errno_t last_errno

cdef int read_events(void* handle) noexcept nogil
cdef void* handle_of(object socket) except NULL
cdef int check_open(object socket) except -1
cdef int check_frames(tuple frames) except -1
cdef Py_ssize_t send_frames(void* handle, tuple frames) except -1
cdef int send_remaining(void* handle, tuple frames) except -1
cdef int send_message(void* handle, tuple frames) except -1
