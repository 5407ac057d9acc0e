"""The head of a message, read without building an object. See ``header.pyx``."""

from libc.stdint cimport int32_t, uint8_t

cdef enum:
    MAX_HEAD_TEXT = 1024    # of bytes; a longer request id is none that anybody waits for

cdef struct Header:
    # The text fields lie in the message's own bytes. NULL: not there, or not readable.
    const uint8_t* tag
    size_t tag_size
    const uint8_t* request_id
    size_t request_id_size
    bint has_agent_id
    uint8_t agent_id[16]
    int32_t command     # the index of the member in ControlCommandType, or -1

cdef bint read_header(const uint8_t* data, size_t size, Header* out) noexcept nogil
