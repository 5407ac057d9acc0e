"""The classes of the messages, made from the table at import.

They are heap types whose plain fields are slot members, so the interpreter reads them as fast
as ``__slots__``; ids, times, values, maps and lists are built by a getter when first read.
"""

from cpython.object cimport Py_EQ, Py_NE, PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from ..errors import FieldError

from .buffer cimport Buffer, close_buffer, open_buffer, size_of_buffer
from .build cimport build_time, build_time_ns, build_uuid
from .construct cimport construct, replaced
from .decode cimport build_slice, decode_part
from .encode cimport encode_record
from .layout cimport (
    ABSENT, MAX_FIELDS, NO_TIME, SLOTS_AT, TIME, UUID, WORD, Field, Message, Py_DecRef, Py_IncRef,
    Py_XDecRef, PyObject_Free, Record, Slice, is_slice, load_slot, publish_slot, record_of,
    slice_of, time_of, uuid_of,
)
from .table cimport MAX_RECORDS, find_type, records, roomy_records, set_type

from . import schema

cdef extern from *:
    """
    #include <stddef.h>
    #include "structmember.h"
    #define descartes_fast_seal(t) \
        (((PyTypeObject *)(t))->tp_flags = \
             (((PyTypeObject *)(t))->tp_flags & ~Py_TPFLAGS_BASETYPE) | Py_TPFLAGS_IMMUTABLETYPE)
    #define descartes_fast_set_vectorcall(t, f) (((PyTypeObject *)(t))->tp_vectorcall = (f))
    """
    ctypedef struct PyMemberDef:
        const char* name
        int type
        Py_ssize_t offset
        int flags
        const char* doc
    ctypedef PyObject* (*getter)(PyObject*, void*)
    ctypedef int (*setter)(PyObject*, PyObject*, void*)
    ctypedef struct PyGetSetDef:
        const char* name
        getter get
        setter set
        const char* doc
        void* closure
    ctypedef PyObject* (*PyCFunction)(PyObject*, PyObject*)
    ctypedef struct PyMethodDef:
        const char* ml_name
        PyCFunction ml_meth
        int ml_flags
        const char* ml_doc
    ctypedef struct PyType_Slot:
        int slot
        void* pfunc
    ctypedef struct PyType_Spec:
        const char* name
        int basicsize
        int itemsize
        unsigned int flags
        PyType_Slot* slots
    int T_OBJECT_EX
    int READONLY
    int METH_NOARGS, METH_VARARGS, METH_KEYWORDS
    unsigned int Py_TPFLAGS_DEFAULT, Py_TPFLAGS_BASETYPE
    int Py_tp_new, Py_tp_dealloc, Py_tp_repr, Py_tp_richcompare, Py_tp_hash
    int Py_tp_members, Py_tp_getset, Py_tp_methods, Py_tp_doc
    object PyType_FromSpecWithBases(PyType_Spec* spec, PyObject* bases)
    void seal "descartes_fast_seal"(PyObject* kind)
    void* PyObject_HashNotImplemented
    PyTypeObject* Py_TYPE(PyObject*)
    object PyObject_VectorcallDict(
        PyObject* function, PyObject** args, size_t given, PyObject* kwargs
    )
    Py_ssize_t PyVectorcall_NARGS(size_t given)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* items)
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*)
    void set_vectorcall "descartes_fast_set_vectorcall"(PyObject* kind, vectorcallfunc function)

cdef list _kept = []    # C strings and tables that the types point into


cdef Message* as_message(object value) noexcept:
    """Return the message in an object, or NULL if it is none."""
    # The classes are final, and no other class has this function.
    if Py_TYPE(<PyObject*>value).tp_dealloc != message_dealloc:
        return NULL
    return <Message*><PyObject*>value


cdef object message_new(PyTypeObject* kind, PyObject* args, PyObject* kwargs):
    if <tuple>args:
        raise FieldError("a message takes keyword arguments only")
    # Back in `message_vectorcall`, which calling the class reaches without this detour.
    return PyObject_VectorcallDict(<PyObject*>kind, NULL, 0, kwargs)


cdef object message_vectorcall(
    PyObject* kind, PyObject* const* args, size_t given, PyObject* names
):
    cdef Record* record = find_type(<PyTypeObject*>kind)
    if PyVectorcall_NARGS(given):
        raise FieldError(f"{(<bytes>record.name).decode()} takes keyword arguments only")
    return construct(record, args, PyTuple_GET_SIZE(names) if names != NULL else 0, names)


cdef void message_dealloc(PyObject* self) noexcept:
    cdef Message* message = <Message*>self
    cdef Record* record = record_of(message)
    cdef PyTypeObject* kind = Py_TYPE(self)
    cdef Slice* slices = <Slice*>(<uint8_t*>message + record.slices_at)
    cdef uint32_t i
    for i in range(record.count):
        Py_XDecRef(message.slots[i])
    for i in range(record.slices):
        Py_XDecRef(slices[i].owner)
    PyObject_Free(self)
    Py_DecRef(<PyObject*>kind)


