"""Checking MessagePack without building anything: bounds, depth, count, UTF-8, types.

What passes here can be built later without an error but for memory. Nothing recurses deeper
than the records nest; values are walked with a stack of their own.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from .layout cimport (
    BOOLEAN, I64, LONG_TEXT, NESTED, OCTETS, TEXT, TEXT_LIST, TEXT_MAP, TIME, U64, UUID, UUID_LIST,
    VALUE, VALUE_MAP, WORD, Field, Record, Time,
)
from .scalars cimport take_time, take_uuid, take_word
from .wire cimport (
    ERR_COUNT, ERR_DEPTH, ERR_DUPLICATE, ERR_EXTRA, ERR_KEY, ERR_MISSING, ERR_RANGE, ERR_TRUNCATED,
    ERR_TYPE, ERR_UTF8, MAX_DEPTH, MAX_VALUES, OK, Cursor, left_in, take_array, take_bin, take_bool,
    take_i64, take_int, take_map, take_nil, take_str, take_text, take_u64, trace_index, trace_name,
)


cdef bint is_wide_utf8(const uint8_t* data, size_t size) noexcept nogil:
    """Whether the bytes are UTF-8 (Unicode 15, table 3-7: no surrogates, nothing overlong)."""
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + size
    cdef uint64_t chunk
    cdef uint8_t first, low, high
    while p < end:
        while end - p >= 8:
            memcpy(&chunk, p, 8)
            if chunk & <uint64_t>0x8080808080808080:
                break
            p += 8
        if p == end:
            return True
        first = p[0]
        if first < 0x80:
            p += 1
            continue
        # The second byte's range depends on the first; the others are always 80..BF.
        low = 0x80
        high = 0xBF
        if first < 0xC2:
            return False
        if first < 0xE0:
            if end - p < 2 or p[1] & 0xC0 != 0x80:
                return False
            p += 2
        elif first < 0xF0:
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0x9F
            if end - p < 3 or p[1] < low or p[1] > high or p[2] & 0xC0 != 0x80:
                return False
            p += 3
        else:
            if first > 0xF4:
                return False
            if first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x8F
            if (
                end - p < 4 or p[1] < low or p[1] > high
                or p[2] & 0xC0 != 0x80 or p[3] & 0xC0 != 0x80
            ):
                return False
            p += 4
    return True


cdef int check_text(Cursor* cur) noexcept nogil:
    """Move past a string: a str or a bin that is UTF-8."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    cdef int code = take_text(cur, &data, &size)
    if code == OK and not is_utf8(data, size):
        cur.pos = at
        return ERR_UTF8
    return code


