"""Reading MessagePack from borrowed bytes: a cursor whose checked reads are inline.

Every ``take_*`` returns a code; anything but ``OK`` leaves the cursor at the beginning of the
value that was refused. No declared length is believed before the bytes behind it are there.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    MAX_SIZE = 10 * 1024 * 1024     # of a message, in bytes
    MAX_DEPTH = 128
    MAX_VALUES = 100_000
    MAX_TRAIL = 8

cdef enum Code:
    OK = 0
    ERR_PYTHON          # a Python exception is set
    ERR_TRUNCATED
    ERR_TYPE
    ERR_RANGE
    ERR_UTF8
    ERR_DEPTH
    ERR_COUNT
    ERR_WORD
    ERR_UUID
    ERR_TIME
    ERR_KEY
    ERR_MISSING
    ERR_EXTRA
    ERR_DUPLICATE
    ERR_TRAILING
    ERR_NO_TAG
    ERR_TAG
    ERR_WIDE            # not broken: to be decoded again, with room

cdef struct Step:
    # One step of the path to a broken field: a name, or an index where the name is NULL.
    const char* name
    uint32_t index

cdef struct Cursor:
    const uint8_t* pos
    const uint8_t* end
    const uint8_t* start
    bint eager          # text is built however wide it is
    # The way from a broken field up to the message, written while an error unwinds.
    uint32_t trail_len
    Step trail[MAX_TRAIL]


cdef inline void open_cursor(Cursor* cur, const uint8_t* data, size_t size) noexcept nogil:
    cur.start = cur.pos = data
    cur.end = data + size
    cur.eager = False
    cur.trail_len = 0


cdef inline size_t left_in(const Cursor* cur) noexcept nogil:
    return <size_t>(cur.end - cur.pos)


cdef inline int trace_name(Cursor* cur, const char* name, int code) noexcept nogil:
    """Note that an error passed through the field ``name``; return its code."""
    if cur.trail_len < MAX_TRAIL:
        cur.trail[cur.trail_len].name = name
        cur.trail_len += 1
    return code


cdef inline int trace_index(Cursor* cur, uint32_t index, int code) noexcept nogil:
    """Note that an error passed through element ``index`` of a list; return its code."""
    if cur.trail_len < MAX_TRAIL:
        cur.trail[cur.trail_len].name = NULL
        cur.trail[cur.trail_len].index = index
        cur.trail_len += 1
    return code


cdef inline void load_ends(
    const uint8_t* data, size_t size, uint64_t* head, uint64_t* tail
) noexcept nogil:
    """Load the first and the last eight bytes; with the size they tell short words apart.

    Up to 16 bytes, two words are equal when their sizes and both ends are.
    """
    cdef uint32_t half
    if size >= 8:
        memcpy(head, data, 8)
        memcpy(tail, data + size - 8, 8)
    elif size >= 4:
        memcpy(&half, data, 4)
        head[0] = half
        memcpy(&half, data + size - 4, 4)
        tail[0] = half
    elif size:
        head[0] = data[0] | <uint64_t>data[size // 2] << 8 | <uint64_t>data[size - 1] << 16
        tail[0] = 0
    else:
        head[0] = tail[0] = 0


cdef inline uint32_t load_be16(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]


cdef inline uint32_t load_be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t load_be64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>load_be32(p) << 32) | load_be32(p + 4)


cdef inline bint take_nil(Cursor* cur) noexcept nogil:
    """Take a nil if one is next."""
    if cur.pos < cur.end and cur.pos[0] == 0xC0:
        cur.pos += 1
        return True
    return False


cdef inline int take_length(
    Cursor* cur, uint8_t marker, int widths, size_t* head, size_t* size
) noexcept nogil:
    """Read the length behind a marker of one, two or four bytes (``widths`` of them exist).

    ``marker`` is the one with the narrowest length; the cursor does not move.
    """
    cdef size_t left = left_in(cur)
    cdef int step = cur.pos[0] - marker
    if step < 0 or step >= widths:
        return ERR_TYPE
    if widths == 2:
        step += 1
    if step == 0:
        if left < 2:
            return ERR_TRUNCATED
        size[0] = cur.pos[1]
        head[0] = 2
    elif step == 1:
        if left < 3:
            return ERR_TRUNCATED
        size[0] = load_be16(cur.pos + 1)
        head[0] = 3
    else:
        if left < 5:
            return ERR_TRUNCATED
        size[0] = load_be32(cur.pos + 1)
        head[0] = 5
    return OK


cdef inline int take_bytes(
    Cursor* cur, size_t head, size_t size, const uint8_t** data
) noexcept nogil:
    """Move past ``head`` bytes of header and ``size`` bytes of content, if they are all there."""
    if left_in(cur) - head < size:
        return ERR_TRUNCATED
    data[0] = cur.pos + head
    cur.pos += head + size
    return OK


cdef inline int take_str(Cursor* cur, const uint8_t** data, size_t* size) noexcept nogil:
    """Take a str of any width. Its bytes are not looked at."""
    cdef size_t head = 1
    cdef int code
    if cur.pos == cur.end:
        return ERR_TRUNCATED
    if cur.pos[0] & 0xE0 == 0xA0:
        size[0] = cur.pos[0] & 0x1F
    else:
        code = take_length(cur, 0xD9, 3, &head, size)
        if code:
            return code
    return take_bytes(cur, head, size[0], data)


cdef inline int take_bin(Cursor* cur, const uint8_t** data, size_t* size) noexcept nogil:
    """Take a bin of any width."""
    cdef size_t head
    cdef int code
    if cur.pos == cur.end:
        return ERR_TRUNCATED
    code = take_length(cur, 0xC4, 3, &head, size)
    if code:
        return code
    return take_bytes(cur, head, size[0], data)


cdef inline int take_text(Cursor* cur, const uint8_t** data, size_t* size) noexcept nogil:
    """Take what may stand for a string: a str or a bin. Its bytes are not looked at."""
    cdef int code = take_str(cur, data, size)
    if code == ERR_TYPE:
        code = take_bin(cur, data, size)
    return code


cdef inline int take_count(
    Cursor* cur, uint8_t short_marker, uint8_t long_marker, size_t least, uint32_t* count
) noexcept nogil:
    """Take the header of a container, each of whose elements takes at least so many bytes."""
    cdef size_t head = 1
    cdef size_t size = 0
    cdef int code
    if cur.pos == cur.end:
        return ERR_TRUNCATED
    if cur.pos[0] & 0xF0 == short_marker:
        size = cur.pos[0] & 0x0F
    else:
        code = take_length(cur, long_marker, 2, &head, &size)
        if code:
            return code
    if (left_in(cur) - head) // least < size:
        return ERR_TRUNCATED
    count[0] = <uint32_t>size
    cur.pos += head
    return OK


cdef inline int take_array(Cursor* cur, uint32_t* count) noexcept nogil:
    """Take an array's header. Each element is at least one byte, and those must be there."""
    return take_count(cur, 0x90, 0xDC, 1, count)


