"""Publications as they come in: each decoded, and all of one route in a row put together.

A published frame is a topic, a NUL and a message. Only what is plain is done here, so that a flood
costs no call into Python for each message; everything else goes on as the frame it is, at its
place: an echo, a topic that is seen for the first time, what cannot be understood.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memchr

from ..errors import ProtocolError

from .classes cimport as_message
from .codec cimport decode_from
from .layout cimport Message, Record, record_of
from .table cimport find_tag

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(dict entries, object key) except? NULL

cdef enum:
    FULL_BYTES = 1048576

cdef Record* LOG = find_tag(b"log_stream", 10)
cdef Record* UPDATE = find_tag(b"status_update", 13)


cdef class Sorter:
    """Sorts frames into ``runs``: ``(route, messages)``, or ``(None, frame)`` for what is left.

    ``routes`` has the route of each known topic, an empty one for what nobody wants. A run is of
    the very same route; the order among all messages is in the runs. They are ``full`` when the
    frames had a mebibyte together, which takes about as long as some hundred short ones.
    """

    def __init__(self, dict routes not None):
        self._routes = routes
        self.runs = []

    def add(self, bytes frame not None):
        """Sort one frame."""
        self.take(<const uint8_t*>PyBytes_AS_STRING(frame), <size_t>PyBytes_GET_SIZE(frame))

    cdef int take(self, const uint8_t* frame, size_t size) except -1:
        """Sort one frame, whose memory need not outlive the call."""
        cdef const uint8_t* end = <const uint8_t*>memchr(frame, 0, size) if size else NULL
        cdef PyObject* found = NULL
        self._size += size
        self.full = self._size >= FULL_BYTES
        if end != NULL:
            topic = PyBytes_FromStringAndSize(<const char*>frame, end - frame)
            found = PyDict_GetItemWithError(self._routes, topic)
        if found != NULL:
            route = <object>found
            if not route:
                return 0
            message = publication_in(end + 1, size - (end - frame) - 1)
            if message is not None:
                if route is not self._route:
                    self._route = route
                    self._run = []
                    self.runs.append((route, self._run))
                self._run.append(message)
                return 0
        self._route = None
        self.runs.append((None, PyBytes_FromStringAndSize(<const char*>frame, <Py_ssize_t>size)))
        return 0


cdef object publication_in(const uint8_t* data, size_t size):
    """Return the message in these bytes if it is one that is published, else None."""
    cdef Message* found
    try:
        message = decode_from(data, size, None)
    except ProtocolError:
        return None
    found = as_message(message)
    if record_of(found).base != UPDATE and record_of(found).base != LOG:
        return None
    return message
