"""What ``serve`` needs: disks as exports, sockets that listen, certificates, and addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, TargetBusyError, TargetError, UsageError
from imprint.core.image import Image
from imprint.core.system import exists, reason_of
from imprint.endpoints.cow import MEMORY, open_overlay
from imprint.endpoints.location import Location, Where, parse
from imprint.endpoints.open import Access, open_editable, open_source
from imprint.exports.nbd.export import Export
from imprint.filters.shared import SharedDisk
from imprint.protocols.nbd.constants import CA_FILE, PORT, STRING_BYTES_MAX

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source

LOOPBACK: Final = "127.0.0.1"
_FIRST_INHERITED: Final = 3
_BACKLOG: Final = 128
_NAMED = re.compile(r"([^/=#:]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Wish:
    """How disks shall be exported.

    Attributes:
        writable: into the images themselves.
        cow: what is written goes here instead: the file of an overlay, or ``memory``.
    """

    writable: bool = False
    cow: str | None = None


def open_exports(images: Sequence[str], access: Access, wish: Wish) -> list[Export]:
    """Open all images that were named, ``NAME=IMAGE`` or by their file names.

    Raises:
        UsageError: if two have one name, or the wish makes no sense.
        ImagingError: of the kind that says what is wrong with an image.
    """
    if wish.cow not in (None, MEMORY) and len(images) > 1:
        raise UsageError(
            "a file of --cow is for one image", advice=f"--cow {MEMORY} is for any number"
        )
    named = [_named(text) for text in images]
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two exports are called {name!r}", advice="NAME=IMAGE gives a name")
        if len(name.encode()) > STRING_BYTES_MAX:
            raise UsageError(f"expected a name of at most {STRING_BYTES_MAX} bytes")
    exports: list[Export] = []
    try:
        for name, address in named:
            exports.append(_open_export(name, address, access, wish))
    except BaseException:
        for export in exports:
            export.disk.close()
        raise
    return exports


def _named(text: str) -> tuple[str, str]:
    """The name of an export, and the address of its disk."""
    match = _NAMED.fullmatch(text)
    if match is not None and not exists(Path(text)):
        return match[1], match[2]
    return _own_name(parse(text)), text


def _own_name(location: Location) -> str:
    if location.where is Where.REPOSITORY:
        return location.text.rpartition("::")[2]
    return location.own_name + location.text[len(location.base) :]


def _open_export(name: str, address: str, access: Access, wish: Wish) -> Export:
    if wish.writable:
        image = open_editable(address, access)
        return Export(name, SharedDisk(image), description=_describe(image))
    source = open_source(address, access)
    try:
        description = _describe(source)
        if wish.cow is None:
            return Export(name, source, description=description)
        overlay = open_overlay(source, address, wish.cow, snapshot=access.snapshot)
    except BaseException:
        source.close()
        raise
    # Linux wants room for the zeros of mkfs: gigabytes, that nobody may ever write to.
    note = f"{description}, written elsewhere"
    return Export(name, SharedDisk(overlay), description=note, is_thin=True)


def _describe(source: Source) -> str:
    return f"disk of a {source.info().format} image" if isinstance(source, Image) else "disk"


def listen_tcp(bind: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of a host; port 0: any that is free, the same for all.

    Raises:
        TargetBusyError: if the port is taken.
        UsageError: if the host has no such address.
    """
    try:
        found = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except (OSError, UnicodeError) as failure:
        raise UsageError(f"expected an address to listen at: {failure}", name=bind) from failure
    listeners: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(_BACKLOG)
            port = listener.getsockname()[1]
    except OSError as failure:
        for listener in listeners:
            listener.close()
        kind = TargetBusyError if failure.errno == errno.EADDRINUSE else UsageError
        raise kind(f"cannot listen: {reason_of(failure)}", name=f"{bind}:{port}") from failure
    return listeners


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket that only its owner may use; it is removed in the end.

    Raises:
        TargetBusyError: if somebody else listens there.
        TargetError: if it cannot be made.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.stat().st_mode):
            _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as failure:
        listener.close()
        raise TargetError(f"cannot listen: {reason_of(failure)}", name=str(path)) from failure
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _remove_dead(path: Path) -> None:
    """Remove a socket that a server has left which was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise TargetBusyError("somebody listens there already", name=str(path))


def inherited(count: int) -> list[socket.socket]:
    """Sockets that whoever has started us listens on for us.

    Source: systemd, ``sd_listen_fds(3)``.

    Raises:
        UsageError: if they are no sockets that listen.
    """
    listeners = []
    for number in range(_FIRST_INHERITED, _FIRST_INHERITED + count):
        try:
            listener = socket.socket(fileno=number)
            is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as failure:
            raise UsageError(f"LISTEN_FDS: descriptor {number} is no socket") from failure
        if not is_listening:
            raise UsageError(f"LISTEN_FDS: nobody listens on descriptor {number}")
        listener.set_inheritable(False)
        listeners.append(listener)
    return listeners


def uri_of(listener: socket.socket, name: str, *, tls: bool) -> str:
    """The address of an export, for clients on this host.

    Source: NetworkBlockDevice/nbd ``doc/uri.md``.
    """
    scheme = "nbds" if tls else "nbd"
    export = urllib.parse.quote(name, safe="")
    at = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = str(Path(os.fsdecode(at)).absolute())
        return f"{scheme}+unix:///{export}?socket={urllib.parse.quote(path)}"
    host = f"[{at[0]}]" if ":" in at[0] else at[0]
    port = "" if at[1] == PORT else f":{at[1]}"
    return f"{scheme}://{host}{port}/{export}"


def server_tls(
    certificate: Path, key: Path, authority: Path | None, *, verify_peer: bool
) -> ssl.SSLContext:
    """TLS as a server offers it; with ``verify_peer``, to clients with a certificate only.

    Raises:
        UsageError: if ``verify_peer`` is asked for without an authority.
        ReadError: if the files are not there, or no certificates.
    """
    import ssl  # only with TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if verify_peer:
            if authority is None:
                raise UsageError(f"--tls-verify-peer needs {CA_FILE}, which vouches for clients")
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as failure:  # those of the ssl module are too
        raise ReadError(f"no certificate and key: {failure}", name=str(certificate)) from failure
    return context
