"""A ROUTER read by a thread without the GIL, which answers at once what needs no Python.

The event loop may be busy, or wait for its share of the CPU: a plain ``get_status`` of which
``QuickReplies`` knows the answer does not wait for it. All other messages go to the loop through
a bounded ring; when that is full nothing is received, and libzmq holds the clients back.

Both threads use the socket, each with the lock, which is a full barrier (``zmq_socket(3)``).
The socket's descriptor is edge-triggered in effect, and whatever one thread does with the
socket may take the news away that the other waits for. So nobody gives the lock back before
libzmq has said that there is nothing to receive, or the thread knows that it must look again.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.errno cimport EAGAIN, EHOSTUNREACH, EINTR, ENOTSOCK
from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.unistd cimport read, write

from .buffer cimport Buffer, close_buffer, open_buffer, size_of_buffer
from .frames cimport (
    EVENT_IN,
    EVENT_OUT,
    NOBLOCK,
    SNDMORE,
    Message,
    check_open,
    handle_of,
    last_errno,
    msg_close,
    msg_data,
    msg_init,
    msg_more,
    msg_recv,
    msg_size,
    read_events,
    send_bytes,
    send_frames,
    send_message,
    send_remaining,
)
from .quick_status cimport Counts, Question, QuickReplies, read_question

import atexit
import os
import signal
import threading

import zmq

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents

    int poll(pollfd* fds, unsigned long count, int timeout_ms)
    short POLLIN
    short POLLNVAL

cdef enum:
    RING = 1024             # frames; three for most messages
    MOST_FRAMES = 17        # of a message are kept: one more than a request may have
    MOST_ENVELOPE = 4096    # bytes that a reply repeats, as envelope.py has it
    MOST_BYTES = 8 * 1024 * 1024    # wait for the loop, and one message on top
    THREAD_BATCH = 64       # messages until the loop may have the socket
    LOOP_BATCH = 16         # messages that the loop takes in by the way, after it has sent
    ROOM = 2048             # on the stack, for a reply of the usual size

cdef enum Outcome:
    DRAINED     # libzmq has no more: the descriptor will tell
    MORE        # there may be more
    FULL        # the loop has to take something first
    BROKEN      # the socket is of no more use; the errno is kept

cdef enum Sending:
    SENT
    WOULD_WAIT
    GONE


cdef class Front:
    """The frames of a ROUTER, for the event loop: the interface of ``Frames``.

    ``fd`` is readable when there are messages for the loop. A wake-up that was missed (none should
    be) costs ``safety_ms`` and not for ever. The thread runs from the start until
    :meth:`close`, which comes before the socket is closed; no other use may be made of the socket
    until then. All methods are for one thread, the loop's. Raises ``OSError`` or ``RuntimeError``
    where there are no more descriptors or threads.
    """

    cdef object __weakref__
    cdef void* _handle
    cdef object _socket
    cdef QuickReplies _replies
    cdef object _thread
    cdef int _socket_fd
    cdef int _safety_ms
    cdef list _fds
    cdef int _kick_in, _kick_out        # for the thread
    cdef int _news_in, _news_out        # for the loop
    cdef PyThread_type_lock _in_use     # around every use of the socket
    cdef PyThread_type_lock _turn       # held by a loop that waits for the socket
    cdef PyThread_type_lock _lock       # around what follows, for a moment
    cdef size_t _first, _behind         # frames taken out of the ring and put in, ever
    cdef size_t _bytes
    cdef bint _told                     # the loop: there is something to read from _news_in
    cdef bint _held_back                # the thread waits for room
    cdef bint _stopping
    cdef bint _receiving                # the loop reads the ring, and may be led to close()
    cdef int _error
    cdef uint8_t _counts[RING]          # of frames, where a message begins
    cdef Message _ring[RING]

    def __cinit__(self):
        self._in_use = PyThread_allocate_lock()
        self._turn = PyThread_allocate_lock()
        self._lock = PyThread_allocate_lock()
        if self._in_use == NULL or self._turn == NULL or self._lock == NULL:
            raise MemoryError

    def __init__(self, socket, QuickReplies replies not None, *, int safety_ms=1000):
        self._handle = handle_of(socket)
        self._socket = socket
        self._replies = replies
        self._socket_fd = socket.getsockopt(zmq.FD)
        self._safety_ms = safety_ms
        self._fds = []
        try:
            self._kick_in, self._kick_out = self._open_signal()
            self._news_in, self._news_out = self._open_signal()
            self._thread = threading.Thread(
                target=self._run, name="descartes-fast-front", daemon=True
            )
            self._thread.start()
        except BaseException:
            self._thread = None
            self._close_fds()
            raise
        # Not joined by threading's own end, which would wait for a server that nobody closed.
        atexit.register(self._stop)

    def __dealloc__(self):
        free_lock(self._in_use)
        free_lock(self._turn)
        free_lock(self._lock)

    @property
    def fd(self):
        """What becomes readable when there are messages."""
        return self._news_in

    def events(self):
        """Return ``POLLOUT``, and ``POLLIN`` if there are messages.

        A ROUTER never says of a client whether it takes more. Raises ``zmq.ZMQError`` if the
        socket is broken and everything that came before is taken.
        """
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        cdef bint has_some = self._first != self._behind
        cdef int error = self._error
        if not has_some:
            self.hush()
        PyThread_release_lock(self._lock)
        if error and not has_some:
            raise zmq.ZMQError(error)
        return EVENT_OUT | EVENT_IN if has_some else EVENT_OUT

    def receive(self, Py_ssize_t limit):
        """Return at most ``limit`` messages, each a list of frames; fewer: there are no more."""
        cdef list messages = []
        cdef size_t first = self._first
        cdef size_t behind, position, taken_bytes = 0
        cdef bint resume = False
        cdef int error
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        behind = self._behind
        error = self._error
        PyThread_release_lock(self._lock)
        self._receiving = True
        try:
            while len(messages) < limit and first != behind:
                frames = []
                for position in range(first, first + self._counts[first % RING]):
                    frames.append(bytes_of_message(&self._ring[position % RING]))
                messages.append(frames)
                first += <size_t>len(frames)
        finally:
            for position in range(self._first, first):
                taken_bytes += msg_size(&self._ring[position % RING])
                msg_close(&self._ring[position % RING])
            PyThread_acquire_lock(self._lock, WAIT_LOCK)
            self._first = first
            self._bytes -= taken_bytes
            if self._first == self._behind and self._thread is not None:
                self.hush()
            if self._held_back and self.has_room():
                self._held_back = False
                resume = True
            PyThread_release_lock(self._lock)
            self._receiving = False
            if self._thread is None:  # closed by what a garbage collection in here has run
                self._empty()
            elif resume:
                signal_to(self._kick_out)
        if error and not messages:
            raise zmq.ZMQError(error)
        return messages

    def send(self, tuple frames):
        """Send one message without waiting; return how many of its frames libzmq has taken.

        As ``Frames.send``.
        """
        self.take_socket()
        try:
            return send_frames(self._handle, frames)
        finally:
            self.give_socket_back()

    def send_rest(self, tuple frames):
        """Give libzmq what is left of a message that it discards."""
        self.take_socket()
        try:
            send_remaining(self._handle, frames)
        finally:
            self.give_socket_back()

    def send_all(self, list messages):
        """Send messages without waiting; return for each 0, or the errno of what is in its way.

        As ``Frames.send_all``; the socket is taken once for all of them.
        """
        self.take_socket()
        try:
            check_open(self._socket)
            return [send_message(self._handle, frames) for frames in messages]
        finally:
            self.give_socket_back()

    def close(self):
        """End the thread, before the socket is closed; twice is fine.

        Messages that nobody took are lost, as those are that libzmq still has.
        """
        if self._thread is None:
            return
        atexit.unregister(self._stop)
        try:
            self._stop()
        finally:  # the thread has ended, whatever was raised meanwhile
            self._thread = None
            if not self._receiving:
                self._empty()
            self._error = ENOTSOCK
            self._close_fds()

    def _empty(self):
        """Drop what nobody took; the thread has ended."""
        while self._first != self._behind:
            msg_close(&self._ring[self._first % RING])
            self._first += 1
        self._bytes = 0

    def _stop(self):
        """End the thread; twice is fine.

        What interrupts the wait, Ctrl-C for one, is raised when it is over, which is soon: the
        socket must not be closed under the thread.
        """
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        self._stopping = True
        PyThread_release_lock(self._lock)
        signal_to(self._kick_out)
        interruption = None
        while True:
            try:
                if not self._thread.is_alive():
                    break
                self._thread.join()
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def _run(self):
        # Handlers run on the main thread; a signal that came here would not interrupt its waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with nogil:
            self.serve()

    def _open_signal(self):
        """Return the two ends of a signal: an eventfd, or a pipe where there are none."""
        if hasattr(os, "eventfd"):
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._fds.append(fd)
            return fd, fd
        ends = os.pipe()
        self._fds.extend(ends)
        for fd in ends:
            os.set_blocking(fd, False)
        return ends

    def _close_fds(self):
        while self._fds:
            os.close(self._fds.pop())

    # What both threads do, with the lock of the socket

    cdef Outcome drain(self, int limit, bint* tell) noexcept nogil:
        """Receive at most ``limit`` messages; answer them, or put them into the ring.

        ``tell`` becomes true if the loop has to be told then, best without the lock: it may run at
        once.
        """
        cdef int count
        cdef Outcome outcome = MORE
        while limit > 0:
            limit -= 1
            if not self.make_sure_of_room():
                outcome = FULL
                break
            count = self.receive_one()
            if count <= 0:
                outcome = DRAINED if count == 0 else BROKEN
                break
            if self.answer(count):
                self.close_behind(count)
            elif self.put(count):
                tell[0] = True
        if outcome == BROKEN:
            self.give_up(-count)
        return outcome

    cdef int receive_one(self) noexcept nogil:
        """Receive a message into the ring, behind all others. Returns how many frames it has.

        0: there is none; below zero: a negative errno. Of very many frames the first ones are
        kept, enough to see that it is no request.
        """
        cdef Message spare
        cdef Message* part
        cdef int count = 0
        cdef int error
        while True:
            part = &self._ring[(self._behind + count) % RING] if count < MOST_FRAMES else &spare
            msg_init(part)
            while msg_recv(part, self._handle, NOBLOCK) < 0:
                error = last_errno()
                if error != EINTR:
                    msg_close(part)
                    self.close_behind(count)
                    return 0 if error == EAGAIN else -error
            if count < MOST_FRAMES:
                count += 1
                if not msg_more(part):
                    return count
            else:
                if not msg_more(part):
                    msg_close(part)
                    return count
                msg_close(part)

    cdef void close_behind(self, int count) noexcept nogil:
        """Drop frames that were received and are not in the ring."""
        cdef int position
        for position in range(count):
            msg_close(&self._ring[(self._behind + position) % RING])

    cdef bint put(self, int count) noexcept nogil:
        """Put what was received into the ring. Returns whether the loop has to be told."""
        cdef bint tell
        cdef int position
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        for position in range(count):
            self._bytes += msg_size(&self._ring[(self._behind + position) % RING])
        self._counts[self._behind % RING] = <uint8_t>count
        self._behind += count
        tell = not self._told
        self._told = True
        PyThread_release_lock(self._lock)
        return tell

    cdef bint make_sure_of_room(self) noexcept nogil:
        """Returns whether there is room for a message; the thread is kicked when there is again."""
        cdef bint room
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        room = self.has_room()
        self._held_back = not room
        PyThread_release_lock(self._lock)
        return room

    cdef bint answer(self, int count) noexcept nogil:
        """Answer what was received, if it is a question whose answer is known. Returns whether."""
        cdef Message* client = &self._ring[self._behind % RING]
        cdef Message* body
        cdef int position = self.body_of(count)
        cdef Question asked
        cdef Buffer out
        cdef uint8_t room[ROOM]
        cdef Counts counts
        cdef Sending sending
        if position == 0:
            return False
        body = &self._ring[(self._behind + position) % RING]
        if not read_question(<const uint8_t*>msg_data(body), msg_size(body), &asked):
            return False
        open_buffer(&out, room, ROOM)
        if not self._replies.answer(
            <const uint8_t*>msg_data(client), msg_size(client), &asked, &out
        ):
            close_buffer(&out)
            return False
        counts.requests = counts.replies = 1
        counts.request_bytes = <int64_t>msg_size(body)
        counts.reply_bytes = <int64_t>size_of_buffer(&out)
        counts.dropped = 0
        # Before it is sent: whoever has the reply finds it counted.
        self._replies.count(&counts)
        sending = self.send_reply(position, out.start, size_of_buffer(&out))
        close_buffer(&out)
        if sending == SENT:
            return True
        counts.replies = -1
        counts.reply_bytes = -counts.reply_bytes
        if sending == GONE:
            counts.requests = counts.request_bytes = 0
            counts.dropped = 1
        else:  # the loop answers, and counts
            counts.requests = -1
            counts.request_bytes = -counts.request_bytes
        self._replies.count(&counts)
        return sending == GONE

    cdef int body_of(self, int count) noexcept nogil:
        """Return which frame is the body, by the rules of envelope.py; 0 if there is none."""
        cdef int position
        cdef int body = 1
        cdef size_t size = 0
        if count < 2 or count >= MOST_FRAMES or self.size_of(0) == 0:
            return 0
        for position in range(1, count):
            if self.size_of(position) == 0:
                body = position + 1
                break
        if body == count or self.size_of(body) == 0:
            return 0
        for position in range(body):
            size += self.size_of(position)
        return 0 if body > 1 and size > MOST_ENVELOPE else body

    cdef size_t size_of(self, int position) noexcept nogil:
        """Return the size of a frame of what was received."""
        return msg_size(&self._ring[(self._behind + position) % RING])

    cdef Sending send_reply(self, int envelope, const uint8_t* body, size_t size) noexcept nogil:
        """Send a reply behind the first ``envelope`` frames of what was received."""
        cdef Message* part
        cdef int position
        cdef int error
        cdef Sending sending = SENT
        for position in range(envelope + 1):
            if position < envelope:
                part = &self._ring[(self._behind + position) % RING]
                error = send_frame(self._handle, msg_data(part), msg_size(part), NOBLOCK | SNDMORE)
            else:
                error = send_frame(self._handle, body, size, NOBLOCK)
            if error and position == 0:
                return WOULD_WAIT if error == EAGAIN else GONE
            if error == EAGAIN:
                # libzmq discards what follows up to the end of the message.
                sending = WOULD_WAIT
            elif error:
                return GONE
        return sending

    # The thread

    cdef void serve(self) noexcept nogil:
        """Take in what comes until the end."""
        cdef pollfd fds[2]
        cdef Outcome outcome = MORE  # what is there already announces itself no more
        cdef bint tell
        fds[0].fd = self._kick_in
        fds[1].fd = self._socket_fd
        fds[0].events = fds[1].events = POLLIN
        while not self.is_stopping():
            if outcome != MORE:
                fds[0].revents = fds[1].revents = 0
                poll(fds, 1 if outcome == FULL else 2, self._safety_ms)
                if fds[0].revents & POLLIN:
                    hear(self._kick_in)
                if fds[1].revents & POLLNVAL:  # closed behind us
                    self.give_up(ENOTSOCK)
                    return
                if self.is_stopping():
                    return
            else:
                # A loop that waits is first; else this thread would have the lock again at once.
                PyThread_acquire_lock(self._turn, WAIT_LOCK)
                PyThread_release_lock(self._turn)
            PyThread_acquire_lock(self._in_use, WAIT_LOCK)
            tell = False
            outcome = self.drain(THREAD_BATCH, &tell)
            PyThread_release_lock(self._in_use)
            if tell:
                signal_to(self._news_out)
            if outcome == BROKEN:
                return

    cdef bint is_stopping(self) noexcept nogil:
        cdef bint stopping
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        stopping = self._stopping
        PyThread_release_lock(self._lock)
        return stopping

    cdef void give_up(self, int error) noexcept nogil:
        """Tell the loop that the socket is broken."""
        PyThread_acquire_lock(self._lock, WAIT_LOCK)
        self._error = error
        self._told = True
        PyThread_release_lock(self._lock)
        signal_to(self._news_out)

    # The loop

    cdef int take_socket(self) except -1:
        """Get the socket, if it is still open; without the GIL if that takes time."""
        if self._thread is None:
            raise zmq.ZMQError(ENOTSOCK)
        if not PyThread_acquire_lock(self._in_use, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self._turn, WAIT_LOCK)
                PyThread_acquire_lock(self._in_use, WAIT_LOCK)
                PyThread_release_lock(self._turn)
        try:
            check_open(self._socket)
        except BaseException:
            PyThread_release_lock(self._in_use)
            raise
        return 0

    cdef void give_socket_back(self) noexcept:
        """Take in what has come meanwhile, if that is not much; else the thread does."""
        cdef Outcome outcome = DRAINED
        cdef bint tell = False
        cdef int events = read_events(self._handle)
        if events < 0 or events & EVENT_IN:
            outcome = self.drain(LOOP_BATCH, &tell)
        PyThread_release_lock(self._in_use)
        if tell:
            signal_to(self._news_out)
        if outcome == MORE:
            signal_to(self._kick_out)

    # With the lock of the ring

    cdef bint has_room(self) noexcept nogil:
        return self._behind - self._first <= RING - MOST_FRAMES and self._bytes < MOST_BYTES

    cdef void hush(self) noexcept nogil:
        """The ring is empty: let ``fd`` be readable no more.

        If it is not yet readable it is about to be, and stays until the loop is here again.
        """
        if self._told and not self._error and hear(self._news_in):
            self._told = False


cdef void free_lock(PyThread_type_lock lock) noexcept:
    if lock != NULL:
        PyThread_free_lock(lock)


cdef object bytes_of_message(Message* part):
    return PyBytes_FromStringAndSize(<const char*>msg_data(part), <Py_ssize_t>msg_size(part))


cdef int send_frame(void* handle, const void* data, size_t size, int flags) noexcept nogil:
    """Send one frame. Returns 0 or an errno."""
    while send_bytes(handle, data, size, flags) < 0:
        if last_errno() != EINTR:
            return last_errno()
    return 0


cdef void signal_to(int fd) noexcept nogil:
    """Make the other end readable; it is already if there is no room for more."""
    cdef uint64_t one = 1
    while write(fd, &one, sizeof(one)) < 0:
        if last_errno() != EINTR:
            return


cdef bint hear(int fd) noexcept nogil:
    """Take a signal. Returns whether there was one."""
    cdef uint64_t heard
    return read(fd, &heard, sizeof(heard)) > 0
