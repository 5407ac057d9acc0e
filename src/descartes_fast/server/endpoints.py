"""What a server may bind, and the claim on an ipc path that keeps a second server off it.

Without keys whoever reaches the command endpoint may start programs, so only loopback
and ipc are bound unless ``insecure`` is given. A bind on an ipc path that is in use would
take it from its owner without an error (measured with libzmq 4.3.5); a lock file beside
the socket and a trial connect prevent that.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

import zmq

from ..errors import UsageError
from .locks import lock_file

__all__ = ["IpcClaim", "bind", "checked_endpoint"]

_MAX_IPC_PATH_BYTES = 107  # sun_path without its NUL, Linux


def checked_endpoint(endpoint: str, *, insecure: bool) -> str:
    """Return ``endpoint`` in the form to bind: host names become addresses.

    Raises ``UsageError`` for what is not on this machine unless ``insecure``, for a name that
    does not resolve, and for an ipc path that is relative to nothing or too long.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        return f"ipc://{_checked_path(endpoint, rest)}"
    if scheme != "tcp":
        raise UsageError(f"a server binds tcp:// or ipc://, not {endpoint!r}")
    host, separator, port = rest.rpartition(":")
    if not separator or not host:
        missing = "host" if separator else "port"
        raise UsageError(f"no {missing} in {endpoint!r}: tcp://HOST:PORT, port 0 for any")
    if port != "*" and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"no such port: {endpoint!r}")
    address = _address(endpoint, host.strip("[]"), insecure=insecure)
    if not insecure and not _is_loopback(address):
        raise UsageError(
            f"{endpoint} can be reached from other machines, and without keys everybody there "
            "could start programs here; use loopback, ipc://, or --insecure if you must"
        )
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def bind(sock: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a checked endpoint; return the real one (port 0 becomes a number).

    An ipc socket file is made with mode 0700. Raises ``UsageError`` if it cannot be bound.
    """
    if "[" in endpoint:  # and not always: libzmq then shows IPv4 addresses as IPv6 ones
        sock.set(zmq.IPV6, 1)
    old_umask = os.umask(0o077) if endpoint.startswith("ipc://") else None
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        reason = (
            "it is in use" if error.errno == errno.EADDRINUSE else zmq.strerror(error.errno or 0)
        )
        raise UsageError(f"cannot bind {endpoint}: {reason}") from None
    finally:
        if old_umask is not None:
            os.umask(old_umask)
    return sock.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


class IpcClaim:
    """The right to bind one ipc path, until it is released.

    Held by a lock on ``PATH.lock``, which ends with the process however that ends; what a
    server that was killed left behind is removed. Raises ``UsageError`` if the path belongs
    to another server or is something else than a socket.
    """

    def __init__(self, endpoint: str) -> None:
        self._path = endpoint.removeprefix("ipc://")
        self._lock_path = self._path + ".lock"
        _make_directory(Path(self._path).parent)
        self._lock: int | None = _locked(self._lock_path, self._path)
        try:
            _remove_stale_socket(self._path)
        except BaseException:
            self._remove(self._lock_path)
            raise

    def release(self) -> None:
        """Remove the socket file and the lock file; twice is fine."""
        if self._lock is None:
            return
        self._remove(self._path, self._lock_path)

    def _remove(self, *paths: str) -> None:
        """Remove files at paths that are ours as long as the lock is held; then release it."""
        assert self._lock is not None
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        os.close(self._lock)
        self._lock = None


def _checked_path(endpoint: str, text: str) -> str:
    if "\0" in text:
        raise UsageError(f"an ipc path cannot hold a NUL: {endpoint!r}")
    if text.startswith(("@", "*")):
        raise UsageError(f"{endpoint!r} has no place in the file system that could protect it")
    path = os.path.abspath(text)
    length = len(os.fsencode(path))
    if length > _MAX_IPC_PATH_BYTES:
        raise UsageError(
            f"an ipc path may have {_MAX_IPC_PATH_BYTES} bytes, this one has {length}: {path}"
        )
    return path


def _address(endpoint: str, host: str, *, insecure: bool) -> str:
    """Return the numeric address of ``host``; libzmq resolves no names when it binds."""
    if host == "*":
        return "0.0.0.0"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        if insecure and ";" not in host:
            return host  # the name of a network interface, perhaps: libzmq knows
        raise UsageError(f"cannot resolve the host of {endpoint!r}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return _without_mapping(str(found[0][4][0]))


def _without_mapping(address: str) -> str:
    """Return the IPv4 address that an IPv6 one may stand for (``::ffff:127.0.0.1``)."""
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(address.partition("%")[0]), "ipv4_mapped", None)
        if mapped is not None:
            return str(mapped)
    return address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _make_directory(directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}") from None


def _locked(lock_path: str, path: str) -> int:
    try:
        return lock_file(lock_path)
    except BlockingIOError:
        raise UsageError(f"ipc://{path} belongs to another running server") from None
    except OSError as error:
        raise UsageError(f"cannot lock {lock_path}: {error.strerror}") from None


def _remove_stale_socket(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:  # EAGAIN: alive, and its backlog is full
            if error.errno != errno.EAGAIN:
                raise UsageError(f"cannot use {path}: {error.strerror}") from None
    raise UsageError(f"ipc://{path} belongs to another running server")
