"""The other end of NBD connections: our server in a thread, and the servers of others."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.cancel import CancelToken
from imprint.exports.nbd.server import Policy, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.exports.nbd.export import Export

START_S: Final = 30.0
"""How long a server may take until it listens."""


@contextmanager
def socket_path() -> Iterator[Path]:
    """A place for a Unix socket: the system takes only short names."""
    with tempfile.TemporaryDirectory(prefix="nbd") as folder:
        yield Path(folder) / "s"


def uri(path: Path, export: str = "") -> str:
    """The address of an export behind a Unix socket."""
    return f"nbd+unix:///{export}?socket={path}"


@contextmanager
def serving(*exports: Export, policy: Policy | None = None) -> Iterator[Path]:
    """Our server, in a thread; gives the path of its socket."""
    with socket_path() as path:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(256)
        cancel = CancelToken()
        server = Server(exports, [listener], policy)
        thread = threading.Thread(target=server.run, args=(cancel,))
        thread.start()
        try:
            yield path
        finally:
            cancel.cancel()
            thread.join()


@contextmanager
def running(command: list[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another server, for as long as the context lasts; it listens at ``path``.

    Raises:
        AssertionError: if it ends at once, or does not listen.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:  # noqa: S603 - of the test
        try:
            _await(process, path)
            yield process
        finally:
            process.kill()


def _await(process: subprocess.Popen[bytes], path: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
        if _is_listening(path):
            return
        time.sleep(0.01)
    raise AssertionError(f"{process.args!r} does not listen")


def _is_listening(path: Path) -> bool:
    """Whether somebody does; a connection to find out would be a client.

    Source: Linux, ``Documentation/filesystems/proc.rst``, ``/proc/net/unix``: flags, path.
    """
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(line[3] == "00010000" and line[7:] == [str(path)] for line in sockets[1:])


@contextmanager
def nbdkit(*arguments: str) -> Iterator[Path]:
    """A server of others, nbdkit, with a plug-in and its options; gives the path of its socket."""
    with socket_path() as path, running(["nbdkit", "-f", "-U", str(path), *arguments], path):
        yield path


@contextmanager
def qemu_nbd(image: Path, image_format: str, *arguments: str) -> Iterator[Path]:
    """qemu-nbd with an image, for any number of clients; gives the path of its socket."""
    fixed = ["-t", "-e", "8", "-f", image_format]
    with socket_path() as path:
        command = ["qemu-nbd", *fixed, "-k", str(path), *arguments, str(image)]
        with running(command, path):
            yield path


def make_certificates(folder: Path) -> None:
    """An authority, a server called ``localhost`` and a client, as QEMU and libnbd name them."""
    from cryptography import x509  # only where TLS is tested
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def write(stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        encoding = serialization.Encoding.PEM
        (folder / f"{stem}-cert.pem").write_bytes(certificate.public_bytes(encoding))
        (folder / f"{stem}-key.pem").write_bytes(
            key.private_bytes(
                encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("imprint tests"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    authority = ec.generate_private_key(ec.SECP256R1())
    ours = builder("imprint tests", authority).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    ours = ours.add_extension(usage, critical=True)
    write("ca", authority, ours.sign(authority, hashes.SHA256()))
    for stem, purpose in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        certificate = (
            builder(stem, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(authority, hashes.SHA256())
        )
        write(stem, key, certificate)
