"""Messages from what a caller gives: every field checked against the table, wrong types refused.

Maps, lists and values are written to bytes here and now, so a message never changes with the
caller's objects, and encoding it later copies them.
"""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.datetime cimport PyDateTime_Check, import_datetime
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

from ..errors import FieldError

from .build cimport is_uuid, uuid_bytes
from .decode cimport build_slice, set_default
from .encode cimport pack_field
from .pack cimport is_sayable
from .layout cimport (
    BOOLEAN, CANONICAL, I64, LONG_TEXT, NESTED, NESTED_LIST, NO_TIME, OCTETS, TEXT, TEXT_LIST,
    TEXT_MAP, TIME, U64, UUID, UUID_LIST, VALUE, VALUE_MAP, WORD, Field, Message, Py_IncRef, Record,
    Slice, Time, is_of, is_slice, new_message, owned, record_of, slice_of, time_of, uuid_of,
)
from .wire cimport MAX_SIZE

import_datetime()

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(dict entries, PyObject* key) except? NULL
    PyObject* PyTuple_GET_ITEM(PyObject* items, Py_ssize_t index) noexcept
    object PyUnicode_FromObject(object text)
    bint PyUnicode_IS_ASCII(object text)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef extern from "<time.h>":
    cdef struct timespec:
        int64_t tv_sec
        long tv_nsec
    int TIME_UTC
    int timespec_get(timespec* now, int base) nogil

cdef type UUID_CLASS = uuid.UUID
cdef object EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object MICROSECOND = timedelta(microseconds=1)
cdef uint64_t LAST_SECS = 0x7FFFFFFFFFFFFFFF


cdef object construct(
    Record* record, PyObject* const* values, Py_ssize_t count, PyObject* names
):
    """Return a message of ``count`` keyword arguments, as the vectorcall protocol hands them over.

    Raises FieldError.
    """
    cdef Py_ssize_t i
    cdef int32_t index
    cdef Field* field
    cdef uint32_t seen = 0
    cdef Message* message = new_message(record)
    made = owned(<PyObject*>message)
    for i in range(count):
        index = field_named(record, <uint32_t>i, PyTuple_GET_ITEM(names, i))
        if index < 0:
            raise unknown_field(record, <object>PyTuple_GET_ITEM(names, i))
        if seen & (<uint32_t>1 << index):
            raise refusal(record, <str><object>record.fields[index].py_name, "is given twice")
        seen |= <uint32_t>1 << index
        set_field(message, &record.fields[index], <object>values[i])
    for i in range(record.count):
        if seen & (<uint32_t>1 << i):
            continue
        field = &record.fields[i]
        if field.kind == TIME and not field.optional:
            set_now(time_of(message, field))
        elif field.required:
            raise refusal(record, <str><object>field.py_name, "is missing")
        else:
            set_default(message, field)
    return made


cdef int32_t field_named(const Record* record, uint32_t guess, PyObject* name) except -2:
    """Return the index of a field, or -1. Callers mostly give the fields in their order."""
    cdef uint32_t i
    if guess < record.count and record.fields[guess].py_name == name:
        return <int32_t>guess
    for i in range(record.count):
        if record.fields[i].py_name == name:
            return <int32_t>i
    # A name that was put together at run time is equal, but another object.
    for i in range(record.count):
        if <object>record.fields[i].py_name == <object>name:
            return <int32_t>i
    return -1


cdef object replaced(const Message* message, dict changes):
    """Return a copy in which the fields named in ``changes`` differ. Raises FieldError."""
    cdef Record* source = record_of(message)
    cdef Record* record = source.base
    cdef Message* copied = new_message(record)
    cdef PyObject* value
    cdef Field* field
    cdef uint32_t i
    cdef Py_ssize_t used = 0
    made = owned(<PyObject*>copied)
    for i in range(record.count):
        field = &record.fields[i]
        value = PyDict_GetItemWithError(changes, field.py_name)
        if value != NULL:
            used += 1
            set_field(copied, field, <object>value)
        elif source.fields[i].kind == LONG_TEXT:
            set_field(copied, field, build_slice(message, &source.fields[i]))
        else:
            copy_field(copied, field, message, &source.fields[i])
    if used != len(changes):
        known = {<object>record.fields[i].py_name for i in range(record.count)}
        raise unknown_field(record, next(name for name in changes if name not in known))
    return made


