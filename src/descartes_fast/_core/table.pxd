"""The table of messages as C sees it. See ``table.pyx``."""

from cpython.object cimport PyTypeObject
from libc.stdint cimport uint8_t, uint32_t

from .layout cimport Record

cdef enum:
    MAX_RECORDS = 32

cdef uint32_t record_count
cdef Record records[MAX_RECORDS]

cdef Record* find_tag(const uint8_t* tag, size_t size) noexcept nogil
cdef Record* find_type(const PyTypeObject* kind) noexcept nogil
cdef void set_type(Record* record, PyTypeObject* kind) noexcept
