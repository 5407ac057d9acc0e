"""A message in memory, and the tables that describe it.

A message is one allocation: a head, one object slot for each field in wire order, then the
unbuilt forms of the fields whose object is made only when somebody reads it. Such a field's
slot is NULL until then. A message never changes after it was made, but for those slots.
"""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum Kind:
    TEXT
    BOOLEAN
    U64
    I64
    WORD
    UUID
    TIME
    OCTETS
    NESTED
    # From here on: kept as a checked slice of the wire.
    VALUE
    TEXT_MAP
    VALUE_MAP
    TEXT_LIST
    UUID_LIST
    NESTED_LIST
    LONG_TEXT               # text in a message that is too wide to build it at once

cdef enum:
    MAX_FIELDS = 16
    NO_TIME = 0x7FFFFFFF    # `nanos` of an optional time that is absent
    ABSENT = 0x7FFFFFFF     # `size` of a slice that stands for None
    CANONICAL = 0x40000000  # flag in `size`: the bytes are what we would write

cdef struct Word:
    PyObject* member
    uint64_t head           # see `load_ends`
    uint64_t tail
    const uint8_t* wire     # with its header, as written
    uint32_t wire_size

cdef struct Words:
    PyObject* kind
    uint32_t count
    Word words[16]

cdef struct Record

cdef struct Field:
    Kind kind
    bint optional
    bint required
    bint repeats            # short texts of it are shared
    uint32_t index          # of the slot, and of the field in wire order
    uint32_t raw            # offset of the unbuilt form in the object; of a word: in `words`
    uint32_t name_size
    const char* name
    PyObject* py_name
    PyObject* default       # what an absent field's slot holds, or NULL
    Words* words
    Record* record

cdef struct Record:
    const char* name
    const char* label       # what the path to a broken field begins with
    const uint8_t* tag      # with its header, as written; NULL for what is never an envelope
    uint32_t tag_size
    uint32_t count
    uint32_t required       # an array shorter than this lacks a required field
    bint trimmed
    uint32_t slices         # how many, from offset `slices_at`
    uint32_t slices_at
    Py_ssize_t size
    PyTypeObject* type
    Record* roomy           # the same with LONG_TEXT for TEXT; of a roomy one: NULL
    Record* base            # of a roomy one the plain one, else itself
    Field fields[MAX_FIELDS]

cdef struct Slice:
    PyObject* owner         # a bytes object, or NULL for None
    uint32_t offset
    uint32_t size

cdef struct Time:
    int64_t secs
    uint32_t nanos

cdef extern from *:
    """
    #ifndef DESCARTES_FAST_LAYOUT
    #define DESCARTES_FAST_LAYOUT
    #include <stddef.h>
    #include <stdint.h>
    typedef struct {
        PyObject_HEAD
        void *record;
        uint8_t words[8];
        PyObject *slots[1];
    } descartes_fast_message;

    /* A lazily built object is published once; the loser of a race drops its own. */
    #if defined(Py_GIL_DISABLED) && defined(_MSC_VER)
    #include <intrin.h>
    #define descartes_fast_load(p) (*(PyObject *volatile *)(p))
    #define descartes_fast_publish(p, v) \
        (_InterlockedCompareExchangePointer((void *volatile *)(p), (v), NULL) == NULL)
    #elif defined(Py_GIL_DISABLED)
    #define descartes_fast_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    static inline int descartes_fast_publish(PyObject **p, PyObject *v) {
        PyObject *none = NULL;
        return __atomic_compare_exchange_n(p, &none, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    #else
    #define descartes_fast_load(p) (*(p))
    #define descartes_fast_publish(p, v) (*(p) == NULL ? (*(p) = (v), 1) : 0)
    #endif

    #define descartes_fast_owned(p) (p)

    #ifdef Py_GIL_DISABLED
    #define DESCARTES_FAST_HAVE_GIL 0
    #else
    #define DESCARTES_FAST_HAVE_GIL 1
    #endif
    #endif
    """
    ctypedef struct Message "descartes_fast_message":
        void* record
        uint8_t words[8]
        PyObject* slots[1]

    PyObject* load_slot "descartes_fast_load"(PyObject** slot) noexcept
    bint publish_slot "descartes_fast_publish"(PyObject** slot, PyObject* value) noexcept

    bint HAVE_GIL "DESCARTES_FAST_HAVE_GIL"
    uint32_t SLOTS_AT "offsetof(descartes_fast_message, slots)"

    # A new reference as an object; NULL, with an exception set, raises it.
    object owned "descartes_fast_owned"(PyObject* reference)


cdef extern from "Python.h":
    PyObject* PyObject_Init(PyObject*, PyTypeObject*) noexcept
    void* PyObject_Calloc(size_t, size_t) noexcept
    void PyObject_Free(void*) noexcept
    PyObject* PyErr_NoMemory() noexcept
    void Py_IncRef "Py_INCREF"(PyObject*) noexcept
    void Py_DecRef "Py_DECREF"(PyObject*) noexcept
    void Py_XDecRef "Py_XDECREF"(PyObject*) noexcept
    PyTypeObject* type_of "Py_TYPE"(PyObject*) noexcept


cdef inline Message* new_message(Record* record) noexcept:
    """Return a message with every slot empty, or NULL with MemoryError set."""
    cdef Message* made = <Message*>PyObject_Calloc(1, record.size)
    if made == NULL:
        PyErr_NoMemory()
        return NULL
    PyObject_Init(<PyObject*>made, record.type)
    made.record = record
    return made


cdef inline Record* record_of(const Message* message) noexcept nogil:
    return <Record*>message.record


cdef inline uint8_t* uuid_of(const Message* message, const Field* field) noexcept nogil:
    return <uint8_t*>message + field.raw


cdef inline Time* time_of(const Message* message, const Field* field) noexcept nogil:
    return <Time*>(<uint8_t*>message + field.raw)


cdef inline Slice* slice_of(const Message* message, const Field* field) noexcept nogil:
    return <Slice*>(<uint8_t*>message + field.raw)


cdef inline bint is_of(PyObject* value, const Record* record) noexcept:
    """Whether an object is a message of this record, plain or roomy."""
    return type_of(value) == record.base.type or type_of(value) == record.base.roomy.type


cdef inline bint is_slice(const Field* field) noexcept nogil:
    return field.kind >= VALUE