cdef void copy_field(
    Message* into, const Field* field, const Message* source, const Field* given
) noexcept:
    """Take over one field as it stands; a built value is not shared, so that it stays its own."""
    cdef Slice* slice
    if is_slice(field):
        slice = slice_of(into, field)
        slice[0] = slice_of(source, given)[0]
        if slice.owner != NULL:
            Py_IncRef(slice.owner)
        return
    if field.kind == UUID:
        memcpy(uuid_of(into, field), uuid_of(source, given), 16)
        return
    if field.kind == TIME:
        time_of(into, field)[0] = time_of(source, given)[0]
        if time_of(source, given).nanos != NO_TIME:
            return
    if field.kind == WORD:
        into.words[field.raw] = source.words[given.raw]
    into.slots[field.index] = source.slots[given.index]
    Py_IncRef(into.slots[field.index])


cdef object refusal(const Record* record, str name, str words):
    """Return the FieldError for one field of a record."""
    path = f"{(<bytes>record.label).decode()}.{name}"
    return FieldError(f"{path}: {words}", path=path)


cdef object unknown_field(const Record* record, object name):
    return refusal(record, str(name), f"{(<bytes>record.name).decode()} has no such field")


cdef int set_field(Message* message, const Field* field, object value) except -1:
    """Give a field a caller's value."""
    cdef Record* record = record_of(message)
    if value is None:
        if field.optional:
            set_default(message, field)
            return 0
        if field.kind == TIME:
            set_now(time_of(message, field))
            return 0
        raise refused(record, field, value)
    if is_slice(field):
        return set_slice(message, field, value)
    if field.kind == UUID:
        if not is_uuid(value):
            raise refused(record, field, value)
        if not uuid_bytes(value, uuid_of(message, field)):
            raise refusal(record, <str><object>field.py_name, "is a uuid.UUID without its number")
        # Another class may say of itself what it likes: then a UUID is made when somebody reads.
        return set_slot(message, field, value) if type(value) is UUID_CLASS else 0
    if field.kind == TIME:
        return set_time(message, field, value)
    if field.kind == TEXT:
        return set_text(message, field, value)
    if field.kind == WORD:
        return set_word(message, field, value)
    if field.kind == BOOLEAN:
        if value is not True and value is not False:
            raise refused(record, field, value)
        return set_slot(message, field, value)
    if field.kind == U64 or field.kind == I64:
        return set_number(message, field, value)
    if field.kind == NESTED:
        if not is_of(<PyObject*>value, field.record):
            raise refused(record, field, value)
        return set_slot(message, field, value)
    return set_octets(message, field, value)


cdef inline int set_slot(Message* message, const Field* field, object value) except -1:
    Py_IncRef(<PyObject*>value)
    message.slots[field.index] = <PyObject*>value
    return 0


cdef int set_text(Message* message, const Field* field, object value) except -1:
    if type(value) is not str:
        if not isinstance(value, str):
            raise refused(record_of(message), field, value)
        value = PyUnicode_FromObject(value)
    if not PyUnicode_IS_ASCII(value) and not is_sayable(value):
        raise refusal(
            record_of(message), <str><object>field.py_name,
            "holds a lone surrogate, which UTF-8 cannot say",
        )
    return set_slot(message, field, value)


cdef int set_word(Message* message, const Field* field, object value) except -1:
    """Take a member of the field's enum, or a str that is one of its words."""
    cdef uint32_t i
    for i in range(field.words.count):
        if field.words.words[i].member == <PyObject*>value:
            message.words[field.raw] = <uint8_t>i
            return set_slot(message, field, value)
    if type(value) is str:
        for i in range(field.words.count):
            member = <object>field.words.words[i].member
            if member == value:
                message.words[field.raw] = <uint8_t>i
                return set_slot(message, field, member)
        raise refusal(
            record_of(message), <str><object>field.py_name, f"has no word {value!r}"
        )
    raise refused(record_of(message), field, value)


