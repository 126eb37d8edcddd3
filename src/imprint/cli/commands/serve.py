"""serve: export disks to NBD clients."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    import argparse
    import socket
    import ssl

    from imprint.cli.console import Console
    from imprint.exports.nbd.export import Export

EXAMPLES = """\
  imprint serve disk.vmdk                               nbd://127.0.0.1/disk.vmdk
  imprint serve disk.e01 --unix /run/disk.sock --once
  imprint serve root=disk.qcow2#p2 repo:/srv/images::laptop --port 0
  imprint serve disk.vhdx --cow memory                  writable, and the image stays as it is
  imprint serve disk.raw -f raw --writable
  imprint serve disk.qcow2 --bind 0.0.0.0 --tls /etc/pki/imprint --tls-verify-peer
"""

_PORT_MAX: Final = 65535
_CONNECTIONS_MAX: Final = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/serve.md`` lists them too."""
    parser.add_argument(
        "images",
        metavar="image",
        nargs="+",
        help="image, device, part of one, snapshot or URL; NAME=IMAGE names the export, else it "
        "has the file's name; a client that names none gets the first",
    )
    parser.add_argument(
        "--port",
        type=options.number(0, _PORT_MAX),
        help="of TCP; 0: any that is free (default: 10809, unless --unix is given)",
    )
    parser.add_argument(
        "--bind", metavar="ADDRESS", help="to listen at (default: 127.0.0.1: this host only)"
    )
    parser.add_argument("--unix", metavar="SOCKET", type=Path, help="listen on a Unix socket")
    add_writing(parser)
    add_tls(parser)
    parser.add_argument("--once", action="store_true", help="end when the last client has left")
    parser.add_argument(
        "--persistent", action="store_true", help="serve until a signal comes (the default)"
    )
    parser.add_argument(
        "--connections",
        metavar="N",
        type=options.number(1, _CONNECTIONS_MAX),
        default=64,
        help="at the same time (default: 64)",
    )
    options.add_access(parser)
    options.add_place_options(parser)
    options.add_json(parser)


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Whether clients may write, and where that goes."""
    parser.add_argument("--read-only", action="store_true", help="clients only read (the default)")
    parser.add_argument(
        "--writable",
        action="store_true",
        help="clients write into the images; -f raw is needed for raw ones",
    )
    parser.add_argument(
        "--cow",
        metavar="FILE",
        help="what clients write goes into an overlay, which is made if it is not there, and the "
        "image stays as it is; memory: it is forgotten in the end",
    )


def add_tls(parser: argparse.ArgumentParser) -> None:
    """Certificates."""
    parser.add_argument(
        "--tls",
        metavar="DIR",
        type=Path,
        help="folder with server-cert.pem, server-key.pem and ca-cert.pem; nobody is served "
        "without TLS then",
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=Path, help="instead of the folder")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="of that certificate")
    parser.add_argument(
        "--tls-verify-peer",
        action="store_true",
        help="serve only clients with a certificate that ca-cert.pem vouches for",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Serve until the end is asked for."""
    from imprint.endpoints.serving import Wish, open_exports
    from imprint.exports.nbd.server import Policy, Server

    if args.once and args.persistent:
        raise UsageError("expected --once or --persistent, found both")
    if args.read_only + args.writable + (args.cow is not None) > 1:
        raise UsageError("expected one of --read-only, --writable and --cow")
    tls = _tls(args)
    with contextlib.ExitStack() as stack:
        listeners = _listeners(args, stack)
        exports = open_exports(
            args.images,
            options.access(args, console),
            Wish(writable=args.writable, cow=args.cow),
        )
        for export in exports:
            stack.callback(export.disk.close)
        policy = Policy(connections=args.connections, tls=tls, once=args.once)
        server = Server(exports, listeners, policy)
        with console.stopping() as cancel:
            _announce(console, listeners, exports, tls=tls is not None)
            server.run(cancel)
    return 0


def _announce(
    console: Console, listeners: list[socket.socket], exports: list[Export], *, tls: bool
) -> None:
    """Say where the exports are, now that they can be reached."""
    from imprint.endpoints.serving import uri_of

    found = []
    for export in exports:
        name = export.offer.name
        uris = [uri_of(listener, name, tls=tls) for listener in listeners]
        for uri in uris:
            console.print(uri)
        found.append(
            {
                "name": name,
                "size": export.offer.size,
                "read_only": export.writer is None,
                "uris": uris,
            }
        )
    every = [uri for item in found for uri in item["uris"]]  # type: ignore[attr-defined]
    console.result(uris=every, exports=found)
    console.flush()


def _listeners(args: argparse.Namespace, stack: contextlib.ExitStack) -> list[socket.socket]:
    from imprint.endpoints import serving
    from imprint.protocols.nbd.constants import PORT

    count = _given_sockets()
    if count:
        if args.port is not None or args.bind is not None or args.unix is not None:
            raise UsageError("the sockets are given by LISTEN_FDS: expected no --port or --unix")
        return serving.inherited(count)
    listeners = []
    if args.unix is not None:
        listeners.append(stack.enter_context(serving.listen_unix(args.unix)))
    if args.unix is None or args.port is not None or args.bind is not None:
        port = PORT if args.port is None else args.port
        for listener in serving.listen_tcp(args.bind or serving.LOOPBACK, port):
            stack.callback(listener.close)
            listeners.append(listener)
    return listeners


def _given_sockets() -> int:
    """How many sockets systemd, or who does as it does, has opened for this process."""
    count = os.environ.get("LISTEN_FDS", "")
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    is_number = count.isascii() and count.isdecimal() and len(count) < len("1000")
    return int(count) if is_ours and is_number else 0


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    from imprint.endpoints.serving import server_tls
    from imprint.protocols.nbd.constants import CA_FILE, SERVER_FILES

    certificate, key = args.tls_cert, args.tls_key
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    authority = None
    if args.tls is not None:
        authority = args.tls / CA_FILE
        certificate = certificate or args.tls / SERVER_FILES[0]
        key = key or args.tls / SERVER_FILES[1]
    if certificate is None:
        if args.tls_verify_peer:
            raise UsageError("--tls-verify-peer makes sense only with --tls")
        return None
    return server_tls(certificate, key, authority, verify_peer=args.tls_verify_peer)
