"""Fields from what a caller gives. See ``construct.pyx``."""

from .layout cimport Message, Record

cdef object construct(Record* record, dict given)
cdef object replaced(const Message* message, dict changes)
cdef object refusal(const Record* record, str name, str words)
