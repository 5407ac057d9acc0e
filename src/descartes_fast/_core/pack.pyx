"""Plain Python values as MessagePack, as ``serde_json`` and ``rmp-serde`` write them."""

from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.object cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from ..errors import FieldError

from .buffer cimport (
    Buffer, make_room, put_array_header, put_be64, put_i64, put_map_header, put_nil, put_raw,
    put_str_header, put_u64, put_u8,
)
from .layout cimport HAVE_GIL, owned
from .octets cimport count_high, put_octets
from .wire cimport MAX_DEPTH

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) noexcept
    bint PyList_Check(object value) noexcept
    tuple PyList_AsTuple(object items)
    tuple PyTuple_GetSlice(object items, Py_ssize_t begin, Py_ssize_t end)
    Py_ssize_t PyTuple_GET_SIZE(object items) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    bint PyErr_ExceptionMatches(PyObject* kind) noexcept
    void PyErr_Clear() noexcept
    PyObject* PyExc_UnicodeEncodeError
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF


cdef int pack_str(Buffer* out, object text) except -1:
    """Write a str. Raises FieldError for one that UTF-8 cannot say (a lone surrogate)."""
    cdef Py_ssize_t size
    cdef const char* data
    if PyUnicode_IS_COMPACT_ASCII(text):
        data = <const char*>PyUnicode_DATA(text)
        size = PyUnicode_GET_LENGTH(text)
    else:
        data = PyUnicode_AsUTF8AndSize(text, &size)
        if data == NULL:
            return unsayable()
    reserve(out, size + 5)
    put_str_header(out, size)
    put_raw(out, data, size)
    return 0


cdef int unsayable() except -1:
    """Turn the error of a string that has no UTF-8 form into ours."""
    if not PyErr_ExceptionMatches(PyExc_UnicodeEncodeError):
        return raise_set()
    PyErr_Clear()
    raise FieldError("a string holds a lone surrogate, which UTF-8 cannot say")


cdef bint is_sayable(object text) except -1:
    """Whether a str has a UTF-8 form. It is kept by the str, for when it is written."""
    cdef Py_ssize_t size
    if PyUnicode_AsUTF8AndSize(text, &size) != NULL:
        return True
    if not PyErr_ExceptionMatches(PyExc_UnicodeEncodeError):
        return raise_set()
    PyErr_Clear()
    return False


cdef int raise_set() except -1:
    """Let an exception through that C code has set."""
    owned(NULL)
    return 0


cdef int reserve(Buffer* out, size_t size) except -1:
    if make_room(out, size):
        raise MemoryError
    return 0


cdef int pack_value(Buffer* out, object value, int depth, size_t* budget) except -1:
    """Write a JSON value: None, bool, int, float, str, list, tuple, dict with str keys.

    ``budget`` counts down the values it may still hold. Raises FieldError for what JSON or
    the protocol's limits do not allow.
    """
    cdef double number
    cdef uint64_t bits
    if budget[0] == 0:
        raise FieldError("a value of more values than the protocol allows")
    budget[0] -= 1
    if value is None:
        reserve(out, 1)
        put_nil(out)
    elif isinstance(value, str):
        pack_str(out, value)
    elif value is True or value is False:
        reserve(out, 1)
        put_u8(out, 0xC3 if value is True else 0xC2)
    elif isinstance(value, int):
        pack_int(out, value)
    elif isinstance(value, float):
        number = PyFloat_AS_DOUBLE(value)
        if not isfinite(number):
            raise FieldError("NaN and the infinities are no JSON numbers")
        memcpy(&bits, &number, 8)
        reserve(out, 9)
        put_u8(out, 0xCB)
        put_be64(out, bits)
    elif isinstance(value, dict):
        pack_dict(out, <dict>value, depth, budget)
    elif isinstance(value, (list, tuple)):
        pack_items(out, items_of(value), depth, budget)
    else:
        raise FieldError(f"{type(value).__name__} is not a JSON type")
    return 0


cdef int pack_int(Buffer* out, object value) except -1:
    cdef int overflow = 0
    cdef int64_t small = PyLong_AsLongLongAndOverflow(value, &overflow)
    reserve(out, 9)
    if not overflow:
        put_i64(out, small)
        return 0
    if overflow < 0 or int.__int__(value) > 0xFFFFFFFFFFFFFFFF:
        raise FieldError("an int that does not fit in 64 bits")
    put_u64(out, PyLong_AsUnsignedLongLong(value))
    return 0


cdef tuple items_of(object value):
    """Return the elements of a list or a tuple, whatever a subclass says of itself."""
    if PyList_Check(value):
        return PyList_AsTuple(value)
    return PyTuple_GetSlice(value, 0, PyTuple_GET_SIZE(value))


cdef int pack_items(Buffer* out, tuple items, int depth, size_t* budget) except -1:
    if depth == MAX_DEPTH:
        raise FieldError(f"a value nested deeper than {MAX_DEPTH}")
    reserve(out, 5)
    put_array_header(out, len(items))
    for item in items:
        pack_value(out, item, depth + 1, budget)
    return 0


cdef int pack_dict(Buffer* out, dict entries, int depth, size_t* budget) except -1:
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t left
    cdef PyObject* key
    cdef PyObject* value
    if depth == MAX_DEPTH:
        raise FieldError(f"a value nested deeper than {MAX_DEPTH}")
    if not HAVE_GIL:
        # Another thread may change it between its length and its entries.
        entries = entries.copy()
    left = len(entries)
    reserve(out, 5)
    put_map_header(out, left)
    while PyDict_Next(entries, &at, &key, &value):
        if not isinstance(<object>key, str):
            raise FieldError(f"a key of a JSON object is a str, not {type(<object>key).__name__}")
        pack_str(out, <object>key)
        # Held: until Python 3.11 the tuple that a list is written from may set off a collection,
        # and a finalizer then changes the entries.
        held = <object>value
        pack_value(out, held, depth + 1, budget)
        left -= 1
    if left:
        raise FieldError("a dict changed while it was written")
    return 0


cdef int pack_text_dict(Buffer* out, dict entries) except -1:
    """Write a map of str to str. Writing one runs no Python code: the entries stay as they are."""
    cdef Py_ssize_t at = 0
    cdef PyObject* key
    cdef PyObject* value
    if not HAVE_GIL:
        entries = entries.copy()
    reserve(out, 5)
    put_map_header(out, len(entries))
    while PyDict_Next(entries, &at, &key, &value):
        if not isinstance(<object>key, str):
            raise FieldError(f"a key is a str, not {type(<object>key).__name__}")
        if not isinstance(<object>value, str):
            # Held: what they say of themselves may be anybody's code.
            name, held = <object>key, <object>value
            raise FieldError(f"the value of {name!r} is a str, not {type(held).__name__}")
        pack_str(out, <object>key)
        pack_str(out, <object>value)
    return 0


cdef int pack_octets(Buffer* out, const unsigned char* data, size_t size) except -1:
    """Write bytes as an array of small ints: one byte below 0x80, two for the rest."""
    cdef size_t high = count_high(data, size)
    reserve(out, 5 + size + high)
    put_array_header(out, size)
    if high == 0:
        put_raw(out, data, size)
    else:
        out.pos = put_octets(out.pos, data, size)
    return 0
