"""Messages from bytes. See ``decode.pyx``."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from .layout cimport Field, Message, Record

cdef object decode_message(const uint8_t* data, size_t size, PyObject* owner)
cdef object decode_part(const uint8_t* data, size_t size, PyObject* owner, Record* record)
cdef object build_slice(const Message* message, const Field* field)
cdef void set_default(Message* message, const Field* field) noexcept
