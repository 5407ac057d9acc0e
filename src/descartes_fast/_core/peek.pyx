"""The head of a message that may be broken: its type and its request id, if they can be read."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from .scan cimport is_utf8, skip_any
from .wire cimport Cursor, OK, open_cursor, take_array, take_map, take_str, take_text

cdef enum:
    MAX_HEAD_TEXT = 1024    # a longer request id is no id that anybody waits for
    LIMIT = 10 * 1024 * 1024


def peek_header(data, /):
    """Return ``(tag, request_id)`` of a message, for the reply to one that cannot be decoded.

    ``request_id`` is None where none can be read. Returns None where not even the tag can be.
    Never raises.
    """
    cdef Cursor cur
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef const uint8_t* key
    cdef size_t size
    cdef bytes held
    tag = request_id = None
    try:
        view = memoryview(data)
        if view.nbytes > LIMIT:
            return None
        held = view.tobytes() if type(data) is not bytes else data
    except (TypeError, ValueError, BufferError, MemoryError):
        return None
    open_cursor(&cur, <const uint8_t*><const char*>held, len(held))
    if take_array(&cur, &count) == OK:
        if count:
            tag = short_text(&cur)
        if tag is None:
            return None
        if count > 1 and tag not in ("status_update", "log_stream"):
            request_id = short_text(&cur)
        return tag, request_id
    if take_map(&cur, &count) != OK:
        return None
    for i in range(count):
        if take_str(&cur, &key, &size) != OK:
            break
        if size == 4 and memcmp(key, b"type", 4) == 0 and tag is None:
            tag = short_text(&cur)
            if tag is None:
                break
        elif size == 10 and memcmp(key, b"request_id", 10) == 0 and request_id is None:
            request_id = short_text(&cur)
            if request_id is None:
                break
        elif skip_any(&cur) != OK:
            break
    return (tag, request_id) if tag is not None else None


cdef object short_text(Cursor* cur):
    """Take a string, or return None."""
    cdef const uint8_t* data
    cdef size_t size
    if take_text(cur, &data, &size) != OK or size > MAX_HEAD_TEXT or not is_utf8(data, size):
        return None
    return (<const char*>data)[:size].decode()