cdef object read_field(const Message* message, const Field* field):
    """Return a field's object, building it if this is the first to read it."""
    cdef PyObject** slot = <PyObject**>&message.slots[field.index]
    cdef PyObject* found = load_slot(slot)
    if found != NULL:
        return <object>found
    if field.kind == UUID:
        made = build_uuid(uuid_of(message, field))
    elif field.kind == TIME:
        made = build_time(time_of(message, field))
    else:
        made = build_slice(message, field)
    Py_IncRef(<PyObject*>made)
    if not publish_slot(slot, <PyObject*>made):
        # Another thread was first; everybody sees the same object.
        Py_DecRef(<PyObject*>made)
        return <object>load_slot(slot)
    return made


cdef object get_built(PyObject* self, void* closure):
    return read_field(<Message*>self, <Field*>closure)


cdef object get_nanoseconds(PyObject* self, void* closure):
    cdef Message* message = <Message*>self
    cdef Field* field = <Field*>closure
    if time_of(message, field).nanos == NO_TIME:
        return None
    return build_time_ns(time_of(message, field))


cdef object message_repr(PyObject* self):
    cdef Message* message = <Message*>self
    cdef Record* record = record_of(message)
    cdef Field* field
    cdef uint32_t i
    parts = []
    for i in range(record.count):
        field = &record.fields[i]
        try:
            value = repr(read_field(message, field))
        except OverflowError:
            value = repr(build_time_ns(time_of(message, field)))
        parts.append(f"{<object>field.py_name}={value}")
    return f"{(<bytes>record.name).decode()}({', '.join(parts)})"


cdef object message_richcompare(PyObject* self, PyObject* other, int op):
    cdef Message* left = <Message*>self
    cdef Message* right = as_message(<object>other)
    if (op != Py_EQ and op != Py_NE) or right == NULL:
        return NotImplemented
    if record_of(left).base != record_of(right).base:
        return NotImplemented
    return equal(left, right) == (op == Py_EQ)


cdef bint equal(const Message* left, const Message* right) except -1:
    cdef Record* ours = record_of(left)
    cdef Record* theirs = record_of(right)
    cdef uint32_t i
    for i in range(ours.count):
        if not equal_field(left, &ours.fields[i], right, &theirs.fields[i]):
            return False
    return True


cdef bint equal_field(
    const Message* left, const Field* ours, const Message* right, const Field* theirs
) except -1:
    cdef Slice* mine
    cdef Slice* other
    if ours.kind == UUID:
        return memcmp(uuid_of(left, ours), uuid_of(right, theirs), 16) == 0
    if ours.kind == TIME:
        return (
            time_of(left, ours).secs == time_of(right, theirs).secs
            and time_of(left, ours).nanos == time_of(right, theirs).nanos
        )
    if ours.kind == WORD:
        return left.words[ours.raw] == right.words[theirs.raw]
    if is_slice(ours) and is_slice(theirs):
        mine = slice_of(left, ours)
        other = slice_of(right, theirs)
        if mine.size == ABSENT and other.size == ABSENT:
            return True
    return stored(left, ours) == stored(right, theirs)


cdef object stored(const Message* message, const Field* field):
    """Return a field's object as the message has it: what somebody read may be changed since."""
    if is_slice(field):
        return build_slice(message, field)
    return <object>message.slots[field.index]


cdef object message_replace(PyObject* self, PyObject* args, PyObject* kwargs):
    if <tuple>args:
        raise FieldError("replacing takes keyword arguments only")
    return replaced(<Message*>self, <dict>kwargs if kwargs != NULL else {})


cdef object message_reduce(PyObject* self, PyObject* unused):
    """Pickle by the wire form, which is shorter than the fields and just as exact."""
    cdef uint8_t room[1024]
    cdef Buffer out
    open_buffer(&out, room, sizeof(room))
    try:
        encode_record(&out, <Message*>self)
        data = (<const char*>out.start)[:size_of_buffer(&out)]
    finally:
        close_buffer(&out)
    return restore, (<object>record_of(<Message*>self).base.type, data)


def restore(kind, bytes data not None):
    """Return the message that was pickled as ``data``."""
    cdef Record* record
    if not isinstance(kind, type) or find_type(<PyTypeObject*>kind) == NULL:
        raise TypeError(f"{kind!r} is no class of messages")
    record = find_type(<PyTypeObject*>kind)
    return decode_part(<const uint8_t*><const char*>data, len(data), <PyObject*>data, record)


def replace(message, /, **changes):
    """Return a copy of ``message`` in which the named fields differ.

    Raises FieldError for a field that does not exist or a value that it cannot hold.
    """
    cdef Message* found = as_message(message)
    if found == NULL:
        raise FieldError(f"expected a message, not {type(message).__name__}")
    return replaced(found, changes)


# Descriptors point into these for as long as the types live.
cdef PyMethodDef[3] _METHODS
cdef PyGetSetDef[2 * MAX_RECORDS][2 * MAX_FIELDS + 1] _GETSETS


