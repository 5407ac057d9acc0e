"""Checking MessagePack without building anything. See ``scan.pyx``."""

from libc.stdint cimport uint8_t, uint32_t

from .layout cimport Field, Record, Time, Words
from .wire cimport Cursor

cdef bint is_ascii(const uint8_t* data, size_t size) noexcept nogil
cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil
cdef int check_text(Cursor* cur) noexcept nogil
cdef int check_value(Cursor* cur, uint32_t* budget) noexcept nogil
cdef int check_field(Cursor* cur, const Field* field) noexcept nogil
cdef int check_record(Cursor* cur, const Record* record) noexcept nogil
cdef int skip_any(Cursor* cur) noexcept nogil
cdef int take_word(Cursor* cur, const Words* words, uint32_t* index) noexcept nogil
cdef int take_uuid(Cursor* cur, uint8_t* out) noexcept nogil
cdef int take_time(Cursor* cur, Time* out) noexcept nogil
cdef int find_field(const Record* record, const uint8_t* name, size_t size) noexcept nogil
