"""A queue of messages that is iterated over: what ``async for`` costs while there are any.

A coroutine for each message would take longer than to receive and decode it. Here the next message
is asked for with a small object that answers at once if there is one, and only else hands over to
a coroutine of the subclass, which knows how to wait.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject

import types
import warnings
from collections import deque

from .layout cimport owned

cdef extern from *:
    """
    /* The two ways in which an interpreter asks an awaitable: 3.11 and asyncio's tasks by am_send,
       from 3.12 on ``await`` by tp_iternext, which has to bring its result as a StopIteration. */
    typedef int (*descartes_fast_send)(PyObject *, PyObject *, PyObject **);
    static descartes_fast_send descartes_fast_advance;

    static PyObject *descartes_fast_iternext(PyObject *self) {
        PyObject *result = NULL, *raised;
        int code = descartes_fast_advance(self, Py_None, &result);
        if (code != PYGEN_RETURN)
            return code == PYGEN_NEXT ? result : NULL;
        if (PyTuple_Check(result) || PyExceptionInstance_Check(result)) {
            /* As an argument of StopIteration it would be taken apart, or for the exception. */
            raised = PyObject_CallOneArg(PyExc_StopIteration, result);
            if (raised != NULL)
                PyErr_SetObject(PyExc_StopIteration, raised);
            Py_XDECREF(raised);
        } else {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_DECREF(result);
        return NULL;
    }

    static void descartes_fast_answer_by(PyTypeObject *type, void *advance) {
        descartes_fast_advance = (descartes_fast_send)advance;
        type->tp_as_async->am_send = (sendfunc)advance;
        type->tp_iternext = descartes_fast_iternext;
        PyType_Modified(type);
    }
    """
    int PYGEN_RETURN, PYGEN_NEXT
    void answer_by "descartes_fast_answer_by"(PyTypeObject* kind, void* advance) noexcept

cdef extern from "Python.h":
    int PyIter_Send(object iterator, object value, PyObject** result) except -1
    bint PyExceptionInstance_Check(object value)
    void Py_INCREF(object value)


cdef class Stream:
    """Entries that come and are taken in turn; an exception among them is raised at its place.

    A subclass has a coroutine method ``_wait``, which returns the next entry when there is none
    yet. ``on_taken`` is called with each entry that is taken.
    """

    cdef readonly object _entries
    cdef public bint _ended
    cdef public object _untaken
    cdef object _popleft
    cdef object _on_taken

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, on_taken=None):
        self._entries = deque()
        self._popleft = self._entries.popleft
        self._on_taken = on_taken

    def __aiter__(self):
        return self

    def __anext__(self):
        """Return the next message. Raises ``StopAsyncIteration`` at the end, and when closed."""
        cdef Next made = Next.__new__(Next)
        made._stream = self
        return made

    def _take(self):
        """Take the first entry, of which there must be one."""
        return take(self)


@cython.final
@cython.freelist(16)
cdef class Next:
    """The next entry of a stream, for one who awaits it: a coroutine in all that it does.

    An entry is taken when this is awaited, not before.
    """

    cdef Stream _stream     # until it is awaited
    cdef object _waiting    # the stream's coroutine, while that waits

    def __await__(self):
        if self._waiting is not None:
            raise RuntimeError("the next message is being awaited already")
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value, /):
        """Go on; raises ``StopIteration`` with the entry when it is there."""
        cdef PyObject* result = NULL
        cdef int code = advance(self, value, &result)
        answer = owned(result)
        if code == PYGEN_RETURN:
            raise StopIteration(answer)
        return answer

    def throw(self, *raised):
        """Raise an exception where the wait is, or instead of it."""
        waiting = begun(self)
        try:
            return waiting.throw(*raised)
        except BaseException:
            self._waiting = None
            raise

    def close(self):
        """Give the wait up; nothing is taken."""
        self._stream = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()

    def __dealloc__(self):
        if self._stream is not None:
            warn_unawaited()


cdef object take(Stream self):
    entry = self._popleft()
    if self._on_taken is not None:
        self._on_taken(entry)
    if PyExceptionInstance_Check(entry):
        if entry is self._untaken:
            self._untaken = None
        raise entry
    return entry


cdef int advance(Next self, object value, PyObject** result) except -1:
    """Give the entry (PYGEN_RETURN) or what the event loop is to wait for (PYGEN_NEXT)."""
    cdef Stream stream = self._stream
    cdef int code
    if stream is not None and stream._entries:
        self._stream = None
        entry = take(stream)
        Py_INCREF(entry)
        result[0] = <PyObject*>entry
        return PYGEN_RETURN
    waiting = begun(self)
    try:
        code = PyIter_Send(waiting, value, result)
    except BaseException:
        self._waiting = None
        raise
    if code == PYGEN_RETURN:
        self._waiting = None
    return code


cdef object begun(Next self):
    """Return the coroutine that waits, made if this is not awaited yet."""
    cdef Stream stream = self._stream
    if stream is not None:
        self._stream = None
        self._waiting = stream._wait()
    if self._waiting is None:
        raise RuntimeError("the next message was awaited already")
    return self._waiting


cdef int warn_unawaited() except -1:
    warnings.warn("the next message of a subscription was never awaited", RuntimeWarning)
    return 0


answer_by(<PyTypeObject*>Next, <void*>advance)
