"""What a server does for all agents of a batch at once: for a thousand without a thousand objects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from .buffer cimport (
    Buffer, close_buffer, make_room, open_buffer, put_array_header, put_nil, put_raw, put_u8,
    put_uuid, size_of_buffer,
)
from .classes cimport as_message
from .id_table cimport (
    FEWEST_PLACES, ID_SIZE, IdTable, close_id_table, drop_number, number_of, open_id_table,
    set_number,
)
from .layout cimport (
    CANONICAL, Field, Message, Py_IncRef, Py_XDecRef, Record, Slice, Words, record_of, slice_of,
)
from .scalars cimport take_uuid, take_word
from .scan cimport find_field
from .table cimport find_tag
from .wire cimport OK, Cursor, open_cursor, take_array, take_bool, take_nil

from .messages import BatchControlCommand, BatchControlResponse

cdef enum:
    MOST_RESULT = 64    # bytes of a result without an error

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


cdef class Granted:
    """The statuses of agents, for the answer to a batch that went well for all of them.

    Whoever tells a status takes it back before it is no longer true. For one thread.
    """

    cdef IdTable _statuses      # their places in the table of words, and 1
    cdef readonly size_t changes
    """How often something was taken back: what was answered before that may be true no more."""

    def __cinit__(self):
        if open_id_table(&self._statuses, FEWEST_PLACES) < 0:
            raise MemoryError

    def __dealloc__(self):
        close_id_table(&self._statuses)

    def __len__(self):
        return self._statuses.count

    def tell(self, bytes agent_id not None, status, /):
        """Say from now on that an agent, by the 16 bytes of its id, has this status."""
        cdef uint32_t place
        for place in range(STATUSES.count):
            if <object>STATUSES.words[place].member is status:
                break
        else:
            raise ValueError(f"{status!r} is no AgentStatus")
        if set_number(&self._statuses, id_in(agent_id), <int>place + 1) < 0:
            raise MemoryError

    def take_back(self, bytes agent_id not None, /):
        """Say nothing of an agent any more, until it is told anew."""
        drop_number(&self._statuses, id_in(agent_id))
        self.changes += 1

    def untold(self, bytes ids not None, /):
        """Return the positions of the ids, 16 bytes each, of which nothing was told."""
        cdef const uint8_t* each = <const uint8_t*>PyBytes_AS_STRING(ids)
        cdef Py_ssize_t position
        return [
            position
            for position in range(PyBytes_GET_SIZE(ids) // ID_SIZE)
            if number_of(&self._statuses, each + position * ID_SIZE) == 0
        ]

    def response(self, str request_id not None, bytes ids not None, /):
        """Return a ``BatchControlResponse`` that it went well for these agents, in this order.

        None if nothing was told of one of them.
        """
        cdef size_t count = <size_t>PyBytes_GET_SIZE(ids) // ID_SIZE
        cdef Buffer out
        cdef uint8_t room[MOST_RESULT]
        response = BatchControlResponse(
            request_id=request_id, success=True, results=(), successful=count, failed=0
        )
        open_buffer(&out, room, sizeof(room))
        try:
            if make_room(&out, 5 + count * MOST_RESULT) < 0:
                raise MemoryError
            if not self.put_results(&out, <const uint8_t*>PyBytes_AS_STRING(ids), count):
                return None
            results = PyBytes_FromStringAndSize(<const char*>out.start, size_of_buffer(&out))
        finally:
            close_buffer(&out)
        set_list(as_message(response), b"results", 7, results)
        return response

    cdef bint put_results(self, Buffer* out, const uint8_t* ids, size_t count) noexcept nogil:
        """Write the list of the results. Returns whether something was told of each."""
        cdef size_t position
        cdef int number
        put_array_header(out, count)
        for position in range(count):
            number = number_of(&self._statuses, ids + position * ID_SIZE)
            if number == 0:
                return False
            put_array_header(out, 4)
            put_uuid(out, ids + position * ID_SIZE)
            put_u8(out, 0xC3)
            put_raw(
                out, STATUSES.words[number - 1].wire, STATUSES.words[number - 1].wire_size
            )
            put_nil(out)
        return True


cdef const uint8_t* id_in(bytes agent_id) except NULL:
    if PyBytes_GET_SIZE(agent_id) != ID_SIZE:
        raise ValueError(f"an id has {ID_SIZE} bytes, not {PyBytes_GET_SIZE(agent_id)}")
    return <const uint8_t*>PyBytes_AS_STRING(agent_id)


cdef int set_list(Message* message, const char* name, size_t size, bytes packed) except -1:
    """Give a new message, which nobody has read, its list in the form of the wire."""
    cdef const Record* record = record_of(message)
    cdef const Field* field = &record.fields[find_field(record, <const uint8_t*>name, size)]
    cdef Slice* slice = slice_of(message, field)
    Py_XDecRef(slice.owner)
    Py_IncRef(<PyObject*>packed)
    slice.owner = <PyObject*>packed
    slice.offset = 0
    slice.size = <uint32_t>PyBytes_GET_SIZE(packed) | <uint32_t>CANONICAL
    return 0


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