cdef int check_key(Cursor* cur) noexcept nogil:
    """Move past the key of a map in a value: a str, nothing else."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    cdef int code = take_str(cur, &data, &size)
    if code == ERR_TYPE:
        return ERR_KEY
    if code == OK and not is_utf8(data, size):
        cur.pos = at
        return ERR_UTF8
    return code


cdef int check_value(Cursor* cur, uint32_t* budget) noexcept nogil:
    """Move past one JSON value, counting each value in it (keys are none) against ``budget``."""
    cdef uint32_t left[MAX_DEPTH]
    cdef bint keyed[MAX_DEPTH]
    cdef uint32_t depth = 0
    cdef uint32_t count = 0
    cdef const uint8_t* data
    cdef const uint8_t* at
    cdef size_t size
    cdef uint64_t bits
    cdef bint flag
    cdef uint8_t first
    cdef int code
    while True:
        if budget[0] == 0:
            return ERR_COUNT
        budget[0] -= 1
        if cur.pos == cur.end:
            return ERR_TRUNCATED
        at = cur.pos
        first = at[0]
        if first < 0x80 or first >= 0xE0 or first == 0xC0 or first & 0xFE == 0xC2:
            cur.pos += 1
        elif first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
            code = take_str(cur, &data, &size)
            if code:
                return code
            if not is_utf8(data, size):
                cur.pos = at
                return ERR_UTF8
        elif first & 0xE0 == 0x80 or first >= 0xDC:
            flag = first & 0xF0 == 0x80 or first >= 0xDE
            code = take_map(cur, &count) if flag else take_array(cur, &count)
            if code:
                return code
            if depth == MAX_DEPTH:
                cur.pos = at
                return ERR_DEPTH
            left[depth] = count
            keyed[depth] = flag
            depth += 1
        elif first == 0xCA or first == 0xCB:
            size = 5 if first == 0xCA else 9
            if left_in(cur) < size:
                return ERR_TRUNCATED
            cur.pos += size
        else:
            code = take_int(cur, &flag, &bits)
            if code:
                return code
        while depth and left[depth - 1] == 0:
            depth -= 1
        if depth == 0:
            return OK
        left[depth - 1] -= 1
        if keyed[depth - 1]:
            code = check_key(cur)
            if code:
                return code


cdef int skip_any(Cursor* cur) noexcept nogil:
    """Move past one well-formed value of any type, for the value of a key that nobody knows."""
    # A pending count for each open container; a map counts keys and values alike. Records
    # nest four deep above a value, so nothing legitimate is deeper than this.
    cdef uint64_t left[MAX_DEPTH + 8]
    cdef uint32_t depth = 0
    cdef uint32_t count = 0
    cdef const uint8_t* data
    cdef const uint8_t* at
    cdef size_t size
    cdef uint8_t first
    cdef int code
    while True:
        if cur.pos == cur.end:
            return ERR_TRUNCATED
        at = cur.pos
        first = at[0]
        if first < 0x80 or first >= 0xE0 or first == 0xC0 or first & 0xFE == 0xC2:
            cur.pos += 1
        elif first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
            code = take_str(cur, &data, &size)
            if code:
                return code
        elif first & 0xE0 == 0x80 or first >= 0xDC:
            if first & 0xF0 == 0x80 or first >= 0xDE:
                code = take_map(cur, &count)
                if code:
                    return code
                left[depth] = <uint64_t>count * 2
            else:
                code = take_array(cur, &count)
                if code:
                    return code
                left[depth] = count
            if depth + 1 == MAX_DEPTH + 8:
                cur.pos = at
                return ERR_DEPTH
            depth += 1
        elif first == 0xC1:
            return ERR_TYPE
        elif first <= 0xC6:
            code = take_bin(cur, &data, &size)
            if code:
                return code
        else:
            code = fixed_size(cur, first, &size)
            if code:
                return code
            if left_in(cur) < size:
                return ERR_TRUNCATED
            cur.pos += size
        while depth and left[depth - 1] == 0:
            depth -= 1
        if depth == 0:
            return OK
        left[depth - 1] -= 1


cdef int fixed_size(Cursor* cur, uint8_t first, size_t* size) noexcept nogil:
    """Tell how many bytes a number or an ext takes, its marker included."""
    cdef size_t left = left_in(cur)
    cdef size_t content = 0
    cdef uint32_t width, i
    if first <= 0xC9:
        # ext8, ext16, ext32: the length, one byte of type, the content
        width = 1 << (first - 0xC7)
        if left < 1 + width:
            return ERR_TRUNCATED
        for i in range(width):
            content = (content << 8) | cur.pos[1 + i]
        if left < content:
            return ERR_TRUNCATED
        size[0] = 2 + width + content
    elif first <= 0xCB:
        size[0] = 5 if first == 0xCA else 9
    elif first <= 0xD3:
        size[0] = 1 + (<size_t>1 << (first & 3))
    else:
        # fixext 1, 2, 4, 8, 16
        size[0] = 2 + (<size_t>1 << (first - 0xD4))
    return OK


cdef int check_field(Cursor* cur, const Field* field) noexcept nogil:
    """Move past one field's value, checking it whole."""
    cdef uint32_t budget = MAX_VALUES
    cdef uint32_t word
    cdef uint64_t number
    cdef int64_t signed
    cdef bint flag
    cdef uint8_t uuid[16]
    cdef Time time
    if field.optional and take_nil(cur):
        return OK
    if field.kind == TEXT or field.kind == LONG_TEXT:
        return check_text(cur)
    if field.kind == WORD:
        return take_word(cur, field.words, &word)
    if field.kind == UUID:
        return take_uuid(cur, uuid)
    if field.kind == BOOLEAN:
        return take_bool(cur, &flag)
    if field.kind == U64:
        return take_u64(cur, &number)
    if field.kind == I64:
        return take_i64(cur, &signed)
    if field.kind == TIME:
        return take_time(cur, &time)
    if field.kind == VALUE:
        return check_value(cur, &budget)
    if field.kind == TEXT_MAP or field.kind == VALUE_MAP:
        return check_map(cur, field)
    if field.kind == NESTED:
        return check_record(cur, field.record)
    return check_list(cur, field)


