"""Whole messages in and out of a pyzmq socket by libzmq's own functions.

One Python call a message instead of several a frame, and no exception for EAGAIN. The functions
are those of the library that pyzmq itself has loaded, found through pyzmq's extension module: a
second libzmq is never linked. Where they cannot be found (Windows, a pyzmq built in another way)
``LIBZMQ_FOUND`` is false and ``plain_frames.py`` does the same through pyzmq's calls.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport uint8_t, uintptr_t

import errno

import zmq
import zmq.backend

from .publications cimport Sorter


cdef bint find_libzmq() except -1:
    """Look the functions up in pyzmq's extension and the libraries that it depends on."""
    global msg_init, msg_close, msg_recv, msg_data, msg_size, msg_more
    global send_bytes, get_option, last_errno
    cdef uintptr_t init, close, recv, data, size, more, send, option, error
    try:
        import ctypes

        from zmq.backend.cython import _zmq

        if zmq.backend.Socket is not _zmq.Socket:
            # The sockets are another backend's (PYZMQ_BACKEND), and that one's libzmq has them.
            return False
        library = ctypes.CDLL(_zmq.__file__)
        init, close, recv, data, size, more, send, option, error = [
            ctypes.cast(getattr(library, f"zmq_{name}"), ctypes.c_void_p).value
            for name in (
                "msg_init", "msg_close", "msg_recv", "msg_data", "msg_size", "msg_more",
                "send", "getsockopt", "errno",
            )
        ]
    except (ImportError, OSError, AttributeError):
        return False
    msg_init = <on_message_t><void*>init
    msg_close = <on_message_t><void*>close
    msg_recv = <receive_t><void*>recv
    msg_data = <data_t><void*>data
    msg_size = <size_of_t><void*>size
    msg_more = <is_more_t><void*>more
    send_bytes = <send_t><void*>send
    get_option = <get_option_t><void*>option
    last_errno = <errno_t><void*>error
    return True


LIBZMQ_FOUND = find_libzmq()


cdef class Frames:
    """The frames of one pyzmq socket, on the thread that the socket is used on."""

    cdef void* _handle
    cdef object _socket

    def __init__(self, socket):
        self._handle = handle_of(socket)
        self._socket = socket

    @property
    def fd(self):
        """What becomes readable when libzmq has news for the socket."""
        return self._socket.getsockopt(zmq.FD)

    def events(self):
        """Return what the socket is ready for (``zmq.POLLIN``, ``POLLOUT``)."""
        check_open(self._socket)
        cdef int events = read_events(self._handle)
        if events < 0:
            raise zmq.ZMQError(-events)
        return events

    def receive(self, Py_ssize_t limit):
        """Return at most ``limit`` messages, each a list of frames; fewer: there are no more."""
        cdef list messages = []
        check_open(self._socket)
        while len(messages) < limit:
            frames = receive_one(self._handle)
            if frames is None:
                break
            messages.append(frames)
        return messages

    def receive_published(self, Py_ssize_t limit, dict routes):
        """Return how many messages there were, at most ``limit``, and the ``runs`` they make.

        What a run is says ``publications.pyx``, and when there are ``full`` of them. Frames behind
        a message's first are not looked at.
        """
        cdef Sorter sorter = Sorter(routes)
        cdef Py_ssize_t count = 0
        cdef Message part
        check_open(self._socket)
        msg_init(&part)
        try:
            while count < limit and not sorter.full and receive_part(self._handle, &part):
                sorter.take(<const uint8_t*>msg_data(&part), msg_size(&part))
                while msg_more(&part):
                    receive_part(self._handle, &part)
                count += 1
        finally:
            msg_close(&part)
        return count, sorter.runs

    def send(self, tuple frames):
        """Send one message without waiting; return how many of its frames libzmq has taken.

        All of them: it is sent. Not one: it would have to wait. In between: its peer went away
        in the middle of it, and libzmq discards everything up to a frame without ``SNDMORE``.
        """
        check_open(self._socket)
        return send_frames(self._handle, frames)

    def send_rest(self, tuple frames):
        """Give libzmq what is left of a message that it discards."""
        check_open(self._socket)
        send_remaining(self._handle, frames)

    def send_all(self, list messages):
        """Send messages without waiting; return for each 0, or the errno of what is in its way.

        ``EAGAIN``: it would have to wait. None of it goes out then.
        """
        check_open(self._socket)
        return [send_message(self._handle, frames) for frames in messages]

    def close(self):
        """Nothing: the socket is its owner's to close."""


