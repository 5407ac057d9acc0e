"""The ids of a batch as text, all at once: a thousand of them without a thousand objects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from .classes cimport as_message
from .layout cimport ABSENT, CANONICAL, Field, Message, Record, Slice, record_of, slice_of
from .scalars cimport take_uuid
from .scan cimport find_field
from .wire cimport OK, Cursor, open_cursor, take_array

from .messages import BatchControlCommand

cdef enum:
    TEXT_SIZE = 36      # of an id

cdef const char* DIGITS = b"0123456789abcdef"


def id_texts(request, /):
    """Return the ids in a ``BatchControlCommand`` as ``str()`` has them, one space between two."""
    cdef Message* message = as_message(request)
    cdef const Record* record
    cdef const Slice* slice
    cdef Cursor cur
    cdef uint8_t agent_id[16]
    cdef uint32_t count, position
    cdef uint8_t* out
    if message == NULL or not isinstance(request, BatchControlCommand):
        raise TypeError(f"expected a BatchControlCommand, not {type(request).__name__}")
    record = record_of(message)
    slice = slice_of(message, &record.fields[find_field(record, b"agent_ids", 9)])
    if slice.owner == NULL:
        return b""
    open_cursor(
        &cur,
        <const uint8_t*>PyBytes_AS_STRING(<object>slice.owner) + slice.offset,
        slice.size & ~<uint32_t>CANONICAL,
    )
    if take_array(&cur, &count) != OK or count == 0:
        return b""
    texts = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count * (TEXT_SIZE + 1) - 1)
    out = <uint8_t*>PyBytes_AS_STRING(texts)
    for position in range(count):
        if position:
            out[0] = c" "
            out += 1
        if take_uuid(&cur, agent_id) != OK:
            raise ValueError("the message was checked when it was made")
        out = put_text(out, agent_id)
    return texts


cdef inline uint8_t* put_text(uint8_t* out, const uint8_t* agent_id) noexcept nogil:
    """Write an id as text; return where it ends."""
    cdef int i
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[0] = c"-"
            out += 1
        out[0] = DIGITS[agent_id[i] >> 4]
        out[1] = DIGITS[agent_id[i] & 15]
        out += 2
    return out
