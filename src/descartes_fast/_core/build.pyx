"""Python objects from bytes that were checked before: strings, numbers, ids, times, values."""

from cpython.datetime cimport datetime_new, import_datetime
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import uuid
from datetime import timezone

from .layout cimport HAVE_GIL, Py_DecRef, Py_IncRef, Py_XDecRef, Time, owned
from .scan cimport is_ascii
from .wire cimport (
    Cursor, load_be32, load_be64, load_ends, take_array, take_int, take_map, take_str, take_text,
)

import_datetime()

cdef extern from *:
    """
    #include "structmember.h"
    /* A dict has room for five entries before it must grow. */
    #define descartes_fast_new_dict(n) ((n) <= 5 ? PyDict_New() : _PyDict_NewPresized(n))
    #if PY_VERSION_HEX >= 0x030D0000
    #define descartes_fast_int128(p) \
        PyLong_FromUnsignedNativeBytes((p), 16, Py_ASNATIVEBYTES_BIG_ENDIAN)
    /* The bytes that the number needs, or -1; all sixteen are written. */
    static inline int descartes_fast_int128_bytes(PyObject *number, uint8_t *data) {
        Py_ssize_t size = PyLong_AsNativeBytes(
            number, data, 16,
            Py_ASNATIVEBYTES_BIG_ENDIAN | Py_ASNATIVEBYTES_UNSIGNED_BUFFER |
                Py_ASNATIVEBYTES_REJECT_NEGATIVE);
        return 0 <= size && size <= 16 ? 0 : -1;
    }
    #else
    #define descartes_fast_int128(p) _PyLong_FromByteArray((p), 16, 0, 0)
    #define descartes_fast_int128_bytes(n, p) \
        _PyLong_AsByteArray((PyLongObject *)(n), (p), 16, 0, 0)
    #endif
    """
    object int128 "descartes_fast_int128"(const uint8_t* data)
    int int128_bytes "descartes_fast_int128_bytes"(PyObject* number, uint8_t* data) noexcept
    PyObject* new_dict "descartes_fast_new_dict"(Py_ssize_t count) noexcept

cdef extern from "Python.h":
    PyObject* PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar) noexcept
    PyObject* PyUnicode_FromOrdinal(int ordinal) noexcept
    void* PyUnicode_DATA(PyObject* text) noexcept
    PyObject* PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors) noexcept
    bint PyUnicode_IS_ASCII(PyObject* text) noexcept
    bint PyLong_Check(PyObject* number) noexcept
    void PyErr_Clear() noexcept
    PyObject* PyFloat_FromDouble(double value) noexcept
    PyObject* PyList_New(Py_ssize_t size) noexcept
    void PyList_SET_ITEM(PyObject* items, Py_ssize_t index, PyObject* item) noexcept
    int PyDict_SetItem(PyObject* entries, PyObject* key, PyObject* value) noexcept
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
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

cdef enum:
    KEPT_TEXTS = 512    # 2^9: nine bits of a hash choose the place
    KEPT_IDS = 4096     # 2^12, likewise

cdef struct KeptId:
    uint64_t head
    uint64_t tail
    PyObject* uuid

cdef struct KeptText:
    uint64_t head
    uint64_t tail
    size_t size         # 0: nothing kept here
    PyObject* text

cdef struct Day:
    uint32_t number     # since 1970
    int year
    int month
    int day

# What was made last, for when it comes again. Plain arrays that a later one overwrites, guarded
# by the GIL alone: without one nothing is kept. Values have their own, so that a message full
# of them does not push out the keys.
cdef KeptText _kept_keys[KEPT_TEXTS]
cdef KeptText _kept_values[KEPT_TEXTS]
cdef KeptId _kept_ids[KEPT_IDS]
cdef Day _kept_day = Day(0, 1970, 1, 1)

cdef uint64_t LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that datetime knows


cdef Py_ssize_t _slot_offset(str name):
    descriptor = UUID_TYPE.__dict__.get(name)
    if descriptor is None or Py_TYPE(descriptor) != &PyMemberDescr_Type:
        return 0
    return (<PyMemberDescrObject*><PyObject*>descriptor).d_member.offset


