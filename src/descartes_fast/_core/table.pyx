"""The table of messages as C sees it: ``schema.RECORDS`` laid out once, at import.

Here, and only here, it is decided where in a message's memory each field lives.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from .layout cimport (
    BOOLEAN, I64, LONG_TEXT, MAX_FIELDS, NESTED, NESTED_LIST, OCTETS, TEXT, TEXT_LIST, TEXT_MAP,
    TIME, U64, SLOTS_AT, UUID, UUID_LIST, VALUE, VALUE_MAP, WORD, Field, Kind, Record, Slice, Time,
    Words,
)
from .wire cimport load_ends

import sys

from . import schema

cdef dict _KINDS = {
    "text": TEXT, "boolean": BOOLEAN, "u64": U64, "i64": I64, "word": WORD, "uuid": UUID,
    "time": TIME, "octets": OCTETS, "nested": NESTED, "value": VALUE, "text_map": TEXT_MAP,
    "value_map": VALUE_MAP, "text_list": TEXT_LIST, "uuid_list": UUID_LIST,
    "nested_list": NESTED_LIST,
}

cdef enum:
    MAX_ENUMS = 16

cdef Words _words[MAX_ENUMS]
cdef uint32_t _words_count = 0
# The keys of the two searches side by side: a record is more than a kilobyte.
cdef size_t _tag_sizes[MAX_RECORDS]     # SIZE_MAX for what is never an envelope
cdef PyTypeObject* _types[MAX_RECORDS]
# Objects that the C tables point into; they live as long as the process.
cdef list _kept = []
cdef dict _by_name = {}

record_count = 0


cdef Record* find_tag(const uint8_t* tag, size_t size) noexcept nogil:
    """Return the envelope with this tag, or NULL."""
    cdef uint32_t i
    for i in range(record_count):
        if _tag_sizes[i] == size and memcmp(records[i].tag + 1, tag, size) == 0:
            return &records[i]
    return NULL


cdef Record* find_type(const PyTypeObject* kind) noexcept nogil:
    """Return the plain record whose class this is, or NULL."""
    cdef uint32_t i
    for i in range(record_count):
        if _types[i] == kind or roomy_records[i].type == kind:
            return &records[i]
    return NULL


cdef void set_type(Record* record, PyTypeObject* kind) noexcept:
    """Tell the table which class a record has."""
    record.type = kind
    if record.roomy != NULL:
        _types[record - records] = kind


cdef const char* _text(str text) except NULL:
    """Return a C string that lives for ever."""
    cdef bytes data = text.encode()
    _kept.append(data)
    return <const char*>data


cdef const uint8_t* _wire_word(str word) except NULL:
    """Return a word as it is written, its one-byte header included."""
    cdef bytes data = word.encode()
    if len(data) > 31:
        raise ValueError(f"{word} is too long for a one-byte header")
    data = bytes([0xA0 | len(data)]) + data
    _kept.append(data)
    return <const uint8_t*><const char*>data


cdef PyObject* _immortal(object value) except NULL:
    Py_INCREF(value)
    return <PyObject*>value


cdef Words* _words_of(object kind) except NULL:
    """Return the words of an enum, laid out when first asked for."""
    global _words_count
    cdef Words* words
    cdef uint32_t i
    for i in range(_words_count):
        if _words[i].kind == <PyObject*>kind:
            return &_words[i]
    members = list(kind)
    if _words_count == MAX_ENUMS or len(members) > 16:
        raise ValueError("too many words")
    words = &_words[_words_count]
    _words_count += 1
    words.kind = _immortal(kind)
    words.count = <uint32_t>len(members)
    for i, member in enumerate(members):
        words.words[i].member = _immortal(member)
        words.words[i].wire = _wire_word(member.value)
        words.words[i].wire_size = <uint32_t>len(member.value) + 1
        if len(member.value) > 16:
            raise ValueError(f"{member.value} is longer than its ends")
        load_ends(
            words.words[i].wire + 1, len(member.value),
            &words.words[i].head, &words.words[i].tail,
        )
    return words


cdef int _lay_out(Record* record, object declared, bint roomy) except -1:
    """Fill one record from its declaration: slots, then slices, then the other unbuilt forms."""
    cdef Field* field
    cdef uint32_t i, index
    cdef uint32_t at, words = 0
    cdef Record* every = &roomy_records[0] if roomy else &records[0]
    if len(declared.fields) > MAX_FIELDS:
        raise ValueError(f"{declared.name} has too many fields")
    record.name = _text(declared.name)
    record.label = _text(declared.label)
    record.tag = NULL
    record.tag_size = 0
    if declared.tag:
        record.tag = _wire_word(declared.tag)
        record.tag_size = <uint32_t>len(declared.tag) + 1
    record.count = <uint32_t>len(declared.fields)
    record.trimmed = declared.trimmed
    record.required = 0
    at = SLOTS_AT + record.count * <uint32_t>sizeof(PyObject*)
    record.slices_at = at
    record.slices = 0
    for i, entry in enumerate(declared.fields):
        field = &record.fields[i]
        field.kind = <Kind><int>_KINDS[entry.kind]
        field.name = _text(entry.name)
        field.name_size = <uint32_t>len(entry.name)
        field.py_name = _immortal(sys.intern(entry.name))
        field.optional = entry.optional
        field.required = entry.required
        field.repeats = entry.repeats
        field.index = i
        field.default = NULL
        field.words = NULL
        field.record = NULL
        if entry.required:
            record.required = i + 1
        if entry.optional:
            field.default = _immortal(None)
        elif not entry.required:
            field.default = _immortal(entry.default)
        if roomy and field.kind == TEXT:
            field.kind = LONG_TEXT
        if field.kind == WORD:
            field.words = _words_of(entry.of)
            field.raw = words
            words += 1
        elif field.kind == NESTED or field.kind == NESTED_LIST:
            index = _by_name[entry.of]
            field.record = &every[index]
        if field.kind >= VALUE:
            field.raw = at
            at += <uint32_t>sizeof(Slice)
            record.slices += 1
    for i in range(record.count):
        field = &record.fields[i]
        if field.kind == TIME:
            field.raw = at
            at += <uint32_t>sizeof(Time)
        elif field.kind == UUID:
            field.raw = at
            at += 16
    if words > 8:
        raise ValueError(f"{declared.name} has too many words")
    record.size = at
    return 0


def _load():
    global record_count
    if len(schema.RECORDS) > MAX_RECORDS:
        raise ValueError("too many records")
    for index, declared in enumerate(schema.RECORDS):
        _by_name[declared.name] = index
        _lay_out(&records[index], declared, False)
        _lay_out(&roomy_records[index], declared, True)
        records[index].roomy = &roomy_records[index]
        records[index].base = roomy_records[index].base = &records[index]
        roomy_records[index].roomy = NULL
        _tag_sizes[index] = len(declared.tag) if declared.tag else <size_t>-1
        record_count = index + 1


_load()
