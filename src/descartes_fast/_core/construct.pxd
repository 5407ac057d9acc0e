"""Fields from what a caller gives. See ``construct.pyx``."""

from cpython.object cimport PyObject

from .layout cimport Message, Record

cdef object construct(
    Record* record, PyObject* const* values, Py_ssize_t count, PyObject* names
)
cdef object replaced(const Message* message, dict changes)
