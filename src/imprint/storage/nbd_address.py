"""Addresses of exports: ``nbd://host:port/export`` and its kin.

Source: NetworkBlockDevice/nbd ``doc/uri.md``; libnbd, ``nbd_connect_uri(3)`` for the names of
what may follow the question mark.
"""

from __future__ import annotations

import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import ReadError, UsageError
from imprint.protocols.nbd.constants import CA_FILE, CLIENT_FILES, PORT, STRING_BYTES_MAX

if TYPE_CHECKING:
    import ssl

SCHEMES: Final = ("nbd", "nbds", "nbd+unix", "nbds+unix")
_QUERY: Final = ("socket", "tls-certificates", "tls-hostname")


@dataclass(frozen=True)
class Address:
    """Where an export is.

    Attributes:
        name: what errors call it.
        export: its name; empty: the server's default.
        host: name or number; of a Unix socket, what its certificate has to say.
        port: of TCP.
        path: of a Unix socket; ``None``: it is TCP.
        is_secure: whether it begins with TLS.
        certificates: folder with certificates; ``None``: whom the system trusts.
    """

    name: str
    export: str
    host: str
    port: int = PORT
    path: str | None = None
    is_secure: bool = False
    certificates: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a URL.

        Raises:
            UsageError: if it is none of NBD.
        """
        try:
            parts = urllib.parse.urlsplit(text)
            port = parts.port
            pairs = urllib.parse.parse_qsl(
                parts.query, keep_blank_values=True, max_num_fields=16, errors="strict"
            )
            export = urllib.parse.unquote(parts.path[1:], errors="strict")
        except ValueError as failure:
            raise UsageError(f"expected a URL of NBD: {failure}", name=text) from failure
        query = dict(pairs)
        if parts.scheme not in SCHEMES or "\0" in text or len(export) > STRING_BYTES_MAX:
            raise UsageError("expected a URL of NBD", name=text)
        for key in query:
            if key not in _QUERY:
                listed = ", ".join(_QUERY)
                raise UsageError(f"expected one of {listed}, found {key!r:.80}", name=text)
        is_unix = parts.scheme.endswith("+unix")
        if is_unix != ("socket" in query) or (is_unix and (parts.netloc or not query["socket"])):
            raise UsageError(
                "expected nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH", name=text
            )
        host = parts.hostname or "localhost"
        folder = query.get("tls-certificates")
        return cls(
            text,
            export,
            query.get("tls-hostname", host),
            PORT if port is None else port,
            query.get("socket"),
            parts.scheme.startswith("nbds"),
            None if folder is None else Path(folder),
        )

    def connect(self, timeout_s: float) -> socket.socket:
        """A new connection.

        Raises:
            OSError: if there is nobody, or it takes too long.
        """
        if self.path is None:
            host = urllib.parse.urlsplit(self.name).hostname or "localhost"
            return socket.create_connection((host, self.port), timeout=timeout_s)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(timeout_s)
            connected.connect(self.path)
        except BaseException:
            connected.close()
            raise
        return connected

    def tls(self) -> ssl.SSLContext:
        """Whom to trust, and who we are.

        Raises:
            ReadError: if the certificates are not there, or are none.
        """
        import ssl  # only with TLS

        if self.certificates is None:
            return ssl.create_default_context()
        certificate, key = (self.certificates / name for name in CLIENT_FILES)
        try:
            context = ssl.create_default_context(cafile=self.certificates / CA_FILE)
            if certificate.exists():
                context.load_cert_chain(certificate, key)
        except OSError as failure:  # those of the ssl module are too
            raise ReadError(
                f"no certificates to trust: {failure}", name=str(self.certificates)
            ) from failure
        return context
