"""Bytes to messages and back: the functions that everybody else calls."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from ..errors import FieldError, MessageTooLarge

from .buffer cimport Buffer, close_buffer, open_buffer, size_of_buffer
from .decode cimport decode_message
from .encode cimport encode_message
from .layout cimport Message, record_of
from .classes cimport as_message

MAX_MESSAGE_SIZE = 10 * 1024 * 1024
ZMQ_PROTOCOL_VERSION = "1.0.0"
DEFAULT_TIMEOUT_SECS = 30

cdef size_t LIMIT = 10 * 1024 * 1024


def validate_message_size(size: int, /) -> None:
    """Check a message's size in bytes. Raises MessageTooLarge above ``MAX_MESSAGE_SIZE``."""
    if size > LIMIT:
        raise MessageTooLarge(size, LIMIT)


def serialize_zmq_message(message, /) -> bytes:
    """Return a message's bytes, in the compact form.

    Raises MessageTooLarge above ``MAX_MESSAGE_SIZE``, FieldError if it is no message.
    """
    cdef uint8_t room[2048]
    cdef Buffer out
    cdef Message* found = as_message(message)
    if found == NULL or record_of(found).tag == NULL:
        raise FieldError(f"{type(message).__name__} is not a message")
    open_buffer(&out, room, sizeof(room))
    try:
        encode_message(&out, found)
        if size_of_buffer(&out) > LIMIT:
            raise MessageTooLarge(size_of_buffer(&out), LIMIT)
        return (<const char*>out.start)[:size_of_buffer(&out)]
    finally:
        close_buffer(&out)


def deserialize_zmq_message(data, /):
    """Return the message in ``data``, which is anything with the buffer protocol.

    Raises MessageTooLarge above ``MAX_MESSAGE_SIZE``, ProtocolError for whatever is not one
    whole message.
    """
    if type(data) is not bytes:
        # A copy first: no other thread may change bytes that were already checked.
        view = memoryview(data)
        if view.nbytes > LIMIT:
            raise MessageTooLarge(view.nbytes, LIMIT)
        data = view.tobytes()
    elif <size_t>len(<bytes>data) > LIMIT:
        raise MessageTooLarge(len(<bytes>data), LIMIT)
    return decode_message(
        <const uint8_t*><const char*><bytes>data, len(<bytes>data), <PyObject*>data
    )