cdef PyObject* build_str(const uint8_t* data, size_t size) noexcept:
    """Return a new str, or NULL with an exception set (UnicodeDecodeError, MemoryError)."""
    cdef PyObject* made
    if size == 1 and data[0] < 0x80:
        # One of those that the interpreter keeps: a list of them is no more than its pointers.
        return PyUnicode_FromOrdinal(data[0])
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
    """Return the ``uuid.UUID`` of 16 bytes.

    The ids of the same agents come again and again. Beside the time to make one, a reader's dict
    then finds a kept one by identity, where ``UUID.__eq__`` would be a call into Python.
    """
    cdef uint64_t head, tail
    cdef KeptId* kept
    cdef PyObject* old
    if not HAVE_GIL:
        return make_uuid(data)
    memcpy(&head, data, 8)
    memcpy(&tail, data + 8, 8)
    kept = &_kept_ids[((head ^ tail << 1) * <uint64_t>0x9E3779B97F4A7C15) >> 52]
    if kept.uuid != NULL and kept.head == head and kept.tail == tail:
        return <object>kept.uuid
    made = make_uuid(data)
    # The old object goes last: its end may run code that comes back here.
    old = kept.uuid
    kept.head = head
    kept.tail = tail
    kept.uuid = new_reference(<PyObject*>made)
    Py_XDecRef(old)
    return made


cdef object make_uuid(const uint8_t* data):
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


cdef object uuid_number(object uuid):
    """Return the ``int`` of a ``uuid.UUID``. Raises AttributeError if somebody took it away."""
    cdef PyObject* number = NULL
    if UUID_INT:
        number = (<PyObject**>(<char*><PyObject*>uuid + UUID_INT))[0]
    return uuid.int if number == NULL else <object>number


cdef bint uuid_bytes(object uuid, uint8_t* out) noexcept:
    """Write the 16 bytes of a ``uuid.UUID``; False for one that has no number, or a wrong one.

    What a subclass has made of its properties is not asked.
    """
    cdef PyObject* number
    if UUID_INT:
        number = (<PyObject**>(<char*><PyObject*>uuid + UUID_INT))[0]
    else:
        try:
            held = uuid.int
        except Exception:
            return False
        number = <PyObject*>held
    if number != NULL and PyLong_Check(number) and int128_bytes(number, out) >= 0:
        return True
    PyErr_Clear()
    return False


