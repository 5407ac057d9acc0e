"""Messages to bytes, in the compact form.

What a message keeps as bytes is copied if those are the bytes we would write; a message that
came from elsewhere may hold longer forms, and those are built and written anew.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ..errors import FieldError

from .buffer cimport (
    Buffer, close_buffer, make_room, open_buffer, put_array_header, put_i64, put_nil, put_raw,
    put_str_header, put_u64, put_u8, put_uuid, size_of_buffer,
)
from .build cimport is_uuid, uuid_bytes
from .canonical cimport is_canonical
from .decode cimport build_slice
from .layout cimport (
    ABSENT, BOOLEAN, CANONICAL, HAVE_GIL, LONG_TEXT, NESTED, OCTETS, TEXT, TEXT_LIST, TEXT_MAP,
    TIME, U64, UUID, UUID_LIST, VALUE, VALUE_MAP, WORD, Field, Message, Record, Slice, is_of,
    is_slice, record_of, slice_of, time_of, uuid_of,
)
from .pack cimport items_of, pack_dict, pack_octets, pack_str, pack_text_dict, pack_value
from .wire cimport MAX_SIZE, MAX_VALUES

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text) noexcept
    void* PyUnicode_DATA(PyObject* text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject* text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLong(PyObject* number) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(PyObject* number) except? 0xFFFFFFFFFFFFFFFF
    char* bytes_data "PyBytes_AS_STRING"(PyObject* data) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject* data) noexcept
    PyObject* Py_True
    PyObject* Py_None


cdef inline int reserve(Buffer* out, size_t size) except -1:
    if make_room(out, size):
        raise MemoryError
    return 0


cdef int encode_message(Buffer* out, const Message* message) except -1:
    """Write an envelope: its tag, then its fields."""
    cdef Record* record = record_of(message)
    reserve(out, 1 + record.tag_size)
    put_array_header(out, record.count + 1)
    put_raw(out, record.tag, record.tag_size)
    return encode_fields(out, message, record, record.count)


cdef int encode_record(Buffer* out, const Message* message) except -1:
    """Write a record that stands inside a message, without the fields that peers may not know."""
    cdef Record* record = record_of(message)
    cdef uint32_t count = record.count
    if record.trimmed:
        while count and is_none(message, &record.fields[count - 1]):
            count -= 1
    reserve(out, 3)
    put_array_header(out, count)
    return encode_fields(out, message, record, count)


cdef inline bint is_none(const Message* message, const Field* field) noexcept:
    if not field.optional:
        return False
    if is_slice(field):
        return slice_of(message, field).size == ABSENT
    return message.slots[field.index] == Py_None


cdef int encode_fields(
    Buffer* out, const Message* message, const Record* record, uint32_t count
) except -1:
    cdef uint32_t i
    for i in range(count):
        encode_field(out, message, &record.fields[i])
    return 0


cdef int encode_field(Buffer* out, const Message* message, const Field* field) except -1:
    """Write one field."""
    cdef PyObject* slot = message.slots[field.index]
    cdef const char* text
    cdef Py_ssize_t size
    cdef uint32_t word
    if is_slice(field):
        return encode_slice(out, message, field)
    if slot == Py_None:
        reserve(out, 1)
        put_nil(out)
    elif field.kind == TEXT:
        if PyUnicode_IS_COMPACT_ASCII(slot):
            text = <const char*>PyUnicode_DATA(slot)
            size = PyUnicode_GET_LENGTH(slot)
        else:
            text = PyUnicode_AsUTF8AndSize(slot, &size)
        reserve(out, size + 5)
        put_str_header(out, size)
        put_raw(out, text, size)
    elif field.kind == UUID:
        reserve(out, 18)
        put_uuid(out, uuid_of(message, field))
    elif field.kind == WORD:
        word = message.words[field.raw]
        reserve(out, field.words.words[word].wire_size)
        put_raw(out, field.words.words[word].wire, field.words.words[word].wire_size)
    elif field.kind == BOOLEAN:
        reserve(out, 1)
        put_u8(out, 0xC3 if slot == Py_True else 0xC2)
    elif field.kind == U64:
        reserve(out, 9)
        put_u64(out, PyLong_AsUnsignedLongLong(slot))
    elif field.kind == TIME:
        reserve(out, 15)
        put_u8(out, 0x92)
        put_u64(out, <uint64_t>time_of(message, field).secs)
        put_u64(out, time_of(message, field).nanos)
    elif field.kind == NESTED:
        encode_record(out, <const Message*>slot)
    elif field.kind == OCTETS:
        pack_octets(out, <const unsigned char*>bytes_data(slot), bytes_size(slot))
    else:
        reserve(out, 9)
        put_i64(out, PyLong_AsLongLong(slot))
    return 0


cdef int encode_slice(Buffer* out, const Message* message, const Field* field) except -1:
    """Write what a field keeps as bytes."""
    cdef Slice* slice = slice_of(message, field)
    cdef uint32_t size = slice.size & ~CANONICAL
    if slice.size == ABSENT:
        reserve(out, 1)
        put_nil(out)
    elif slice.owner == NULL:
        reserve(out, 1)
        put_u8(out, empty_of(field))
    elif slice.size & CANONICAL:
        reserve(out, size)
        put_raw(out, bytes_data(slice.owner) + slice.offset, size)
    elif is_canonical(field, <const uint8_t*>bytes_data(slice.owner) + slice.offset, size):
        if HAVE_GIL:
            slice.size |= CANONICAL
        reserve(out, size)
        put_raw(out, bytes_data(slice.owner) + slice.offset, size)
    else:
        pack_into(out, field, build_slice(message, field))
    return 0


cdef inline uint8_t empty_of(const Field* field) noexcept:
    """Return the one byte that an empty map, list or text is written as."""
    if field.kind == LONG_TEXT:
        return 0xA0
    return 0x80 if field.kind == TEXT_MAP or field.kind == VALUE_MAP else 0x90


cdef bytes pack_field(const Field* field, object value):
    """Return the bytes for what a caller gave a field. Raises FieldError (without a path)."""
    cdef uint8_t room[512]
    cdef Buffer out
    open_buffer(&out, room, sizeof(room))
    try:
        pack_into(&out, field, value)
        return (<const char*>out.start)[:size_of_buffer(&out)]
    finally:
        close_buffer(&out)


cdef int pack_into(Buffer* out, const Field* field, object value) except -1:
    cdef size_t budget = MAX_VALUES
    if field.kind == VALUE:
        return pack_value(out, value, 0, &budget)
    if field.kind == LONG_TEXT:
        return pack_str(out, value)
    if field.kind == TEXT_MAP or field.kind == VALUE_MAP:
        return pack_map(out, field, value)
    return pack_list(out, field, value)


cdef int pack_map(Buffer* out, const Field* field, object value) except -1:
    """Write a map from str to str or to JSON values."""
    cdef size_t budget = MAX_VALUES
    cdef dict entries
    if isinstance(value, dict):
        entries = value if type(value) is dict else dict(value)
    else:
        # One entry at a time: a mapping's word for how many they are is not taken.
        entries = {}
        for key in value:
            entries[key] = value[key]
            check_count(len(entries))
    if field.kind == TEXT_MAP:
        return pack_text_dict(out, entries)
    # The map itself is no value, and no level: those are what its entries hold.
    return pack_dict(out, entries, -1, &budget)


cdef int pack_list(Buffer* out, const Field* field, object value) except -1:
    """Write a list of strings, ids or records."""
    cdef uint8_t uuid[16]
    cdef tuple items
    if isinstance(value, (list, tuple)):
        items = items_of(value)
    else:
        elements = []
        for item in value:
            elements.append(item)
            check_count(len(elements))
        items = tuple(elements)
    reserve(out, 5)
    put_array_header(out, len(items))
    for item in items:
        if field.kind == TEXT_LIST:
            if not isinstance(item, str):
                raise FieldError(f"an element is a str, not {type(item).__name__}")
            pack_str(out, item)
        elif field.kind == UUID_LIST:
            if not is_uuid(item):
                raise FieldError(f"an element is a uuid.UUID, not {type(item).__name__}")
            if not uuid_bytes(item, uuid):
                raise FieldError("an element is a uuid.UUID without its number")
            reserve(out, 18)
            put_uuid(out, uuid)
        else:
            if not is_of(<PyObject*>item, field.record):
                raise FieldError(
                    f"an element is {(<bytes>field.record.name).decode()}, "
                    f"not {type(item).__name__}"
                )
            encode_record(out, <const Message*><PyObject*>item)
    return 0


cdef int check_count(Py_ssize_t count) except -1:
    """Refuse what has more elements than a message has bytes: it may well have no end."""
    if count > MAX_SIZE:
        raise FieldError("more elements than a message has bytes")
    return 0
