"""Messages from bytes.

Strings, words, numbers and nested records are made at once; ids, times, values, maps and lists
are checked at once and stay bytes until somebody reads them. They keep the bytes object that
the message came in alive.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from .broken cimport raise_broken
from .build cimport (
    build_i64, build_kept_str, build_map, build_str, build_u64, build_uuid, build_value,
)
from .layout cimport (
    ABSENT, BOOLEAN, CANONICAL, I64, LONG_TEXT, NESTED, NO_TIME, OCTETS, TEXT, TEXT_LIST, TEXT_MAP,
    TIME, U64, UUID, UUID_LIST, VALUE, VALUE_MAP, WORD, Field, Message, Py_DecRef, Py_IncRef,
    Record, Slice, is_slice, new_message, owned, slice_of, time_of, uuid_of,
)
from .octets cimport MARK, take_octets
from .scalars cimport take_time, take_uuid, take_word
from .scan cimport check_field, find_field, is_ascii, skip_any
from .table cimport find_tag
from .wire cimport (
    ERR_DUPLICATE, ERR_EXTRA, ERR_KEY, ERR_MISSING, ERR_NO_TAG, ERR_PYTHON, ERR_RANGE, ERR_TAG,
    ERR_TRAILING, ERR_TYPE, ERR_UTF8, ERR_WIDE, OK, Cursor, left_in, open_cursor, take_array,
    take_bool, take_i64, take_map, take_nil, take_str, take_text, take_u64, trace_index, trace_name,
)

cdef extern from "Python.h":
    PyObject* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(PyObject* kind) noexcept
    void PyErr_Clear() noexcept
    PyObject* PyExc_UnicodeDecodeError
    PyObject* PyBytes_FromStringAndSize(const char* data, Py_ssize_t size) noexcept
    char* bytes_data "PyBytes_AS_STRING"(PyObject* data) noexcept
    PyObject* Py_True
    PyObject* Py_False
    PyObject* Py_None


cdef enum:
    # Text of more bytes than this is built at once only where a character takes one byte.
    MAX_WIDE_TEXT = 65536


cdef object decode_message(const uint8_t* data, size_t size, PyObject* owner):
    """Return the message in ``size`` bytes at ``data``, which lie in the bytes object ``owner``.

    Raises ProtocolError.
    """
    cdef Cursor cur
    cdef Record* record = NULL
    cdef PyObject* made = NULL
    cdef int code
    open_cursor(&cur, data, size)
    code = decode_envelope(&cur, owner, &record, &made, False)
    if code == ERR_WIDE:
        open_cursor(&cur, data, size)
        code = decode_envelope(&cur, owner, &record, &made, True)
    return finished(&cur, record, made, code)


cdef object decode_part(const uint8_t* data, size_t size, PyObject* owner, Record* record):
    """Return the one record, without a tag, in these bytes. Raises ProtocolError."""
    cdef Cursor cur
    cdef PyObject* made = NULL
    cdef int code
    open_cursor(&cur, data, size)
    code = decode_record(&cur, owner, record, &made)
    if code == ERR_WIDE:
        open_cursor(&cur, data, size)
        code = decode_record(&cur, owner, record.roomy, &made)
    return finished(&cur, record, made, code)


cdef inline object finished(Cursor* cur, const Record* record, PyObject* made, int code):
    """Return what was decoded if it was all there was, else raise."""
    if code == OK and cur.pos != cur.end:
        Py_DecRef(made)
        code = ERR_TRAILING
    if code:
        return raise_broken(cur, record, code)
    return owned(made)


cdef int decode_envelope(
    Cursor* cur, PyObject* owner, Record** record, PyObject** made, bint roomy
) noexcept:
    """Decode a message in either form. ``record`` is set as soon as the tag is known."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* tag
    cdef size_t size
    cdef uint32_t count
    cdef int code = take_array(cur, &count)
    if code == OK:
        if count == 0:
            cur.pos = at
            return ERR_NO_TAG
        at = cur.pos
        code = take_str(cur, &tag, &size)
        if code == OK:
            record[0] = find_tag(tag, size)
            if record[0] == NULL:
                cur.pos = at
                return trace_name(cur, b"type", ERR_TAG)
            if roomy:
                record[0] = record[0].roomy
            return decode_array(cur, owner, record[0], count - 1, made)
        return trace_name(cur, b"type", code)
    if code != ERR_TYPE:
        return code
    code = take_map(cur, &count)
    if code:
        return code
    at = cur.pos
    code = find_type_key(cur, count, record)
    if code:
        return code
    cur.pos = at
    if roomy:
        record[0] = record[0].roomy
    return decode_map(cur, owner, record[0], count, True, made)


