"""Plain Python values as MessagePack. See ``pack.pyx``."""

from .buffer cimport Buffer

cdef int pack_str(Buffer* out, object text) except -1
cdef int pack_value(Buffer* out, object value, int depth, size_t* budget) except -1
cdef int pack_octets(Buffer* out, const unsigned char* data, size_t size) except -1
