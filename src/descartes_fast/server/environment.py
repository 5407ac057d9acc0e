"""An agent's environment: chosen name by name, never inherited as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import AccessDenied, InvalidContext, UsageError

__all__ = [
    "BASE_ENVIRONMENT",
    "CLIENT_ENVIRONMENT",
    "NamePatterns",
    "check_client_environment",
]

BASE_ENVIRONMENT = (
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_*",
    # How this machine reaches the network, and whom it trusts there.
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)
"""What every agent gets from the server's environment, whatever its backend lists."""

CLIENT_ENVIRONMENT = ("AGENT_*", "LANG", "LC_*", "NO_COLOR", "TASK_*", "TZ")
"""What a client may set where the backend does not say: names no program acts on by itself."""

_RESERVED = ("DESCARTES_AGENT_", "DESCARTES_FAST_")
"""Names that tell an agent who it is; a client may not set them, whatever the backend says."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class NamePatterns:
    """Names of environment variables; a ``*`` at the end stands for any ending."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names = tuple(patterns)
        for name in names:
            if name != "*" and not _NAME.fullmatch(name.removesuffix("*")):
                raise UsageError(
                    f"{name!r} is not the name of an environment variable (a '*' may end it)"
                )
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self._words = ", ".join(sorted(names)) or "nothing"

    def __str__(self) -> str:
        return self._words

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._prefixes)

    def chosen_from(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of ``environ`` that these names allow."""
        return {name: value for name, value in environ.items() if name in self}


def check_client_environment(
    backend: str, allowed: NamePatterns, environment: Mapping[str, str]
) -> None:
    """Refuse what a client may not set: ``InvalidContext`` or ``AccessDenied``."""
    for name, value in environment.items():
        if len(name) > 256 or not _NAME.fullmatch(name):
            raise InvalidContext(f"{name[:80]!r} is not the name of an environment variable")
        if "\0" in value:
            raise InvalidContext(f"the environment variable {name} holds a NUL")
        if name not in allowed or name.startswith(_RESERVED):
            raise AccessDenied(
                f"backend {backend!r} lets no client set {name}; it may set: {allowed}"
            )
