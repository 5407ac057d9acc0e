"""Frames of publications, sorted by who listens to them. See ``publications.pyx``."""

from libc.stdint cimport uint8_t

cdef class Sorter:
    cdef dict _routes
    cdef object _route
    cdef list _run
    cdef size_t _size
    cdef readonly list runs
    cdef readonly bint full

    cdef int take(self, const uint8_t* frame, size_t size) except -1