cdef int find_type_key(Cursor* cur, uint32_t count, Record** record) noexcept:
    """Look through a map for the one entry ``type``; the keys may come in any order."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* key
    cdef const uint8_t* tag
    cdef size_t size
    cdef uint32_t i
    cdef int code
    for i in range(count):
        code = take_str(cur, &key, &size)
        if code:
            return ERR_KEY if code == ERR_TYPE else code
        if size == 4 and memcmp(key, b"type", 4) == 0:
            at = cur.pos
            code = take_str(cur, &tag, &size)
            if code == OK:
                record[0] = find_tag(tag, size)
                if record[0] == NULL:
                    cur.pos = at
                    code = ERR_TAG
            return trace_name(cur, b"type", code) if code else OK
        code = skip_any(cur)
        if code:
            return code
    cur.pos = at
    return ERR_NO_TAG


cdef int decode_record(
    Cursor* cur, PyObject* owner, Record* record, PyObject** made
) noexcept:
    """Decode a record without a tag, in either form."""
    cdef const uint8_t* at = cur.pos
    cdef uint32_t count
    cdef int code = take_array(cur, &count)
    if code == OK:
        code = decode_array(cur, owner, record, count, made)
        if code == ERR_EXTRA and cur.trail_len == 0:
            cur.pos = at
        return code
    if code != ERR_TYPE:
        return code
    code = take_map(cur, &count)
    if code:
        return code
    return decode_map(cur, owner, record, count, False, made)


cdef int decode_array(
    Cursor* cur, PyObject* owner, Record* record, uint32_t count, PyObject** made
) noexcept:
    """Decode ``count`` fields in wire order; those that may be absent at the end are."""
    cdef Message* message
    cdef uint32_t i
    cdef int code
    if count > record.count:
        return ERR_EXTRA
    if count < record.required:
        for i in range(count, record.count):
            if record.fields[i].required:
                return trace_name(cur, record.fields[i].name, ERR_MISSING)
    message = new_message(record)
    if message == NULL:
        return ERR_PYTHON
    for i in range(count):
        code = decode_field(cur, owner, &record.fields[i], message)
        if code:
            Py_DecRef(<PyObject*>message)
            return trace_name(cur, record.fields[i].name, code)
    for i in range(count, record.count):
        set_default(message, &record.fields[i])
    made[0] = <PyObject*>message
    return OK


cdef int decode_map(
    Cursor* cur, PyObject* owner, Record* record, uint32_t count, bint tagged, PyObject** made
) noexcept:
    """Decode named fields in any order; unknown names are skipped, known ones come once."""
    cdef const uint8_t* at
    cdef const uint8_t* key
    cdef size_t size
    cdef uint32_t seen = 0
    cdef bint tag_seen = False
    cdef uint32_t i
    cdef int known, code
    cdef Message* message = new_message(record)
    if message == NULL:
        return ERR_PYTHON
    for i in range(count):
        at = cur.pos
        code = take_str(cur, &key, &size)
        if code:
            code = ERR_KEY if code == ERR_TYPE else code
            break
        if tagged and size == 4 and memcmp(key, b"type", 4) == 0:
            if tag_seen:
                cur.pos = at
                code = trace_name(cur, b"type", ERR_DUPLICATE)
                break
            tag_seen = True
            code = skip_any(cur)
            if code:
                break
            continue
        known = find_field(record, key, size)
        if known < 0:
            code = skip_any(cur)
        elif seen & (1 << known):
            cur.pos = at
            code = trace_name(cur, record.fields[known].name, ERR_DUPLICATE)
        else:
            seen |= 1 << known
            code = decode_field(cur, owner, &record.fields[known], message)
            if code:
                trace_name(cur, record.fields[known].name, code)
        if code:
            break
    else:
        code = OK
        for i in range(record.count):
            if seen & (1 << i):
                continue
            if record.fields[i].required:
                code = trace_name(cur, record.fields[i].name, ERR_MISSING)
                break
            set_default(message, &record.fields[i])
    if code:
        Py_DecRef(<PyObject*>message)
        return code
    made[0] = <PyObject*>message
    return OK


cdef void set_default(Message* message, const Field* field) noexcept:
    """Give an absent field the value that the table has for it."""
    if field.kind == TIME:
        time_of(message, field).nanos = NO_TIME
    elif is_slice(field):
        slice_of(message, field).size = ABSENT if field.optional else 0
        return
    message.slots[field.index] = field.default
    Py_IncRef(field.default)
    if field.kind == WORD:
        message.words[field.raw] = 0xFF


cdef int decode_field(
    Cursor* cur, PyObject* owner, const Field* field, Message* message
) noexcept:
    """Decode one field into its slot, or check it and keep its bytes."""
    cdef PyObject** slot = &message.slots[field.index]
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    cdef uint64_t number
    cdef int64_t signed
    cdef uint32_t word
    cdef bint flag
    cdef int code
    if field.optional and take_nil(cur):
        set_default(message, field)
        return OK
    if field.kind == TEXT:
        code = take_text(cur, &data, &size)
        if code:
            return code
        if size > MAX_WIDE_TEXT and not cur.eager and not is_ascii(data, size):
            return ERR_WIDE
        if field.repeats:
            slot[0] = build_kept_str(data, size)
        else:
            slot[0] = build_str(data, size)
        if slot[0] == NULL:
            return text_failed(cur, at)
    elif field.kind == UUID:
        return take_uuid(cur, uuid_of(message, field))
    elif field.kind == WORD:
        code = take_word(cur, field.words, &word)
        if code:
            return code
        message.words[field.raw] = <uint8_t>word
        slot[0] = field.words.words[word].member
        Py_IncRef(slot[0])
    elif field.kind == BOOLEAN:
        code = take_bool(cur, &flag)
        if code:
            return code
        slot[0] = Py_True if flag else Py_False
        Py_IncRef(slot[0])
    elif field.kind == U64:
        code = take_u64(cur, &number)
        if code:
            return code
        slot[0] = build_u64(number)
    elif field.kind == TIME:
        return take_time(cur, time_of(message, field))
    elif field.kind == NESTED:
        return decode_record(cur, owner, field.record, slot)
    elif field.kind == OCTETS:
        return decode_octets(cur, slot)
    elif field.kind == I64:
        code = take_i64(cur, &signed)
        if code:
            return code
        slot[0] = build_i64(signed)
    else:
        code = check_field(cur, field)
        if code:
            return code
        keep_slice(slice_of(message, field), owner, at, cur.pos)
        return OK
    return ERR_PYTHON if slot[0] == NULL else OK


cdef int text_failed(Cursor* cur, const uint8_t* at) noexcept:
    """Tell broken UTF-8 from memory that has run out."""
    if not PyErr_ExceptionMatches(PyExc_UnicodeDecodeError):
        return ERR_PYTHON
    PyErr_Clear()
    cur.pos = at
    return ERR_UTF8


cdef inline void keep_slice(
    Slice* slice, PyObject* owner, const uint8_t* at, const uint8_t* end
) noexcept:
    Py_IncRef(owner)
    slice.owner = owner
    slice.offset = <uint32_t>(at - <const uint8_t*>bytes_data(owner))
    slice.size = <uint32_t>(end - at)


cdef int decode_octets(Cursor* cur, PyObject** slot) noexcept:
    """Decode an array of small ints into bytes."""
    cdef uint8_t* out
    cdef uint64_t octet
    cdef const uint8_t* at
    cdef uint32_t count
    cdef uint32_t filled = 0
    cdef int code = take_array(cur, &count)
    if code:
        return code
    # At least one byte of input stands for each octet, so this is never above the input.
    slot[0] = PyBytes_FromStringAndSize(NULL, count)
    if slot[0] == NULL:
        return ERR_PYTHON
    out = <uint8_t*>bytes_data(slot[0])
    while filled < count:
        filled += take_octets(cur, out + filled, count - filled)
        if filled == count:
            break
        if left_in(cur) >= 2 and cur.pos[0] == MARK:
            out[filled] = cur.pos[1]
            cur.pos += 2
        else:
            at = cur.pos
            code = take_u64(cur, &octet)
            if code == OK and octet > 0xFF:
                cur.pos = at
                code = ERR_RANGE
            if code:
                Py_DecRef(slot[0])
                slot[0] = NULL
                return trace_index(cur, filled, code)
            out[filled] = <uint8_t>octet
        filled += 1
    return OK


cdef object build_slice(const Message* message, const Field* field):
    """Return the object that a field's checked bytes stand for."""
    cdef Slice* slice = slice_of(message, field)
    cdef Cursor cur
    cdef uint8_t uuid[16]
    cdef const uint8_t* data = NULL
    cdef PyObject* element
    cdef size_t size = 0
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef tuple items
    if slice.size == ABSENT:
        return None
    if slice.owner == NULL:
        if field.kind == LONG_TEXT:
            return ""
        return {} if field.kind == TEXT_MAP or field.kind == VALUE_MAP else ()
    open_cursor(
        &cur, <const uint8_t*>bytes_data(slice.owner) + slice.offset, slice.size & ~CANONICAL
    )
    cur.eager = True
    if field.kind == VALUE:
        return build_value(&cur)
    if field.kind == LONG_TEXT:
        take_text(&cur, &data, &size)
        return owned(build_str(data, size))
    if field.kind == TEXT_MAP or field.kind == VALUE_MAP:
        return owned(build_map(&cur, field.kind == VALUE_MAP))
    take_array(&cur, &count)
    items = PyTuple_New(count)
    for i in range(count):
        if field.kind == TEXT_LIST:
            take_text(&cur, &data, &size)
            item = owned(build_str(data, size))
        elif field.kind == UUID_LIST:
            take_uuid(&cur, uuid)
            item = build_uuid(uuid)
        else:
            element = NULL
            if decode_record(&cur, slice.owner, field.record, &element):
                # The bytes were checked: only memory can have failed.
                element = NULL
            item = owned(element)
        Py_INCREF(item)
        PyTuple_SET_ITEM(items, i, item)
    return items
