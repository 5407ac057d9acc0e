"""The head of a message, read without building an object: type, request id, agent id, command.

For routing, and for the reply to a message that is otherwise broken: reading goes on as far as
the bytes can be understood, and what was found until then is kept.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcmp

from .layout cimport Record, Words
from .scalars cimport take_uuid, take_word
from .scan cimport find_field, is_utf8, skip_any
from .table cimport find_tag
from .wire cimport MAX_SIZE, OK, Cursor, open_cursor, take_array, take_map, take_str, take_text

cdef Record* _control = find_tag(b"control_command", 15)
cdef Words* COMMANDS = _control.fields[find_field(_control, b"command_type", 12)].words


cdef bint read_header(const uint8_t* data, size_t size, Header* out) noexcept nogil:
    """Read what can be read of a message's head. Returns whether its type could be."""
    cdef Cursor cur
    cdef uint32_t count = 0
    out.tag = out.request_id = NULL
    out.tag_size = out.request_id_size = 0
    out.has_agent_id = False
    out.command = -1
    if size > MAX_SIZE:
        return False
    open_cursor(&cur, data, size)
    if take_array(&cur, &count) == OK:
        if count and take_short_text(&cur, &out.tag, &out.tag_size):
            read_listed(&cur, count - 1, out)
    elif take_map(&cur, &count) == OK:
        read_named(&cur, count, out)
    return out.tag != NULL


cdef void read_listed(Cursor* cur, uint32_t count, Header* out) noexcept nogil:
    """Read the fields behind a tag; behind one that nobody knows, a request id if it looks so."""
    cdef Record* record = find_tag(out.tag, out.tag_size)
    cdef uint32_t i
    if record == NULL:
        if count:
            take_short_text(cur, &out.request_id, &out.request_id_size)
        return
    for i in range(count if count < record.count else record.count):
        if not read_field(
            cur, <const uint8_t*>record.fields[i].name, record.fields[i].name_size, out
        ):
            return


cdef void read_named(Cursor* cur, uint32_t count, Header* out) noexcept nogil:
    """Read a map's entries; the type may come after the fields, so these go by name alone."""
    cdef const uint8_t* key
    cdef size_t size
    cdef uint32_t i
    cdef bint passed
    for i in range(count):
        if take_str(cur, &key, &size) != OK:
            return
        if size == 4 and memcmp(key, b"type", 4) == 0:
            passed = out.tag == NULL and take_short_text(cur, &out.tag, &out.tag_size)
        else:
            passed = read_field(cur, key, size, out)
        if not passed:
            return


cdef bint read_field(
    Cursor* cur, const uint8_t* name, size_t size, Header* out
) noexcept nogil:
    """Read a field if it is one of the head's, else pass it. Returns whether to go on."""
    cdef uint32_t word
    if size == 10 and memcmp(name, b"request_id", 10) == 0:
        return take_short_text(cur, &out.request_id, &out.request_id_size)
    if size == 8 and memcmp(name, b"agent_id", 8) == 0:
        out.has_agent_id = take_uuid(cur, out.agent_id) == OK
        return out.has_agent_id
    if size == 12 and memcmp(name, b"command_type", 12) == 0:
        if take_word(cur, COMMANDS, &word) != OK:
            return False
        out.command = <int32_t>word
        return True
    return skip_any(cur) == OK


cdef bint take_short_text(Cursor* cur, const uint8_t** data, size_t* size) noexcept nogil:
    """Take a short string; leave NULL for anything else."""
    cdef const uint8_t* found
    cdef size_t length
    if take_text(cur, &found, &length) != OK or length > MAX_HEAD_TEXT or not is_utf8(
        found, length
    ):
        return False
    data[0] = found
    size[0] = length
    return True


def peek_header(data, /):
    """Return ``(tag, request_id)`` of a message, for the reply to one that cannot be decoded.

    ``request_id`` is None where none can be read. Returns None where not even the tag can be.
    Never raises.
    """
    cdef Header head
    cdef bytes held
    try:
        view = memoryview(data)
        if view.nbytes > MAX_SIZE:
            return None
        held = view.tobytes() if type(data) is not bytes else data
    except (TypeError, ValueError, BufferError, MemoryError):
        return None
    if not read_header(<const uint8_t*><const char*>held, len(held), &head):
        return None
    return text_or_none(head.tag, head.tag_size), text_or_none(
        head.request_id, head.request_id_size
    )


cdef object text_or_none(const uint8_t* data, size_t size):
    return None if data == NULL else (<const char*>data)[:size].decode()
