"""What a server does for all agents of a batch at once: for a thousand without a thousand objects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from .classes cimport as_message
from .layout cimport CANONICAL, Field, Message, Record, Slice, Words, record_of, slice_of
from .scalars cimport take_uuid, take_word
from .scan cimport find_field
from .table cimport find_tag
from .wire cimport OK, Cursor, open_cursor, take_array, take_bool, take_nil

from .messages import BatchControlCommand, BatchControlResponse

cdef enum:
    ID_SIZE = 16

cdef Record* _response = find_tag(b"batch_control_response", 22)
cdef Record* _result = _response.fields[find_field(_response, b"results", 7)].record
cdef Words* STATUSES = _result.fields[find_field(_result, b"status", 6)].words


def batch_ids(request, /):
    """Return the ids in a ``BatchControlCommand`` as they were given, 16 bytes each."""
    cdef Cursor cur
    cdef uint32_t count, position
    cdef uint8_t* out
    if not isinstance(request, BatchControlCommand):
        raise TypeError(f"expected a BatchControlCommand, not {type(request).__name__}")
    if not open_list(&cur, as_message(request), b"agent_ids", 9, &count):
        return b""
    ids = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>count * ID_SIZE)
    out = <uint8_t*>PyBytes_AS_STRING(ids)
    for position in range(count):
        if take_uuid(&cur, out + position * ID_SIZE) != OK:
            raise ValueError("the message was checked when it was made")
    return ids


def common_status(response, /):
    """Return the status that every result in a ``BatchControlResponse`` has.

    None if they differ, or one is no success, or there are none.
    """
    cdef Cursor cur
    cdef uint8_t agent_id[16]
    cdef uint32_t count, position, fields, status
    cdef uint32_t first = 0
    cdef bint success
    if not isinstance(response, BatchControlResponse):
        raise TypeError(f"expected a BatchControlResponse, not {type(response).__name__}")
    if not open_list(&cur, as_message(response), b"results", 7, &count):
        return None
    for position in range(count):
        # In the order of the table: id, success, status, error.
        if (
            take_array(&cur, &fields) != OK
            or fields != 4
            or take_uuid(&cur, agent_id) != OK
            or take_bool(&cur, &success) != OK
            or not success
            or take_word(&cur, STATUSES, &status) != OK
            or not take_nil(&cur)
            or (position and status != first)
        ):
            return None
        first = status
    return <object>STATUSES.words[first].member


cdef bint open_list(
    Cursor* cur, const Message* message, const char* name, size_t size, uint32_t* count
) noexcept:
    """Move to the first element of a message's list. Returns whether there is one."""
    cdef const Record* record = record_of(message)
    cdef const Field* field = &record.fields[find_field(record, <const uint8_t*>name, size)]
    cdef const Slice* slice = slice_of(message, field)
    if slice.owner == NULL:
        return False
    open_cursor(
        cur,
        <const uint8_t*>PyBytes_AS_STRING(<object>slice.owner) + slice.offset,
        slice.size & ~<uint32_t>CANONICAL,
    )
    return take_array(cur, count) == OK and count[0] > 0
