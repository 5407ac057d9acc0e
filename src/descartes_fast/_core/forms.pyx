"""The JSON form of messages: what ``serde_json`` makes of them, as plain dicts and lists."""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint32_t

from ..errors import FieldError

from .buffer cimport Buffer, close_buffer, open_buffer, size_of_buffer
from .classes cimport as_message, read_field
from .decode cimport build_slice, decode_message, decode_part
from .layout cimport (
    NESTED, NESTED_LIST, NO_TIME, OCTETS, TEXT_LIST, TIME, UUID, UUID_LIST, WORD, Field, Message,
    Record, is_slice, record_of, time_of,
)
from .pack cimport pack_value
from .table cimport find_type

cdef enum:
    # How deep a value may stand in a message's dict: the value's own depth is checked by decoding.
    OUTER_DEPTH = 8


def to_builtins(message, /) -> dict:
    """Return the JSON form of a message, or of a record inside one, as a new dict.

    ``type`` comes first, where there is one. Ids are strings, times dicts of
    ``secs_since_epoch`` and ``nanos_since_epoch``, bytes lists of ints.
    """
    cdef Message* found = as_message(message)
    cdef Record* record
    cdef Field* field
    cdef uint32_t i
    if found == NULL:
        raise FieldError(f"{type(message).__name__} is not a message")
    record = record_of(found)
    form = {}
    if record.tag != NULL:
        form["type"] = (<bytes>record.label).decode()
    for i in range(record.count):
        field = &record.fields[i]
        form[<object>field.py_name] = field_form(found, field)
    return form


cdef object field_form(const Message* message, const Field* field):
    if field.kind == TIME:
        if time_of(message, field).nanos == NO_TIME:
            return None
        return {
            "secs_since_epoch": time_of(message, field).secs,
            "nanos_since_epoch": time_of(message, field).nanos,
        }
    # Made anew: what somebody read from the message may have been changed since.
    value = build_slice(message, field) if is_slice(field) else read_field(message, field)
    if value is None:
        return None
    if field.kind == UUID:
        return str(value)
    if field.kind == WORD:
        return value.value
    if field.kind == OCTETS or field.kind == TEXT_LIST:
        return list(value)
    if field.kind == UUID_LIST:
        return [str(item) for item in value]
    if field.kind == NESTED:
        return to_builtins(value)
    if field.kind == NESTED_LIST:
        return [to_builtins(item) for item in value]
    return value


def from_builtins(form, kind=None, /):
    """Return the message that a JSON form stands for; the other way of ``to_builtins``.

    A record that is no message of its own has no ``type``: give its class as ``kind``. Raises
    ProtocolError for a form that is no message, FieldError for what is not JSON.
    """
    cdef uint8_t room[2048]
    cdef Buffer out
    cdef size_t budget = <size_t>-1
    cdef bytes data
    if not isinstance(form, dict):
        raise FieldError(f"expected a dict, not {type(form).__name__}")
    # The JSON form is the named form of the wire, so writing and decoding it does the checks.
    open_buffer(&out, room, sizeof(room))
    try:
        pack_value(&out, form, -OUTER_DEPTH, &budget)
        data = (<const char*>out.start)[:size_of_buffer(&out)]
    finally:
        close_buffer(&out)
    if kind is None:
        return decode_message(<const uint8_t*><const char*>data, len(data), <PyObject*>data)
    if not isinstance(kind, type) or find_type(<PyTypeObject*>kind) == NULL:
        raise FieldError(f"{kind!r} is no class of messages")
    return decode_part(
        <const uint8_t*><const char*>data, len(data), <PyObject*>data,
        find_type(<PyTypeObject*>kind),
    )