cdef int set_number(Message* message, const Field* field, object value) except -1:
    if type(value) is not int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise refused(record_of(message), field, value)
        value = int.__int__(value)
    if field.kind == U64:
        fits = 0 <= value <= 0xFFFFFFFFFFFFFFFF
    else:
        fits = -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF
    if not fits:
        # Python refuses to write out thousands of digits.
        bits = value.bit_length()
        words = f"{value}" if bits <= 128 else f"an int of {bits} bits"
        raise refusal(record_of(message), <str><object>field.py_name, f"{words} is out of range")
    return set_slot(message, field, value)


cdef int set_octets(Message* message, const Field* field, object value) except -1:
    if type(value) is bytes:
        return set_slot(message, field, value)
    if not PyObject_CheckBuffer(value):
        raise refused(record_of(message), field, value)
    return set_slot(message, field, bytes(value))


cdef int set_now(Time* time) except -1:
    cdef timespec now
    if timespec_get(&now, TIME_UTC) != TIME_UTC:
        raise OSError("the system has no clock")
    time.secs = now.tv_sec
    time.nanos = <uint32_t>now.tv_nsec
    return 0


cdef int set_time(Message* message, const Field* field, object value) except -1:
    """Take an aware datetime, or whole nanoseconds since 1970."""
    cdef Record* record = record_of(message)
    cdef str name = <str><object>field.py_name
    cdef Time* time = time_of(message, field)
    cdef long long small
    cdef int overflow = 0
    if isinstance(value, int) and not isinstance(value, bool):
        small = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and small >= 0:
            time.secs = small // 1_000_000_000
            time.nanos = <uint32_t>(small % 1_000_000_000)
            return 0
        nanos = int.__int__(value)
    elif PyDateTime_Check(value):
        if value.utcoffset() is None:
            raise refusal(record, name, "is a datetime without a time zone")
        nanos = (value - EPOCH) // MICROSECOND * 1000
    else:
        raise refused(record, field, value)
    secs, nanos = divmod(nanos, 1_000_000_000)
    if secs < 0 or secs > LAST_SECS:
        raise refusal(record, name, "is before 1970" if secs < 0 else "is out of range")
    time.secs = secs
    time.nanos = nanos
    return 0


cdef int set_slice(Message* message, const Field* field, object value) except -1:
    """Write a map, a list or a value to bytes of its own."""
    cdef Record* record = record_of(message)
    cdef Slice* slice = slice_of(message, field)
    if field.kind == TEXT_MAP or field.kind == VALUE_MAP:
        # The exact types first: asking an abstract class takes longer than all the rest.
        if type(value) is not dict and not isinstance(value, Mapping):
            raise refused(record, field, value)
    elif field.kind != VALUE and type(value) is not list and type(value) is not tuple:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
            raise refused(record, field, value)
    try:
        packed = pack_field(field, value)
    except FieldError as error:
        raise refusal(record, <str><object>field.py_name, str(error)) from None
    # What is larger can never be sent, and the number does not fit beside the flag in `size`.
    if len(packed) > MAX_SIZE:
        raise refusal(
            record, <str><object>field.py_name,
            f"{len(packed)} bytes are more than a message may have",
        )
    slice.owner = <PyObject*>packed
    Py_IncRef(slice.owner)
    slice.offset = 0
    slice.size = <uint32_t>len(packed) | CANONICAL
    return 0


cdef object refused(const Record* record, const Field* field, object value):
    """Return the FieldError for a value of the wrong type."""
    if field.kind == WORD:
        expected = (<object>field.words.kind).__name__
    elif field.kind == NESTED:
        expected = (<bytes>field.record.name).decode()
    elif field.kind == NESTED_LIST:
        expected = f"a list of {(<bytes>field.record.name).decode()}"
    else:
        expected = _EXPECTED[field.kind]
    if field.optional:
        expected += " or None"
    return refusal(
        record, <str><object>field.py_name, f"expected {expected}, not {type(value).__name__}"
    )


cdef dict _EXPECTED = {
    int(TEXT): "str",
    int(BOOLEAN): "bool",
    int(U64): "int",
    int(I64): "int",
    int(UUID): "uuid.UUID",
    int(TIME): "datetime or int (nanoseconds)",
    int(OCTETS): "bytes",
    int(VALUE): "a JSON value",
    int(TEXT_MAP): "a mapping of str to str",
    int(VALUE_MAP): "a mapping of str to JSON values",
    int(TEXT_LIST): "a list of str",
    int(UUID_LIST): "a list of uuid.UUID",
}