cdef void* handle_of(object socket) except NULL:
    """Return the handle of a pyzmq socket, which is good until the socket is closed."""
    if not LIBZMQ_FOUND:
        raise NotImplementedError("libzmq's functions were not found in pyzmq")
    if not isinstance(socket, zmq.backend.Socket):
        raise TypeError(f"expected a zmq.Socket, not {type(socket).__name__}")
    return <void*><uintptr_t>socket.underlying


cdef int check_open(object socket) except -1:
    """A closed socket's handle is memory that libzmq has given back."""
    if socket.closed:
        raise zmq.ZMQError(errno.ENOTSOCK)
    return 0


cdef int check_frames(tuple frames) except -1:
    """What is refused is refused whole: a part of it would be in front of the next message."""
    for frame in frames:
        if type(frame) is not bytes:
            raise TypeError(f"a frame must be bytes, not {type(frame).__name__}")
    return 0


cdef int read_events(void* handle) noexcept nogil:
    """Return what a socket is ready for, or a negative errno."""
    cdef int events = 0
    cdef size_t size = sizeof(events)
    while get_option(handle, EVENTS, &events, &size) != 0:
        if last_errno() != EINTR:
            return -last_errno()
    return events


cdef Py_ssize_t send_frames(void* handle, tuple frames) except -1:
    """Send one message without waiting; return how many of its frames libzmq has taken."""
    cdef Py_ssize_t count = len(frames)
    cdef Py_ssize_t position
    check_frames(frames)
    for position in range(count):
        if not send_one(handle, frames[position], position < count - 1):
            return position
    return count


cdef int send_message(void* handle, tuple frames) except -1:
    """Send one message without waiting, all of it or nothing. Returns 0 or an errno."""
    cdef Py_ssize_t taken
    try:
        taken = send_frames(handle, frames)
    except zmq.ZMQError as failure:
        return failure.errno
    if taken == len(frames):
        return 0
    if taken:
        # libzmq discards up to the frame without MORE.
        send_remaining(handle, frames[taken + 1 :])
    return EAGAIN


cdef int send_remaining(void* handle, tuple frames) except -1:
    """Send frames whether libzmq takes them or not."""
    cdef Py_ssize_t count = len(frames)
    cdef Py_ssize_t position
    check_frames(frames)
    for position in range(count):
        send_one(handle, frames[position], position < count - 1)
    return 0


cdef list receive_one(void* handle):
    """Return the frames of one message, None if there is none."""
    cdef Message part
    cdef list frames = []
    msg_init(&part)
    try:
        while receive_part(handle, &part):
            frames.append(
                PyBytes_FromStringAndSize(<const char*>msg_data(&part), msg_size(&part))
            )
            if not msg_more(&part):
                return frames
        return None
    finally:
        msg_close(&part)


cdef bint receive_part(void* handle, Message* part) except -1:
    """Receive one frame; what ``part`` had is let go. Returns whether there was one."""
    while msg_recv(part, handle, NOBLOCK) < 0:
        if last_errno() == EAGAIN:
            return False
        if last_errno() != EINTR:
            raise zmq.ZMQError(last_errno())
    return True


cdef bint send_one(void* handle, bytes frame, bint more) except -1:
    """Send one frame. Returns whether libzmq took it; it did not if it would have to wait."""
    while send_bytes(
        handle,
        PyBytes_AS_STRING(frame),
        <size_t>PyBytes_GET_SIZE(frame),
        NOBLOCK | SNDMORE if more else NOBLOCK,
    ) < 0:
        if last_errno() == EAGAIN:
            return False
        if last_errno() != EINTR:
            raise zmq.ZMQError(last_errno())
    return True
