"""Plain Python values as MessagePack. See ``pack.pyx``."""

from .buffer cimport Buffer

cdef int pack_str(Buffer* out, object text) except -1
cdef int pack_value(Buffer* out, object value, int depth, size_t* budget) except -1
cdef int pack_octets(Buffer* out, const unsigned char* data, size_t size) except -1
cdef int pack_text_dict(Buffer* out, dict entries) except -1
cdef bint is_sayable(object text) except -1
cdef int pack_dict(Buffer* out, dict entries, int depth, size_t* budget) except -1
cdef tuple items_of(object value)
