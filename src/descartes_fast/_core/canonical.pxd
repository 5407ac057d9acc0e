"""Whether checked bytes are those we would write. See ``canonical.pyx``."""

from libc.stdint cimport uint8_t

from .layout cimport Field

cdef bint is_canonical(const Field* field, const uint8_t* data, size_t size) noexcept nogil
