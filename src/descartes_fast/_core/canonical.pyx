"""Whether checked bytes are those we would write, so that encoding may copy them.

The check on decoding takes every form that ``rmp-serde`` takes: longer headers, bin for str,
single floats, records as maps. Where one of these, a number that JSON has not, or a key that
may come twice is found, the answer is no, and the caller builds the objects and writes them.
"""

from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from .layout cimport (
    LONG_TEXT, NESTED, NESTED_LIST, TEXT, TEXT_LIST, TEXT_MAP, TIME, UUID, UUID_LIST, VALUE,
    VALUE_MAP, WORD, Field, Record,
)
from .scalars cimport take_word
from .wire cimport (
    OK, Cursor, left_in, load_be64, open_cursor, take_array, take_int, take_map, take_nil, take_str,
    take_u64,
)

cdef enum:
    # More keys than this are not compared with each other: building them in a dict is faster.
    MAX_COMPARED = 16


cdef bint is_canonical(const Field* field, const uint8_t* data, size_t size) noexcept nogil:
    """Whether a field's checked bytes are exactly what encoding its object would give."""
    cdef Cursor cur
    open_cursor(&cur, data, size)
    return pass_field(&cur, field) and cur.pos == cur.end


cdef bint pass_field(Cursor* cur, const Field* field) noexcept nogil:
    cdef uint32_t word
    if field.optional and take_nil(cur):
        return True
    if field.kind == TEXT or field.kind == LONG_TEXT:
        return pass_str(cur)
    if field.kind == WORD:
        return cur.pos[0] & 0xE0 == 0xA0 and take_word(cur, field.words, &word) == OK
    if field.kind == UUID:
        return pass_uuid(cur)
    if field.kind == TIME:
        return pass_time(cur)
    if field.kind == VALUE:
        return pass_value(cur)
    if field.kind == TEXT_MAP or field.kind == VALUE_MAP:
        return pass_map(cur, field.kind == VALUE_MAP)
    if field.kind == NESTED:
        return pass_record(cur, field.record)
    if field.kind == TEXT_LIST or field.kind == UUID_LIST or field.kind == NESTED_LIST:
        return pass_list(cur, field)
    # Booleans have one form; of numbers only the shortest is ours.
    return pass_value(cur)


cdef bint pass_length(
    const uint8_t* at, uint8_t narrow, uint8_t wide, uint32_t least
) noexcept nogil:
    """Whether a length behind a marker needed that marker.

    ``narrow`` and ``wide`` are the markers of two and four bytes; one byte less than ``narrow``
    is the marker of one byte, where there is one. ``least`` is the first length that the form
    before it cannot say.
    """
    if at[0] == wide:
        return at[1] != 0 or at[2] != 0
    if at[0] == narrow:
        return (<uint32_t>at[1] << 8 | at[2]) >= least
    return True


cdef bint pass_str(Cursor* cur) noexcept nogil:
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    if take_str(cur, &data, &size) != OK:
        return False
    if at[0] == 0xD9:
        return size >= 32
    return pass_length(at, 0xDA, 0xDB, 256)


cdef bint pass_array_header(Cursor* cur, uint32_t* count) noexcept nogil:
    cdef const uint8_t* at = cur.pos
    return take_array(cur, count) == OK and pass_length(at, 0xDC, 0xDD, 16)


cdef bint pass_map_header(Cursor* cur, uint32_t* count) noexcept nogil:
    cdef const uint8_t* at = cur.pos
    return take_map(cur, count) == OK and pass_length(at, 0xDE, 0xDF, 16)


cdef bint pass_uuid(Cursor* cur) noexcept nogil:
    if left_in(cur) < 18 or cur.pos[0] != 0xC4 or cur.pos[1] != 16:
        return False
    cur.pos += 18
    return True


