"""Ids, times and words from the wire. See ``scalars.pyx``."""

from libc.stdint cimport uint8_t, uint32_t

from .layout cimport Time, Words
from .wire cimport Cursor

cdef int take_word(Cursor* cur, const Words* words, uint32_t* index) noexcept nogil
cdef int take_uuid(Cursor* cur, uint8_t* out) noexcept nogil
cdef int take_time(Cursor* cur, Time* out) noexcept nogil
cdef bint parse_uuid(const uint8_t* text, size_t size, uint8_t* out) noexcept nogil
