"""The table of messages as C sees it. See ``table.pyx``."""

from cpython.object cimport PyTypeObject
from libc.stdint cimport uint8_t, uint32_t

from .layout cimport Record

cdef enum:
    MAX_RECORDS = 32

cdef uint32_t record_count
cdef Record records[MAX_RECORDS]
# A str of CPython takes up to four bytes a character. Long text that has wide characters is
# therefore kept as it came: the message is then of a roomy record, which a class of its own
# stands for, derived from the one that everybody knows.
cdef Record roomy_records[MAX_RECORDS]

cdef Record* find_tag(const uint8_t* tag, size_t size) noexcept nogil
cdef Record* find_type(const PyTypeObject* kind) noexcept nogil
cdef void set_type(Record* record, PyTypeObject* kind) noexcept
