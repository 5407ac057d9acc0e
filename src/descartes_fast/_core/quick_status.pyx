"""The short way from a ``get_status`` request to its reply: no message is built on it.

Only a request that is exactly a plain one is seen here, in the form that every peer writes; all
others, broken ones too, are ``decode``'s. What is answered is what was said before, with another
request id; whoever says it takes it back before it is no longer true.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pythread cimport (
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memset

from .buffer cimport (
    Buffer,
    close_buffer,
    make_room,
    open_buffer,
    put_raw,
    put_str_header,
    size_of_buffer,
)
from .header cimport MAX_HEAD_TEXT
from .keyed cimport (
    clear_keyed,
    close_keyed,
    find_value,
    open_keyed,
    put_value,
    remove_key,
)
from .layout cimport Record, Words
from .scalars cimport take_uuid, take_word
from .scan cimport find_field, is_utf8
from .table cimport find_tag
from .wire cimport OK, Cursor, left_in, open_cursor, take_array, take_nil, take_str

from .enums import ControlCommandType

cdef enum:
    ROOM = 2048                 # on the stack, for a reply of the usual size
    REPLY_BUCKETS = 4096
    CLIENT_BUCKETS = 256

cdef Record* _control = find_tag(b"control_command", 15)
cdef Words* COMMANDS = _control.fields[find_field(_control, b"command_type", 12)].words
cdef uint32_t GET_STATUS = list(ControlCommandType).index(ControlCommandType.GET_STATUS)


cdef class QuickReplies:
    """The replies to plain ``get_status`` requests by the agent's id, without their request ids.

    At most ``limit`` of them, of some 700 bytes: one more, and it begins anew. Any thread may
    use it, also one without the GIL, and what one thread has taken back no other says any more.
    """

    def __cinit__(self, size_t limit=10_000):
        self.limit = limit
        self._lock = PyThread_allocate_lock()
        if (
            self._lock == NULL
            or open_keyed(&self._replies, REPLY_BUCKETS) < 0
            or open_keyed(&self._passed_over, CLIENT_BUCKETS) < 0
        ):
            raise MemoryError

    def __dealloc__(self):
        close_keyed(&self._replies)
        close_keyed(&self._passed_over)
        if self._lock != NULL:
            PyThread_free_lock(self._lock)

    def __len__(self):
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        cdef size_t count = self._replies.count
        PyThread_release_lock(self._lock)
        return count

    def tell(self, bytes agent_id not None, bytes reply not None, /):
        """Answer with ``reply``, a message with an empty request id, from now on.

        Raises ``ValueError`` for a reply that has a request id already, or is no message in array
        form.
        """
        cdef Cursor cur
        cdef int code
        open_cursor(&cur, bytes_of(reply), size_of(reply))
        if not find_request_id(&cur) or cur.pos[0] != 0xA0:
            raise ValueError("no reply without a request id")
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        if self._replies.count >= self.limit:
            clear_keyed(&self._replies)
        code = put_value(
            &self._replies, bytes_of(agent_id), size_of(agent_id), bytes_of(reply), size_of(reply)
        )
        PyThread_release_lock(self._lock)
        if code < 0:
            raise MemoryError

    def take_back(self, bytes agent_id not None, /):
        """Answer nothing about an agent any more, until it is told anew."""
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        remove_key(&self._replies, bytes_of(agent_id), size_of(agent_id))
        PyThread_release_lock(self._lock)

    def pass_over(self, bytes client not None, /):
        """Let a client's requests wait for their turn, as other replies to it do."""
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        cdef int code = put_value(
            &self._passed_over, bytes_of(client), size_of(client), bytes_of(client), 0
        )
        PyThread_release_lock(self._lock)
        if code < 0:
            raise MemoryError

    def take_up(self, bytes client not None, /):
        """Nothing waits for a client any more."""
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        remove_key(&self._passed_over, bytes_of(client), size_of(client))
        PyThread_release_lock(self._lock)

    def reply_to(self, bytes request not None, /):
        """Return the reply to a request; None for one that is not plain, or of nothing told."""
        cdef Question asked
        cdef Buffer out
        cdef uint8_t room[ROOM]
        if not read_question(bytes_of(request), size_of(request), &asked):
            return None
        open_buffer(&out, room, ROOM)
        try:
            if not self.answer(NULL, 0, &asked, &out):
                return None
            return PyBytes_FromStringAndSize(<const char*>out.start, size_of_buffer(&out))
        finally:
            close_buffer(&out)

    def take_counts(self):
        """Return what was answered without the GIL since the last time, and forget it.

        Requests and their bytes, replies sent and their bytes, replies dropped because their
        client had gone. They are counted before they are sent: what turns out not to have been is
        less than nothing the next time.
        """
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        cdef Counts counts = self._counts
        memset(&self._counts, 0, sizeof(Counts))
        PyThread_release_lock(self._lock)
        return (
            counts.requests, counts.request_bytes, counts.replies, counts.reply_bytes,
            counts.dropped,
        )

    cdef bint answer(
        self, const uint8_t* client, size_t client_size, const Question* asked, Buffer* out
    ) noexcept nogil:
        """Write the reply to a question. Returns whether there is one for this client."""
        cdef const uint8_t* reply
        cdef size_t size = 0
        cdef bint written = False
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        if not (
            client_size
            and self._passed_over.count
            and find_value(&self._passed_over, client, client_size, &size) != NULL
        ):
            reply = find_value(&self._replies, asked.agent_id, 16, &size)
            written = reply != NULL and put_answer(out, reply, size, asked) == 0
        PyThread_release_lock(self._lock)
        return written

    cdef void count(self, Counts* more) noexcept nogil:
        """Add to what :meth:`take_counts` tells."""
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        self._counts.requests += more.requests
        self._counts.request_bytes += more.request_bytes
        self._counts.replies += more.replies
        self._counts.reply_bytes += more.reply_bytes
        self._counts.dropped += more.dropped
        PyThread_release_lock(self._lock)


