"""Checking MessagePack without building anything. See ``scan.pyx``."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .layout cimport Field, Record
from .wire cimport Cursor


cdef inline bint is_ascii(const uint8_t* data, size_t size) noexcept nogil:
    """Whether no byte has its high bit set. Reads words, the last one overlapping."""
    cdef uint64_t high = 0
    cdef uint64_t chunk
    cdef uint32_t half
    cdef size_t at = 0
    if size >= 8:
        while size - at > 8:
            memcpy(&chunk, data + at, 8)
            high |= chunk
            at += 8
        memcpy(&chunk, data + size - 8, 8)
        high |= chunk
    elif size >= 4:
        memcpy(&half, data, 4)
        high = half
        memcpy(&half, data + size - 4, 4)
        high |= half
    elif size:
        high = data[0] | data[size // 2] | data[size - 1]
    return high & <uint64_t>0x8080808080808080 == 0


cdef inline bint is_utf8(const uint8_t* data, size_t size) noexcept nogil:
    """Whether the bytes are UTF-8."""
    return is_ascii(data, size) or is_wide_utf8(data, size)


cdef bint is_wide_utf8(const uint8_t* data, size_t size) noexcept nogil
cdef int check_text(Cursor* cur) noexcept nogil
cdef int check_value(Cursor* cur, uint32_t* budget) noexcept nogil
cdef int check_field(Cursor* cur, const Field* field) noexcept nogil
cdef int check_record(Cursor* cur, const Record* record) noexcept nogil
cdef int skip_any(Cursor* cur) noexcept nogil
cdef int find_field(const Record* record, const uint8_t* name, size_t size) noexcept nogil