cdef bint pass_int(Cursor* cur) noexcept nogil:
    """Whether an integer is in its shortest form, an unsigned one where it is not negative."""
    cdef const uint8_t* at = cur.pos
    cdef bint negative
    cdef uint64_t bits
    cdef size_t width
    if take_int(cur, &negative, &bits) != OK:
        return False
    width = cur.pos - at
    if width == 1:
        return True
    if not negative:
        if at[0] > 0xCF:
            return False
        if width == 2:
            return bits >= 0x80
        if width == 3:
            return bits > 0xFF
        if width == 5:
            return bits > 0xFFFF
        return bits >> 32 != 0
    bits = ~bits
    if width == 2:
        return bits >= 32
    if width == 3:
        return bits > 0x7F
    if width == 5:
        return bits > 0x7FFF
    return bits > 0x7FFFFFFF


cdef bint pass_time(Cursor* cur) noexcept nogil:
    cdef const uint8_t* at = cur.pos
    cdef uint64_t number
    cdef Cursor nanos
    if at[0] != 0x92:
        return False
    cur.pos += 1
    if not pass_int(cur):
        return False
    nanos = cur[0]
    return pass_int(cur) and take_u64(&nanos, &number) == OK and number < 1_000_000_000


cdef bint pass_value(Cursor* cur) noexcept nogil:
    """Whether one JSON value is as we would write it. Recurses; the check bounded the depth."""
    cdef uint8_t first = cur.pos[0]
    cdef uint64_t bits
    cdef double number
    cdef uint32_t count, i
    if first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
        return pass_str(cur)
    if first == 0xC0 or first & 0xFE == 0xC2:
        cur.pos += 1
        return True
    if first == 0xCA:
        return False
    if first == 0xCB:
        bits = load_be64(cur.pos + 1)
        memcpy(&number, &bits, 8)
        cur.pos += 9
        return isfinite(number)
    if first & 0xF0 == 0x90 or first == 0xDC or first == 0xDD:
        if not pass_array_header(cur, &count):
            return False
        for i in range(count):
            if not pass_value(cur):
                return False
        return True
    if first & 0xF0 == 0x80 or first == 0xDE or first == 0xDF:
        return pass_map(cur, True)
    return pass_int(cur)


cdef bint pass_map(Cursor* cur, bint values) noexcept nogil:
    cdef const uint8_t* keys[MAX_COMPARED]
    cdef size_t sizes[MAX_COMPARED]
    cdef uint32_t count, i, j
    cdef Cursor key
    if not pass_map_header(cur, &count) or count > MAX_COMPARED:
        return False
    for i in range(count):
        key = cur[0]
        if not pass_str(cur):
            return False
        take_str(&key, &keys[i], &sizes[i])
        for j in range(i):
            if sizes[j] == sizes[i] and memcmp(keys[j], keys[i], sizes[i]) == 0:
                return False
        if not (pass_value(cur) if values else pass_str(cur)):
            return False
    return True


cdef bint pass_list(Cursor* cur, const Field* field) noexcept nogil:
    cdef uint32_t count, i
    cdef bint passed
    if not pass_array_header(cur, &count):
        return False
    for i in range(count):
        if field.kind == TEXT_LIST:
            passed = pass_str(cur)
        elif field.kind == UUID_LIST:
            passed = pass_uuid(cur)
        else:
            passed = pass_record(cur, field.record)
        if not passed:
            return False
    return True


cdef bint pass_record(Cursor* cur, const Record* record) noexcept nogil:
    """Whether a record is an array of its fields, trimmed as we trim it."""
    cdef const uint8_t* at
    cdef uint32_t count, i
    if not pass_array_header(cur, &count) or count > record.count:
        return False
    if not record.trimmed and count != record.count:
        return False
    at = cur.pos
    for i in range(count):
        at = cur.pos
        if not pass_field(cur, &record.fields[i]):
            return False
    if not record.trimmed:
        return True
    # A trailing None would have been left out, and only None may be missing.
    if count and cur.pos - at == 1 and at[0] == 0xC0:
        return False
    for i in range(count, record.count):
        if not record.fields[i].optional:
            return False
    return True
