"""The classes of the messages. See ``classes.pyx``."""

from .layout cimport Field, Message

cdef Message* as_message(object value) noexcept
cdef object read_field(const Message* message, const Field* field)