cdef const char* _text(str text) except NULL:
    data = text.encode()
    _kept.append(data)
    return <const char*><bytes>data


cdef object _make_type(Record* record, object declared, object base):
    """Return the class of one record; a roomy one's is derived from the plain one's."""
    cdef PyMemberDef[17] members
    cdef PyType_Slot[10] slots
    cdef PyType_Spec spec
    cdef Field* field
    cdef uint32_t i
    cdef PyGetSetDef* getsets
    cdef int member_count = 0
    cdef int getset_count = 0
    if base is None:
        getsets = &_GETSETS[record - &records[0]][0]
    else:
        getsets = &_GETSETS[MAX_RECORDS + (record - &roomy_records[0])][0]
    for i in range(record.count):
        field = &record.fields[i]
        if is_slice(field) or field.kind == UUID or field.kind == TIME:
            getsets[getset_count].name = field.name
            getsets[getset_count].get = <getter>get_built
            getsets[getset_count].set = NULL
            getsets[getset_count].doc = NULL
            getsets[getset_count].closure = field
            getset_count += 1
        elif base is None:
            members[member_count].name = field.name
            members[member_count].type = T_OBJECT_EX
            members[member_count].offset = SLOTS_AT + field.index * sizeof(PyObject*)
            members[member_count].flags = READONLY
            members[member_count].doc = NULL
            member_count += 1
        if field.kind == TIME:
            getsets[getset_count].name = _text(f"{<object>field.py_name}_ns")
            getsets[getset_count].get = <getter>get_nanoseconds
            getsets[getset_count].set = NULL
            getsets[getset_count].doc = NULL
            getsets[getset_count].closure = field
            getset_count += 1
    members[member_count].name = NULL
    getsets[getset_count].name = NULL
    slots[0].slot, slots[0].pfunc = Py_tp_new, <void*>message_new
    slots[1].slot, slots[1].pfunc = Py_tp_dealloc, <void*>message_dealloc
    slots[2].slot, slots[2].pfunc = Py_tp_repr, <void*>message_repr
    slots[3].slot, slots[3].pfunc = Py_tp_richcompare, <void*>message_richcompare
    slots[4].slot, slots[4].pfunc = Py_tp_hash, <void*>PyObject_HashNotImplemented
    slots[5].slot, slots[5].pfunc = Py_tp_members, <void*>members
    slots[6].slot, slots[6].pfunc = Py_tp_getset, <void*>getsets
    slots[7].slot, slots[7].pfunc = Py_tp_methods, <void*>_METHODS
    slots[8].slot, slots[8].pfunc = Py_tp_doc, <void*>_text(_document(declared))
    slots[9].slot, slots[9].pfunc = 0, NULL
    spec.name = _text(f"descartes_fast.{declared.name}")
    spec.basicsize = <int>record.size
    spec.itemsize = 0
    # Derived from once, and then sealed.
    spec.flags = Py_TPFLAGS_DEFAULT | (Py_TPFLAGS_BASETYPE if base is None else 0)
    spec.slots = slots
    made = PyType_FromSpecWithBases(&spec, <PyObject*>base if base is not None else NULL)
    made.__match_args__ = tuple(entry.name for entry in declared.fields)
    Py_IncRef(<PyObject*>made)
    set_vectorcall(<PyObject*>made, <vectorcallfunc>message_vectorcall)
    set_type(record, <PyTypeObject*><PyObject*>made)
    return made


cdef str _document(object declared):
    """Return a docstring that begins with the signature in the form that ``inspect`` reads."""
    words = []
    for entry in declared.fields:
        if entry.kind == "time" or entry.optional:
            words.append(f"{entry.name}=None")
        elif entry.required:
            words.append(entry.name)
        else:
            words.append(f"{entry.name}={entry.default!r}")
    return f"{declared.name}(*, {', '.join(words)})\n--\n\n{declared.doc}"


def _make_types():
    cdef uint32_t i
    _METHODS[0].ml_name = b"__reduce__"
    _METHODS[0].ml_meth = <PyCFunction>message_reduce
    _METHODS[0].ml_flags = METH_NOARGS
    _METHODS[0].ml_doc = NULL
    _METHODS[1].ml_name = b"__replace__"
    _METHODS[1].ml_meth = <PyCFunction><void*>message_replace
    _METHODS[1].ml_flags = METH_VARARGS | METH_KEYWORDS
    _METHODS[1].ml_doc = b"__replace__($self, /, **changes)\n--\n\nReturn a changed copy."
    _METHODS[2].ml_name = NULL
    types = {}
    for i, declared in enumerate(schema.RECORDS):
        made = _make_type(&records[i], declared, None)
        roomy = _make_type(&roomy_records[i], declared, made)
        # Final, so that `as_message` can tell by the class alone. Immutable, so that no message
        # is given another class, whose fields are elsewhere.
        seal(<PyObject*>made)
        seal(<PyObject*>roomy)
        types[declared.name] = made
    return types


TYPES = _make_types()
