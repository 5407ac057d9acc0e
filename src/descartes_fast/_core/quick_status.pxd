"""Answers to plain ``get_status`` requests without the GIL. See ``quick_status.pyx``."""

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint8_t

from .buffer cimport Buffer
from .keyed cimport Keyed

cdef struct Question:
    uint8_t agent_id[16]
    const uint8_t* request_id   # in the request's own bytes
    size_t request_id_size

cdef struct Counts:
    # With a sign: what was counted and told already may have to be taken back.
    int64_t requests
    int64_t request_bytes
    int64_t replies
    int64_t reply_bytes
    int64_t dropped

cdef bint read_question(const uint8_t* data, size_t size, Question* out) noexcept nogil

cdef class QuickReplies:
    cdef readonly size_t limit
    cdef PyThread_type_lock _lock
    cdef Keyed _replies
    cdef Keyed _passed_over
    cdef Counts _counts

    cdef bint answer(
        self, const uint8_t* client, size_t client_size, const Question* asked, Buffer* out
    ) noexcept nogil
    cdef void count(self, Counts* more) noexcept nogil
