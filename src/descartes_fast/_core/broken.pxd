"""The one place that raises for broken bytes. See ``broken.pyx``."""

from .layout cimport Record
from .wire cimport Cursor

cdef object raise_broken(const Cursor* cur, const Record* root, int code)
