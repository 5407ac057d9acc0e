"""Ids of agents: new ones, their text, and back; several times as fast as the ``uuid`` module.

A server writes the text of each agent's id for paths, topics, variables and its keeper, and reads
it in all that the keeper says.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from .build cimport build_uuid, is_uuid, uuid_bytes
from .scalars cimport parse_uuid

from os import urandom

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 highest)
    void* PyUnicode_DATA(object text) noexcept

cdef const uint8_t* DIGITS = b"0123456789abcdef"


def new_id():
    """Return a random ``uuid.UUID`` (RFC 9562, version 4)."""
    cdef uint8_t raw[16]
    cdef bytes random = urandom(16)
    memcpy(raw, PyBytes_AS_STRING(random), 16)
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return build_uuid(raw)


def id_text(uuid, /):
    """Return what ``str`` does of a ``uuid.UUID``.

    Raises ``TypeError`` for anything else, and ``ValueError`` for one without its number.
    """
    cdef uint8_t raw[16]
    cdef uint8_t* out
    cdef str text
    cdef int i
    if not is_uuid(uuid):
        raise TypeError(f"an id is a UUID, not {type(uuid).__name__}")
    if not uuid_bytes(uuid, raw):
        raise ValueError("an id is a uuid.UUID without its number")
    text = PyUnicode_New(36, 127)
    out = <uint8_t*>PyUnicode_DATA(text)
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            out[0] = c"-"
            out += 1
        out[0] = DIGITS[raw[i] >> 4]
        out[1] = DIGITS[raw[i] & 15]
        out += 2
    return text


def id_of(str text not None, /):
    """Return the ``uuid.UUID`` of a text, in a form that the wire takes. Raises ``ValueError``."""
    cdef uint8_t raw[16]
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    if not parse_uuid(<const uint8_t*>data, <size_t>size, raw):
        raise ValueError(f"{text[:80]!r} is not an id")
    return build_uuid(raw)
