"""The short way from a ``get_status`` request to its reply: no message is built on it.

Only a request that is exactly a plain one is seen here, in the form that every peer writes; all
others, broken ones too, are ``decode``'s.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from .header cimport MAX_HEAD_TEXT
from .layout cimport Record, Words
from .scalars cimport take_uuid, take_word
from .scan cimport find_field, is_utf8
from .table cimport find_tag
from .wire cimport OK, Cursor, open_cursor, take_array, take_nil, take_str

from .enums import ControlCommandType

cdef Record* _control = find_tag(b"control_command", 15)
cdef Words* COMMANDS = _control.fields[find_field(_control, b"command_type", 12)].words
cdef uint32_t GET_STATUS = list(ControlCommandType).index(ControlCommandType.GET_STATUS)


def asked_agent(bytes body not None, /):
    """Return the 16 bytes of the agent's id if ``body`` is a plain ``get_status``, else None.

    Plain: an array of five, no payload, nothing behind it, and a request id of at most 1,024
    bytes.
    """
    cdef Cursor cur
    cdef uint32_t count, word
    cdef const uint8_t* text
    cdef size_t size
    cdef uint8_t agent_id[16]
    open_cursor(&cur, <const uint8_t*>PyBytes_AS_STRING(body), <size_t>PyBytes_GET_SIZE(body))
    if take_array(&cur, &count) != OK or count != 5:
        return None
    if take_str(&cur, &text, &size) != OK or size != 15 or memcmp(text, b"control_command", 15):
        return None
    if take_str(&cur, &text, &size) != OK or size > MAX_HEAD_TEXT or not is_utf8(text, size):
        return None
    if take_uuid(&cur, agent_id) != OK:
        return None
    if take_word(&cur, COMMANDS, &word) != OK or word != GET_STATUS:
        return None
    if not take_nil(&cur) or cur.pos != cur.end:
        return None
    return PyBytes_FromStringAndSize(<const char*>agent_id, 16)


def answered(bytes reply not None, bytes request not None, /):
    """Return ``reply``, a message with an empty request id, with the one of ``request``.

    ``request`` is one that :func:`asked_agent` has seen. Raises ``ValueError`` for a reply that has
    a request id already, or is no message in array form.
    """
    cdef Cursor asked, made
    cdef const uint8_t* request_id
    cdef size_t size, before, after
    cdef uint8_t head[3]
    cdef size_t head_size
    cdef uint8_t* out
    open_cursor(
        &asked, <const uint8_t*>PyBytes_AS_STRING(request), <size_t>PyBytes_GET_SIZE(request)
    )
    open_cursor(&made, <const uint8_t*>PyBytes_AS_STRING(reply), <size_t>PyBytes_GET_SIZE(reply))
    if not (find_request_id(&asked) and find_request_id(&made) and made.pos[0] == 0xA0):
        raise ValueError("no reply without a request id, or no request")
    before = made.pos - <const uint8_t*>PyBytes_AS_STRING(reply)
    after = made.end - made.pos - 1
    if take_str(&asked, &request_id, &size) != OK or size > MAX_HEAD_TEXT:
        raise ValueError("no request")
    # In the shortest form, as all that we write, whatever form the request has.
    if size < 32:
        head[0] = 0xA0 | <uint8_t>size
        head_size = 1
    elif size < 256:
        head[0] = 0xD9
        head[1] = <uint8_t>size
        head_size = 2
    else:
        head[0] = 0xDA
        head[1] = <uint8_t>(size >> 8)
        head[2] = <uint8_t>size
        head_size = 3
    whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(before + head_size + size + after))
    out = <uint8_t*>PyBytes_AS_STRING(whole)
    memcpy(out, PyBytes_AS_STRING(reply), before)
    memcpy(out + before, head, head_size)
    memcpy(out + before + head_size, request_id, size)
    memcpy(out + before + head_size + size, made.pos + 1, after)
    return whole


cdef bint find_request_id(Cursor* cur) noexcept nogil:
    """Move to the field behind the tag. Returns whether there is one."""
    cdef uint32_t count
    cdef const uint8_t* tag
    cdef size_t size
    return (
        take_array(cur, &count) == OK
        and count > 1
        and take_str(cur, &tag, &size) == OK
        and cur.pos < cur.end
    )
