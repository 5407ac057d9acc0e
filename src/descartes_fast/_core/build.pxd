"""Python objects from bytes that were checked before. See ``build.pyx``."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

from .layout cimport Time
from .wire cimport Cursor

cdef PyObject* build_str(const uint8_t* data, size_t size) noexcept
cdef PyObject* build_kept_str(const uint8_t* data, size_t size) noexcept
cdef PyObject* build_u64(uint64_t value) noexcept
cdef PyObject* build_i64(int64_t value) noexcept
cdef object build_uuid(const uint8_t* data)
cdef object build_time(const Time* time)
cdef object build_time_ns(const Time* time)
cdef object build_value(Cursor* cur)
cdef PyObject* build_map(Cursor* cur, bint values) noexcept
cdef object uuid_number(object uuid)
cdef bint uuid_bytes(object uuid, uint8_t* out) noexcept
cdef bint is_uuid(object value) noexcept
