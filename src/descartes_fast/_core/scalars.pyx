"""Ids, times and words: what takes one of several forms on the wire, and is fixed once taken."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from .layout cimport Time, Words
from .wire cimport (
    ERR_DUPLICATE, ERR_KEY, ERR_RANGE, ERR_TIME, ERR_TYPE, ERR_UUID, ERR_WORD, OK, Cursor, left_in,
    load_ends, take_array, take_bin, take_map, take_nil, take_str, take_u64,
)


cdef int take_word(Cursor* cur, const Words* words, uint32_t* index) noexcept nogil:
    """Take one of a closed set of words: a str, or a map of the one word to nil."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    cdef uint32_t count
    cdef uint32_t i
    cdef uint64_t head, tail
    cdef bint wrapped = False
    cdef int code = take_str(cur, &data, &size)
    if code == ERR_TYPE and take_map(cur, &count) == OK:
        wrapped = True
        code = take_str(cur, &data, &size) if count == 1 else ERR_TYPE
    if code:
        cur.pos = at
        return code
    load_ends(data, size, &head, &tail)
    for i in range(words.count):
        if (
            words.words[i].head == head
            and words.words[i].tail == tail
            and words.words[i].wire_size == size + 1
        ):
            if wrapped and not take_nil(cur):
                cur.pos = at
                return ERR_TYPE
            index[0] = i
            return OK
    cur.pos = at
    return ERR_WORD


cdef int take_uuid(Cursor* cur, uint8_t* out) noexcept nogil:
    """Take an id: a bin of 16 bytes, or a str in hyphenated, simple, braced or urn form."""
    cdef const uint8_t* at = cur.pos
    cdef const uint8_t* data
    cdef size_t size
    cdef int code
    if left_in(cur) >= 18 and at[0] == 0xC4 and at[1] == 16:
        memcpy(out, at + 2, 16)
        cur.pos += 18
        return OK
    code = take_bin(cur, &data, &size)
    if code == OK:
        if size == 16:
            memcpy(out, data, 16)
            return OK
        cur.pos = at
        return ERR_UUID
    if code != ERR_TYPE:
        return code
    code = take_str(cur, &data, &size)
    if code == OK and not parse_uuid(data, size, out):
        cur.pos = at
        return ERR_UUID
    return code


cdef bint parse_uuid(const uint8_t* text, size_t size, uint8_t* out) noexcept nogil:
    """Read the text forms of an id. The letters may be of either case, the prefix not."""
    cdef bint hyphens = True
    cdef uint32_t i
    cdef size_t at = 0
    cdef int high, low
    if size == 45:
        if memcmp(text, b"urn:uuid:", 9) != 0:
            return False
        text += 9
    elif size == 38:
        if text[0] != c"{" or text[37] != c"}":
            return False
        text += 1
    elif size == 32:
        hyphens = False
    elif size != 36:
        return False
    for i in range(16):
        if hyphens and (i == 4 or i == 6 or i == 8 or i == 10):
            if text[at] != c"-":
                return False
            at += 1
        high = hex_digit(text[at])
        low = hex_digit(text[at + 1])
        if high < 0 or low < 0:
            return False
        out[i] = <uint8_t>(high << 4 | low)
        at += 2
    return True


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c"0" <= c <= c"9":
        return c - c"0"
    c |= 0x20
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return -1


cdef int take_time(Cursor* cur, Time* out) noexcept nogil:
    """Take a point in time: ``[secs, nanos]``, or a map of the two names.

    Nanoseconds of a second and more carry into the seconds (``serde``'s ``Duration``).
    """
    cdef const uint8_t* at = cur.pos
    cdef uint64_t parts[2]
    cdef uint32_t count = 0
    cdef uint32_t seen = 0
    cdef uint32_t i, part
    cdef const uint8_t* name
    cdef size_t size
    cdef int code = take_array(cur, &count)
    if code == OK:
        if count != 2:
            cur.pos = at
            return ERR_TIME
        for i in range(2):
            code = take_u64(cur, &parts[i])
            if code:
                return code
    elif code == ERR_TYPE:
        code = take_map(cur, &count)
        if code:
            return code
        for i in range(count):
            code = take_str(cur, &name, &size)
            if code:
                return ERR_KEY if code == ERR_TYPE else code
            if size == 16 and memcmp(name, b"secs_since_epoch", 16) == 0:
                part = 0
            elif size == 17 and memcmp(name, b"nanos_since_epoch", 17) == 0:
                part = 1
            else:
                cur.pos = at
                return ERR_TIME
            if seen & (<uint32_t>1 << part):
                return ERR_DUPLICATE
            seen |= 1 << part
            code = take_u64(cur, &parts[part])
            if code:
                return code
        if seen != 3:
            cur.pos = at
            return ERR_TIME
    else:
        return code
    if parts[1] > <uint64_t>0xFFFFFFFF:
        cur.pos = at
        return ERR_RANGE
    # Both below 2^63 + 5, so the sum cannot wrap.
    if parts[0] > <uint64_t>0x7FFFFFFFFFFFFFFF:
        cur.pos = at
        return ERR_RANGE
    parts[0] += parts[1] // 1_000_000_000
    if parts[0] > <uint64_t>0x7FFFFFFFFFFFFFFF:
        cur.pos = at
        return ERR_RANGE
    out.secs = <int64_t>parts[0]
    out.nanos = <uint32_t>(parts[1] % 1_000_000_000)
    return OK
