"""The one place that raises for broken bytes: codes to ProtocolError, with offset and path."""

from libc.stdint cimport uint32_t

from ..errors import ProtocolError

from .layout cimport Record, owned
from .wire cimport (
    ERR_COUNT, ERR_DEPTH, ERR_DUPLICATE, ERR_EXTRA, ERR_KEY, ERR_MISSING, ERR_NO_TAG, ERR_PYTHON,
    ERR_RANGE, ERR_TAG, ERR_TIME, ERR_TRAILING, ERR_TRUNCATED, ERR_TYPE, ERR_UTF8, ERR_UUID,
    ERR_WORD, MAX_DEPTH, MAX_VALUES, Cursor,
)


cdef object raise_broken(const Cursor* cur, const Record* root, int code):
    """Raise what a code stands for, with the offset and the path of the field."""
    cdef uint32_t i = cur.trail_len
    cdef str path = "" if root == NULL else (<bytes>root.label).decode()
    if code == ERR_PYTHON:
        # Set where it happened; returning NULL lets it through.
        return owned(NULL)
    while i:
        i -= 1
        if cur.trail[i].name == NULL:
            path += f"[{cur.trail[i].index}]"
        else:
            path += ("." if path else "") + (<bytes>cur.trail[i].name).decode()
    offset = cur.pos - cur.start
    words = _WORDS[code]
    raise ProtocolError(
        f"{path}: {words} at byte {offset}" if path else f"{words} at byte {offset}",
        offset=offset, path=path,
    )


cdef dict _WORDS = {
    ERR_TRUNCATED: "the bytes end before the value does",
    ERR_TYPE: "a value of the wrong type",
    ERR_RANGE: "a number out of range",
    ERR_UTF8: "a string that is not UTF-8",
    ERR_DEPTH: f"a value nested deeper than {MAX_DEPTH}",
    ERR_COUNT: f"a value of more than {MAX_VALUES} values",
    ERR_WORD: "a word that is none of the field's",
    ERR_UUID: "not a UUID",
    ERR_TIME: "not a point in time",
    ERR_KEY: "a key that is not a string",
    ERR_MISSING: "a required field is missing",
    ERR_EXTRA: "more fields than the type has",
    ERR_DUPLICATE: "a field given twice",
    ERR_TRAILING: "bytes after the message",
    ERR_NO_TAG: "a message without a type",
    ERR_TAG: "an unknown type of message",
}