def asked_agent(bytes body not None, /):
    """Return the 16 bytes of the agent's id if ``body`` is a plain ``get_status``, else None."""
    cdef Question asked
    if not read_question(bytes_of(body), size_of(body), &asked):
        return None
    return PyBytes_FromStringAndSize(<const char*>asked.agent_id, 16)


cdef bint read_question(const uint8_t* data, size_t size, Question* out) noexcept nogil:
    """Read a request. Returns whether it is a plain ``get_status``.

    Plain: an array of five, no payload, nothing behind it, and a request id of at most 1,024
    bytes.
    """
    cdef Cursor cur
    cdef uint32_t count, word
    cdef const uint8_t* tag
    cdef size_t tag_size
    open_cursor(&cur, data, size)
    if take_array(&cur, &count) != OK or count != 5:
        return False
    if take_str(&cur, &tag, &tag_size) != OK or tag_size != 15:
        return False
    if memcmp(tag, b"control_command", 15) != 0:
        return False
    if take_str(&cur, &out.request_id, &out.request_id_size) != OK:
        return False
    if out.request_id_size > MAX_HEAD_TEXT or not is_utf8(out.request_id, out.request_id_size):
        return False
    if take_uuid(&cur, out.agent_id) != OK:
        return False
    if take_word(&cur, COMMANDS, &word) != OK or word != GET_STATUS:
        return False
    return take_nil(&cur) and cur.pos == cur.end


cdef int put_answer(
    Buffer* out, const uint8_t* reply, size_t size, const Question* asked
) noexcept nogil:
    """Write a reply with the question's request id. Returns -1 if memory is out.

    The id is in the shortest form, as all that we write, whatever form the request has.
    """
    cdef Cursor cur
    open_cursor(&cur, reply, size)
    if not find_request_id(&cur) or make_room(out, size + 5 + asked.request_id_size) < 0:
        return -1
    put_raw(out, reply, <size_t>(cur.pos - reply))
    put_str_header(out, asked.request_id_size)
    put_raw(out, asked.request_id, asked.request_id_size)
    put_raw(out, cur.pos + 1, left_in(&cur) - 1)
    return 0


cdef bint find_request_id(Cursor* cur) noexcept nogil:
    """Move to the field behind the tag. Returns whether there is one."""
    cdef uint32_t count
    cdef const uint8_t* tag
    cdef size_t size
    return (
        take_array(cur, &count) == OK
        and count > 1
        and take_str(cur, &tag, &size) == OK
        and cur.pos < cur.end
    )


cdef inline const uint8_t* bytes_of(bytes data) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(data)


cdef inline size_t size_of(bytes data) noexcept:
    return <size_t>PyBytes_GET_SIZE(data)
