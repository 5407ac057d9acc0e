"""Messages to bytes. See ``encode.pyx``."""

from .buffer cimport Buffer
from .layout cimport Field, Message

cdef int encode_message(Buffer* out, const Message* message) except -1
cdef int encode_record(Buffer* out, const Message* message) except -1
cdef bytes pack_field(const Field* field, object value)
