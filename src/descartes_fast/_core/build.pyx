"""Python objects from bytes that were checked before: strings, numbers, ids, times, values."""

from cpython.datetime cimport datetime_new, import_datetime
from cpython.dict cimport PyDict_New, PyDict_SetItem
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import uuid
from datetime import timezone

from .layout cimport Time, owned
from .scan cimport is_ascii
from .wire cimport (
    Cursor, load_be32, load_be64, take_array, take_int, take_map, take_str, take_text,
)

import_datetime()

cdef extern from *:
    """
    #include "structmember.h"
    #if PY_VERSION_HEX >= 0x030D0000
    #define descartes_fast_int128(p) \
        PyLong_FromUnsignedNativeBytes((p), 16, Py_ASNATIVEBYTES_BIG_ENDIAN)
    #else
    #define descartes_fast_int128(p) _PyLong_FromByteArray((p), 16, 0, 0)
    #endif
    """
    object int128 "descartes_fast_int128"(const uint8_t* data)

cdef extern from "Python.h":
    PyObject* PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar) noexcept
    void* PyUnicode_DATA(PyObject* text) noexcept
    PyObject* PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors) noexcept
    PyObject* PyLong_FromUnsignedLongLong(unsigned long long value) noexcept
    PyObject* PyLong_FromLongLong(long long value) noexcept
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member
    PyTypeObject PyMemberDescr_Type
    object PyType_GenericAlloc(PyTypeObject* kind, Py_ssize_t items)
    PyTypeObject* Py_TYPE(object)

cdef type UUID_TYPE = uuid.UUID
cdef object UTC = timezone.utc
cdef object UUID_SAFETY = uuid.SafeUUID.unknown
# A UUID is an int and a mark in two slots; filling them directly takes a tenth of the time
# of its constructor. Where a Python version lays it out otherwise, the constructor is called.
cdef Py_ssize_t UUID_INT = _slot_offset("int")
cdef Py_ssize_t UUID_SAFE = _slot_offset("is_safe")

cdef uint64_t LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that datetime knows


cdef Py_ssize_t _slot_offset(str name):
    descriptor = UUID_TYPE.__dict__.get(name)
    if descriptor is None or Py_TYPE(descriptor) != &PyMemberDescr_Type:
        return 0
    return (<PyMemberDescrObject*><PyObject*>descriptor).d_member.offset


cdef PyObject* build_str(const uint8_t* data, size_t size) noexcept:
    """Return a new str, or NULL with an exception set (UnicodeDecodeError, MemoryError)."""
    cdef PyObject* made
    if is_ascii(data, size):
        made = PyUnicode_New(<Py_ssize_t>size, 127)
        if made != NULL and size:
            memcpy(PyUnicode_DATA(made), data, size)
        return made
    return PyUnicode_DecodeUTF8(<const char*>data, <Py_ssize_t>size, NULL)


cdef PyObject* build_u64(uint64_t value) noexcept:
    return PyLong_FromUnsignedLongLong(value)


cdef PyObject* build_i64(int64_t value) noexcept:
    return PyLong_FromLongLong(value)


cdef object build_uuid(const uint8_t* data):
    """Return the ``uuid.UUID`` of 16 bytes."""
    cdef object number = int128(data)
    cdef object made
    if not UUID_INT or not UUID_SAFE:
        return UUID_TYPE(int=number)
    made = PyType_GenericAlloc(<PyTypeObject*>UUID_TYPE, 0)
    Py_INCREF(number)
    Py_INCREF(UUID_SAFETY)
    (<PyObject**>(<char*><PyObject*>made + UUID_INT))[0] = <PyObject*>number
    (<PyObject**>(<char*><PyObject*>made + UUID_SAFE))[0] = <PyObject*>UUID_SAFETY
    return made


cdef bint is_uuid(object value) noexcept:
    return isinstance(value, UUID_TYPE)


cdef int uuid_bytes(object uuid, uint8_t* out) except -1:
    """Write the 16 bytes of a ``uuid.UUID``."""
    cdef bytes data = uuid.bytes
    if len(data) != 16:
        raise ValueError("a UUID has 16 bytes")
    memcpy(out, <const char*>data, 16)
    return 0


cdef object build_time(const Time* time):
    """Return an aware ``datetime`` in UTC; digits below a microsecond are cut off.

    Raises OverflowError after the year 9999, where ``datetime`` ends.
    """
    cdef int64_t days, era, year
    cdef uint32_t rest, day_of_era, year_of_era, day_of_year, month_index, day, month
    if <uint64_t>time.secs > LAST_SECOND:
        raise OverflowError(f"{time.secs} seconds since 1970 are after the year 9999")
    days = time.secs // 86400
    rest = <uint32_t>(time.secs % 86400)
    # Days to year, month, day: https://howardhinnant.github.io/date_algorithms.html
    days += 719468
    era = days // 146097
    day_of_era = <uint32_t>(days - era * 146097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_index = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_index + 2) // 5 + 1
    month = month_index + 3 if month_index < 10 else month_index - 9
    year = <int64_t>year_of_era + era * 400 + (1 if month <= 2 else 0)
    return datetime_new(
        <int>year, <int>month, <int>day,
        <int>(rest // 3600), <int>(rest // 60 % 60), <int>(rest % 60),
        <int>(time.nanos // 1000), UTC,
    )


cdef object build_time_ns(const Time* time):
    """Return the exact nanoseconds since 1970."""
    if <uint64_t>time.secs < <uint64_t>18446744072:
        return <uint64_t>time.secs * 1_000_000_000 + time.nanos
    return <object>time.secs * 1_000_000_000 + time.nanos


cdef object build_value(Cursor* cur):
    """Return the JSON value at the cursor, which has passed the check, and move past it.

    Recurses; the check has bounded the depth. What JSON cannot say, NaN and the infinities,
    becomes None, as ``serde_json`` has it; of a key given twice the last value stays.
    """
    cdef uint8_t first = cur.pos[0]
    cdef const uint8_t* data = NULL
    cdef size_t size = 0
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef uint32_t narrow
    cdef uint64_t bits = 0
    cdef bint negative = False
    cdef float single
    cdef double number
    cdef list items
    cdef dict entries
    if first == 0xC0:
        cur.pos += 1
        return None
    if first & 0xFE == 0xC2:
        cur.pos += 1
        return first == 0xC3
    if first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
        take_str(cur, &data, &size)
        return owned(build_str(data, size))
    if first & 0xF0 == 0x90 or first == 0xDC or first == 0xDD:
        take_array(cur, &count)
        items = PyList_New(count)
        for i in range(count):
            item = build_value(cur)
            Py_INCREF(item)
            PyList_SET_ITEM(items, i, item)
        return items
    if first & 0xF0 == 0x80 or first >= 0xDE and first < 0xE0:
        take_map(cur, &count)
        entries = PyDict_New()
        for i in range(count):
            take_text(cur, &data, &size)
            key = owned(build_str(data, size))
            PyDict_SetItem(entries, key, build_value(cur))
        return entries
    if first == 0xCA:
        narrow = load_be32(cur.pos + 1)
        memcpy(&single, &narrow, 4)
        cur.pos += 5
        return <double>single if isfinite(single) else None
    if first == 0xCB:
        bits = load_be64(cur.pos + 1)
        memcpy(&number, &bits, 8)
        cur.pos += 9
        return number if isfinite(number) else None
    take_int(cur, &negative, &bits)
    return owned(build_i64(<int64_t>bits) if negative else build_u64(bits))