cdef inline int take_map(Cursor* cur, uint32_t* count) noexcept nogil:
    """Take a map's header. Each entry is at least two bytes, and those must be there."""
    return take_count(cur, 0x80, 0xDE, 2, count)


cdef inline int take_bool(Cursor* cur, bint* value) noexcept nogil:
    """Take true or false."""
    if cur.pos == cur.end:
        return ERR_TRUNCATED
    if cur.pos[0] & 0xFE != 0xC2:
        return ERR_TYPE
    value[0] = cur.pos[0] & 1
    cur.pos += 1
    return OK


cdef inline int take_int(Cursor* cur, bint* negative, uint64_t* bits) noexcept nogil:
    """Take an integer of any encoding, as its 64 bits and whether it is below zero."""
    cdef size_t left = left_in(cur)
    cdef uint8_t first
    cdef size_t width
    cdef int64_t signed
    if left == 0:
        return ERR_TRUNCATED
    first = cur.pos[0]
    negative[0] = False
    if first < 0x80:
        bits[0] = first
        cur.pos += 1
        return OK
    if first >= 0xE0:
        negative[0] = True
        bits[0] = <uint64_t><int64_t><int8_t>first
        cur.pos += 1
        return OK
    if first < 0xCC or first > 0xD3:
        return ERR_TYPE
    width = <size_t>1 << (first & 3)
    if left - 1 < width:
        return ERR_TRUNCATED
    if first <= 0xCF:
        if width == 1:
            bits[0] = cur.pos[1]
        elif width == 2:
            bits[0] = load_be16(cur.pos + 1)
        elif width == 4:
            bits[0] = load_be32(cur.pos + 1)
        else:
            bits[0] = load_be64(cur.pos + 1)
    else:
        if width == 1:
            signed = <int8_t>cur.pos[1]
        elif width == 2:
            signed = <int16_t>load_be16(cur.pos + 1)
        elif width == 4:
            signed = <int32_t>load_be32(cur.pos + 1)
        else:
            signed = <int64_t>load_be64(cur.pos + 1)
        negative[0] = signed < 0
        bits[0] = <uint64_t>signed
    cur.pos += 1 + width
    return OK


cdef inline int take_u64(Cursor* cur, uint64_t* value) noexcept nogil:
    """Take an integer in 0..2^64-1, whatever its encoding."""
    cdef const uint8_t* at = cur.pos
    cdef bint negative
    cdef int code = take_int(cur, &negative, value)
    if code == OK and negative:
        cur.pos = at
        return ERR_RANGE
    return code


cdef inline int take_i64(Cursor* cur, int64_t* value) noexcept nogil:
    """Take an integer in -2^63..2^63-1, whatever its encoding."""
    cdef const uint8_t* at = cur.pos
    cdef bint negative
    cdef uint64_t bits
    cdef int code = take_int(cur, &negative, &bits)
    if code:
        return code
    if not negative and bits > <uint64_t>0x7FFFFFFFFFFFFFFF:
        cur.pos = at
        return ERR_RANGE
    value[0] = <int64_t>bits
    return OK
