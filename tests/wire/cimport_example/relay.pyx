# cython: language_level=3
"""What a program with sockets of its own does with the core's C-level interface."""

from libc.stdint cimport uint8_t

from descartes_fast._core.buffer cimport (
    Buffer, close_buffer, make_room, open_buffer, put_raw, size_of_buffer,
)
from descartes_fast._core.codec cimport decode_from, encode_frame, encode_into
from descartes_fast._core.header cimport Header, read_header


def head_of(bytes frame not None):
    """Return type, request id, agent id and command of a frame, without building a message."""
    cdef Header head
    cdef bint found
    cdef const uint8_t* data = frame
    cdef size_t size = len(frame)
    with nogil:
        found = read_header(data, size, &head)
    if not found:
        return None
    return (
        (<const char*>head.tag)[:head.tag_size],
        (<const char*>head.request_id)[:head.request_id_size] if head.request_id else None,
        (<const char*>head.agent_id)[:16] if head.has_agent_id else None,
        head.command,
    )


def message_inside(bytes frame not None, size_t begin, size_t end):
    """Return the message between two offsets of a frame; it keeps the frame alive."""
    assert begin <= end <= <size_t>len(frame)
    return decode_from(<const uint8_t*><const char*>frame + begin, end - begin, frame)


def message_copied(frame):
    """Return the message in memory that ends with this call."""
    cdef bytearray owned = bytearray(frame)
    return decode_from(<const uint8_t*><const char*>owned, len(owned), None)


def published(bytes topic not None, message):
    """Return the frame ``topic NUL message``."""
    front = topic + b"\0"
    return encode_frame(<const uint8_t*><const char*>front, len(front), message)


def batched(messages):
    """Return messages one behind the other in one buffer, and where each ends."""
    cdef uint8_t room[64]
    cdef Buffer out
    ends = []
    open_buffer(&out, room, sizeof(room))
    try:
        for message in messages:
            encode_into(&out, message)
            ends.append(size_of_buffer(&out))
        return (<const char*>out.start)[:size_of_buffer(&out)], ends
    finally:
        close_buffer(&out)
