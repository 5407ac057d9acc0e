"""Bytes to messages and back: the functions that everybody else calls."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from ..errors import FieldError, MessageTooLarge

from .buffer cimport Buffer, close_buffer, make_room, open_buffer, put_raw, size_of_buffer
from .classes cimport as_message
from .decode cimport decode_message
from .encode cimport encode_message
from .layout cimport Message, record_of
from .wire cimport MAX_SIZE

MAX_MESSAGE_SIZE = MAX_SIZE
ZMQ_PROTOCOL_VERSION = "1.0.0"
DEFAULT_TIMEOUT_SECS = 30


def validate_message_size(size: int, /) -> None:
    """Check a message's size in bytes. Raises MessageTooLarge above ``MAX_MESSAGE_SIZE``."""
    if size > MAX_SIZE:
        raise MessageTooLarge(size, MAX_SIZE)


@cython.binding(False)
def serialize_zmq_message(message, /, prefix: bytes = b"") -> bytes:
    """Return a message's bytes, in the compact form, behind ``prefix``.

    A published frame is a topic, a NUL and a message: with the first two as ``prefix`` the
    frame is made in one piece. Raises MessageTooLarge above ``MAX_MESSAGE_SIZE`` (the prefix
    not counted), FieldError if it is no message.
    """
    cdef bytes front = prefix
    return encode_frame(<const uint8_t*><const char*>front, len(front), message)


cdef bytes encode_frame(const uint8_t* prefix, size_t prefix_size, object message):
    """Return one frame of a prefix and a message."""
    cdef uint8_t room[2048]
    cdef Buffer out
    open_buffer(&out, room, sizeof(room))
    try:
        if prefix_size:
            if make_room(&out, prefix_size):
                raise MemoryError
            put_raw(&out, prefix, prefix_size)
        encode_into(&out, message)
        return (<const char*>out.start)[:size_of_buffer(&out)]
    finally:
        close_buffer(&out)


cdef int encode_into(Buffer* out, object message) except -1:
    """Write a message behind what the buffer holds. Raises as ``serialize_zmq_message``."""
    cdef Message* found = as_message(message)
    cdef size_t before = size_of_buffer(out)
    if found == NULL or record_of(found).tag == NULL:
        raise FieldError(f"{type(message).__name__} is not a message")
    encode_message(out, found)
    if size_of_buffer(out) - before > MAX_SIZE:
        raise MessageTooLarge(size_of_buffer(out) - before, MAX_SIZE)
    return 0


# A plain builtin: the interpreter calls it without a detour.
@cython.binding(False)
def deserialize_zmq_message(data, /):
    """Return the message in ``data``, which is anything with the buffer protocol.

    Takes no more memory than ``data`` has bytes, whatever those are (twice that if ``data`` is not
    ``bytes``, since it is copied first). Ids, times, payloads, maps and lists are built whole when
    they are first read, and a list or a map of short texts is then up to 30 times its bytes: look
    at ``len(data)`` before you read a stranger's.

    Raises MessageTooLarge above ``MAX_MESSAGE_SIZE``, ProtocolError for whatever is not one
    whole message.
    """
    cdef bytes held
    if type(data) is bytes:
        held = <bytes>data
    else:
        # A copy first: no other thread may change bytes that were already checked.
        view = memoryview(data)
        if <size_t>view.nbytes > MAX_SIZE:
            raise MessageTooLarge(view.nbytes, MAX_SIZE)
        held = view.tobytes()
    return decode_from(<const uint8_t*><const char*>held, len(held), held)


cdef object decode_from(const uint8_t* data, size_t size, bytes owner):
    """Return the message in ``size`` bytes at ``data``, which lie inside ``owner``.

    With ``owner`` None the bytes are copied, and need not outlive the call. Raises as
    ``deserialize_zmq_message``.
    """
    if size > MAX_SIZE:
        raise MessageTooLarge(size, MAX_SIZE)
    if owner is None:
        owner = (<const char*>data)[:size]
        data = <const uint8_t*><const char*>owner
    return decode_message(data, size, <PyObject*>owner)