cdef int check_map(Cursor* cur, const Field* field) noexcept nogil:
    """Move past a map of str to str, or of str to JSON values that share one budget."""
    cdef uint32_t budget = MAX_VALUES
    cdef uint32_t count, i
    cdef int code = take_map(cur, &count)
    if code:
        return code
    for i in range(count):
        code = check_text(cur)
        if code:
            return ERR_KEY if code == ERR_TYPE else code
        code = check_text(cur) if field.kind == TEXT_MAP else check_value(cur, &budget)
        if code:
            return code
    return OK


cdef int check_list(Cursor* cur, const Field* field) noexcept nogil:
    """Move past a list whose elements are all of one type."""
    cdef uint8_t uuid[16]
    cdef uint64_t octet
    cdef const uint8_t* at
    cdef uint32_t count, i
    cdef int code = take_array(cur, &count)
    if code:
        return code
    for i in range(count):
        at = cur.pos
        if field.kind == TEXT_LIST:
            code = check_text(cur)
        elif field.kind == UUID_LIST:
            code = take_uuid(cur, uuid)
        elif field.kind == OCTETS:
            code = take_u64(cur, &octet)
            if code == OK and octet > 0xFF:
                cur.pos = at
                code = ERR_RANGE
        else:
            code = check_record(cur, field.record)
        if code:
            return trace_index(cur, i, code)
    return OK


cdef int check_record(Cursor* cur, const Record* record) noexcept nogil:
    """Move past a record that stands inside a message: an array of its fields, or a map."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* name
    cdef size_t size
    cdef uint32_t count, i
    cdef uint32_t seen = 0
    cdef int known
    cdef int code = take_array(cur, &count)
    if code == OK:
        if count > record.count:
            cur.pos = at
            return ERR_EXTRA
        for i in range(count):
            code = check_field(cur, &record.fields[i])
            if code:
                return trace_name(cur, record.fields[i].name, code)
        for i in range(count, record.required):
            if record.fields[i].required:
                return trace_name(cur, record.fields[i].name, ERR_MISSING)
        return OK
    if code != ERR_TYPE:
        return code
    code = take_map(cur, &count)
    if code:
        return code
    for i in range(count):
        code = take_str(cur, &name, &size)
        if code:
            return ERR_KEY if code == ERR_TYPE else code
        known = find_field(record, name, size)
        if known < 0:
            code = skip_any(cur)
            if code:
                return code
            continue
        if seen & (1 << known):
            return trace_name(cur, record.fields[known].name, ERR_DUPLICATE)
        seen |= 1 << known
        code = check_field(cur, &record.fields[known])
        if code:
            return trace_name(cur, record.fields[known].name, code)
    for i in range(record.count):
        if record.fields[i].required and not seen & (1 << i):
            return trace_name(cur, record.fields[i].name, ERR_MISSING)
    return OK


cdef int find_field(const Record* record, const uint8_t* name, size_t size) noexcept nogil:
    """Return the index of the field with this name, or -1."""
    cdef uint32_t i
    for i in range(record.count):
        if record.fields[i].name_size == size and memcmp(record.fields[i].name, name, size) == 0:
            return <int>i
    return -1
