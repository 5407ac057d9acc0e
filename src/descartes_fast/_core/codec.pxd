"""Messages in frames, for C code: decode from a pointer, encode behind what is already there.

    cimport descartes_fast._core.codec as codec

``header.pxd`` reads a message's head without building an object; ``buffer.pxd`` has the growing
buffer that ``encode_into`` writes to.
"""

from libc.stdint cimport uint8_t

from .buffer cimport Buffer

cdef int encode_into(Buffer* out, object message) except -1
cdef bytes encode_frame(const uint8_t* prefix, size_t prefix_size, object message)
cdef object decode_from(const uint8_t* data, size_t size, bytes owner)