cdef object build_time(const Time* time):
    """Return an aware ``datetime`` in UTC; digits below a microsecond are cut off.

    Raises OverflowError after the year 9999, where ``datetime`` ends.
    """
    cdef uint32_t days, rest
    cdef Day other
    cdef Day* day = &_kept_day
    if <uint64_t>time.secs > LAST_SECOND:
        raise OverflowError(f"{time.secs} seconds since 1970 are after the year 9999")
    days = <uint32_t>(<uint64_t>time.secs // 86400)
    rest = <uint32_t>(<uint64_t>time.secs % 86400)
    if not HAVE_GIL:
        day = &other
        set_day(day, days)
    elif day.number != days:
        set_day(day, days)
    return datetime_new(
        day.year, day.month, day.day,
        <int>(rest // 3600), <int>(rest // 60 % 60), <int>(rest % 60),
        <int>(time.nanos // 1000), UTC,
    )


cdef void set_day(Day* out, uint32_t number) noexcept:
    """Work out the date: https://howardhinnant.github.io/date_algorithms.html"""
    cdef uint32_t days = number + 719468
    cdef uint32_t era = days // 146097
    cdef uint32_t day_of_era = days - era * 146097
    cdef uint32_t year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    cdef uint32_t day_of_year = (
        day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    )
    cdef uint32_t month_index = (5 * day_of_year + 2) // 153
    out.number = number
    out.day = <int>(day_of_year - (153 * month_index + 2) // 5 + 1)
    out.month = <int>(month_index + 3 if month_index < 10 else month_index - 9)
    out.year = <int>(year_of_era + era * 400 + (1 if out.month <= 2 else 0))


cdef object build_time_ns(const Time* time):
    """Return the exact nanoseconds since 1970."""
    if <uint64_t>time.secs < <uint64_t>18446744072:
        return <uint64_t>time.secs * 1_000_000_000 + time.nanos
    return <object>time.secs * 1_000_000_000 + time.nanos


cdef object build_value(Cursor* cur):
    """Return the JSON value at the cursor, which has passed the check, and move past it."""
    return owned(build_any(cur))


cdef PyObject* build_any(Cursor* cur) noexcept:
    """Return the JSON value at the cursor as a new reference; NULL when memory is out.

    Recurses; the check has bounded the depth. What JSON cannot say, NaN and the infinities,
    becomes None, as ``serde_json`` has it.
    """
    cdef uint8_t first = cur.pos[0]
    cdef const uint8_t* data = NULL
    cdef size_t size = 0
    cdef uint64_t bits = 0
    cdef bint negative = False
    if first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
        take_str(cur, &data, &size)
        return build_str(data, size)
    if first < 0x80:
        cur.pos += 1
        return build_i64(first)
    if first == 0xC0 or first & 0xFE == 0xC2:
        cur.pos += 1
        return new_reference(Py_None if first == 0xC0 else Py_True if first & 1 else Py_False)
    if first & 0xF0 == 0x90 or first == 0xDC or first == 0xDD:
        return build_array(cur)
    if first & 0xF0 == 0x80 or first == 0xDE or first == 0xDF:
        return build_map(cur, True)
    if first == 0xCA or first == 0xCB:
        return build_float(cur)
    take_int(cur, &negative, &bits)
    return build_i64(<int64_t>bits) if negative else build_u64(bits)


cdef PyObject* build_array(Cursor* cur) noexcept:
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef PyObject* item
    cdef PyObject* items
    take_array(cur, &count)
    items = PyList_New(count)
    if items == NULL:
        return NULL
    for i in range(count):
        item = build_any(cur)
        if item == NULL:
            Py_DecRef(items)
            return NULL
        PyList_SET_ITEM(items, i, item)
    return items


cdef PyObject* build_map(Cursor* cur, bint values) noexcept:
    """Return the dict at the cursor, of JSON values or of strings. The last of equal keys stays."""
    cdef const uint8_t* data = NULL
    cdef size_t size = 0
    cdef uint32_t count = 0
    cdef uint32_t i
    cdef int failed
    cdef PyObject* key
    cdef PyObject* value
    cdef PyObject* entries
    take_map(cur, &count)
    entries = new_dict(count)
    if entries == NULL:
        return NULL
    for i in range(count):
        take_text(cur, &data, &size)
        key = build_kept_str(data, size)
        if key == NULL:
            value = NULL
        elif values and cur.pos[0] & 0xE0 != 0xA0:
            value = build_any(cur)
        else:
            # Short texts beside keys are mostly words: a mode, a level, a locale.
            take_text(cur, &data, &size)
            value = kept_text(_kept_values, data, size)
        failed = key == NULL or value == NULL or PyDict_SetItem(entries, key, value)
        Py_XDecRef(key)
        Py_XDecRef(value)
        if failed:
            Py_DecRef(entries)
            return NULL
    return entries


cdef PyObject* build_float(Cursor* cur) noexcept:
    cdef uint32_t narrow
    cdef uint64_t wide
    cdef float single
    cdef double number
    if cur.pos[0] == 0xCA:
        narrow = load_be32(cur.pos + 1)
        memcpy(&single, &narrow, 4)
        number = single
        cur.pos += 5
    else:
        wide = load_be64(cur.pos + 1)
        memcpy(&number, &wide, 8)
        cur.pos += 9
    return PyFloat_FromDouble(number) if isfinite(number) else new_reference(Py_None)


cdef inline PyObject* new_reference(PyObject* value) noexcept:
    Py_IncRef(value)
    return value


cdef PyObject* build_kept_str(const uint8_t* data, size_t size) noexcept:
    """Return a str of which there are few: a map's key, a backend. Short ones are kept.

    A kept str also has its hash.
    """
    return kept_text(_kept_keys, data, size)


cdef inline PyObject* kept_text(KeptText* texts, const uint8_t* data, size_t size) noexcept:
    cdef uint64_t head, tail
    cdef KeptText* kept
    cdef PyObject* made
    if not HAVE_GIL or size == 0 or size > 16:
        return build_str(data, size)
    load_ends(data, size, &head, &tail)
    kept = &texts[((head ^ tail << 1 ^ size) * <uint64_t>0x9E3779B97F4A7C15) >> 55]
    if kept.size == size and kept.head == head and kept.tail == tail:
        return new_reference(kept.text)
    made = build_str(data, size)
    if made != NULL and PyUnicode_IS_ASCII(made):
        Py_XDecRef(kept.text)
        kept.text = new_reference(made)
        kept.head = head
        kept.tail = tail
        kept.size = size
    return made
