"""A growing run of bytes: room given by the caller first, memory of its own when that is full.

Every ``put_*`` needs the room it writes to have been made by ``make_room`` before.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

cdef struct Buffer:
    uint8_t* start
    uint8_t* pos
    uint8_t* end
    bint owned      # `start` is ours to free


cdef inline void open_buffer(Buffer* out, uint8_t* room, size_t size) noexcept nogil:
    out.start = out.pos = room
    out.end = room + size
    out.owned = False


cdef inline void close_buffer(Buffer* out) noexcept nogil:
    if out.owned:
        free(out.start)
        out.owned = False


cdef inline size_t size_of_buffer(const Buffer* out) noexcept nogil:
    return <size_t>(out.pos - out.start)


cdef inline int make_room(Buffer* out, size_t size) noexcept nogil:
    """Make room for ``size`` more bytes. Returns -1, and nothing is lost, if memory is out."""
    if <size_t>(out.end - out.pos) >= size:
        return 0
    return grow_buffer(out, size)


cdef inline int grow_buffer(Buffer* out, size_t size) noexcept nogil:
    cdef size_t used = size_of_buffer(out)
    cdef size_t wanted = used + size
    cdef size_t room = <size_t>(out.end - out.start)
    cdef uint8_t* grown
    room += room // 2 + 1024
    if room < wanted:
        room = wanted
    if out.owned:
        grown = <uint8_t*>realloc(out.start, room)
        if grown == NULL:
            return -1
    else:
        grown = <uint8_t*>malloc(room)
        if grown == NULL:
            return -1
        memcpy(grown, out.start, used)
    out.start = grown
    out.pos = grown + used
    out.end = grown + room
    out.owned = True
    return 0


cdef inline void put_u8(Buffer* out, uint32_t value) noexcept nogil:
    out.pos[0] = <uint8_t>value
    out.pos += 1


cdef inline void put_be16(Buffer* out, uint32_t value) noexcept nogil:
    out.pos[0] = <uint8_t>(value >> 8)
    out.pos[1] = <uint8_t>value
    out.pos += 2


cdef inline void put_be32(Buffer* out, uint32_t value) noexcept nogil:
    put_be16(out, value >> 16)
    put_be16(out, value)


cdef inline void put_be64(Buffer* out, uint64_t value) noexcept nogil:
    put_be32(out, <uint32_t>(value >> 32))
    put_be32(out, <uint32_t>value)


cdef inline void put_raw(Buffer* out, const void* data, size_t size) noexcept nogil:
    memcpy(out.pos, data, size)
    out.pos += size


cdef inline void put_nil(Buffer* out) noexcept nogil:
    put_u8(out, 0xC0)


cdef inline void put_u64(Buffer* out, uint64_t value) noexcept nogil:
    """Write the shortest unsigned integer: at most 9 bytes."""
    if value < 0x80:
        put_u8(out, <uint32_t>value)
    elif value <= 0xFF:
        put_u8(out, 0xCC)
        put_u8(out, <uint32_t>value)
    elif value <= 0xFFFF:
        put_u8(out, 0xCD)
        put_be16(out, <uint32_t>value)
    elif value <= <uint64_t>0xFFFFFFFF:
        put_u8(out, 0xCE)
        put_be32(out, <uint32_t>value)
    else:
        put_u8(out, 0xCF)
        put_be64(out, value)


cdef inline void put_i64(Buffer* out, int64_t value) noexcept nogil:
    """Write the shortest integer: at most 9 bytes."""
    if value >= 0:
        put_u64(out, <uint64_t>value)
    elif value >= -32:
        put_u8(out, <uint32_t>value & 0xFF)
    elif value >= -0x80:
        put_u8(out, 0xD0)
        put_u8(out, <uint32_t>value & 0xFF)
    elif value >= -0x8000:
        put_u8(out, 0xD1)
        put_be16(out, <uint32_t>value & 0xFFFF)
    elif value >= -<int64_t>0x80000000:
        put_u8(out, 0xD2)
        put_be32(out, <uint32_t>value)
    else:
        put_u8(out, 0xD3)
        put_be64(out, <uint64_t>value)


cdef inline void put_str_header(Buffer* out, size_t size) noexcept nogil:
    """Write the header of a str: at most 5 bytes."""
    if size < 32:
        put_u8(out, 0xA0 | <uint32_t>size)
    elif size <= 0xFF:
        put_u8(out, 0xD9)
        put_u8(out, <uint32_t>size)
    elif size <= 0xFFFF:
        put_u8(out, 0xDA)
        put_be16(out, <uint32_t>size)
    else:
        put_u8(out, 0xDB)
        put_be32(out, <uint32_t>size)


cdef inline void put_count(
    Buffer* out, uint32_t short_marker, uint32_t long_marker, size_t count
) noexcept nogil:
    """Write the header of a container: at most 5 bytes."""
    if count < 16:
        put_u8(out, short_marker | <uint32_t>count)
    elif count <= 0xFFFF:
        put_u8(out, long_marker)
        put_be16(out, <uint32_t>count)
    else:
        put_u8(out, long_marker + 1)
        put_be32(out, <uint32_t>count)


cdef inline void put_array_header(Buffer* out, size_t count) noexcept nogil:
    """Write the header of an array: at most 5 bytes."""
    put_count(out, 0x90, 0xDC, count)


cdef inline void put_map_header(Buffer* out, size_t count) noexcept nogil:
    """Write the header of a map: at most 5 bytes."""
    put_count(out, 0x80, 0xDE, count)


cdef inline void put_uuid(Buffer* out, const uint8_t* data) noexcept nogil:
    """Write an id: 18 bytes."""
    put_u8(out, 0xC4)
    put_u8(out, 16)
    put_raw(out, data, 16)
