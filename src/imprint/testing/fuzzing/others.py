"""Targets: packages, journals, references, answers of web servers, and what users type."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imprint.core.contracts import Reference
from imprint.core.units import KIB, format_size, parse_size
from imprint.endpoints.appliance import package
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.journal import Job, JournalFile, journal_path
from imprint.endpoints.location import parse
from imprint.storage.file import FileStorage
from imprint.storage.http import HttpStorage
from imprint.storage.http_address import Address
from imprint.storage.http_ranges import HttpPolicy, RangeReader
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import partial_path
from imprint.testing.fuzzing.images import read_some
from imprint.testing.fuzzing.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAR_BLOCK: Final = 512

_OVF: Final = b"""<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>
<File ovf:id="f2" ovf:href="two.raw" ovf:size="3000"/><File ovf:id="f1" ovf:href="one.raw"/>
</References><DiskSection><Info>disks</Info><Disk ovf:diskId="d0" ovf:capacity="1"/>
<Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="4096"/>
<Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^10"/>
</DiskSection></Envelope>
"""
_OVF_WORDS: Final = (
    *(b'ovf:compression="gzip"', b'ovf:chunkSize="1"', b'ovf:href="../x"', b"<Disk ", b"<File "),
    *(b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"GNU.sparse.map=0,1", b"L", b"x", b"S", b"\xff"),
    *(b"30 size=99999999\n", b"18 path=one.raw\n", b"-1", b"7777777777", b"\x80\0\0\0\0\0\0\x7f"),
)
_ANSWER: Final = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 16\r\nContent-Range: bytes 0-15/16\r\n"
    b'ETag: "a"\r\nLast-Modified: Sun, 01 Jan 2023 00:00:00 GMT\r\n\r\n0123456789abcdef'
)
_BETWEEN: Final = b"\r\n--next connection--\r\n"
_MOVED: Final = b"HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n"
_EMPTY: Final = b"HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n"
_HTTP_WORDS: Final = (
    *(b"Content-Range: bytes ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"200 OK", b"206 ", b"416 ", b"503 ", b"302 ", b"100 ", b"-"),
    *(
        b"Location: http://[::1",
        b"Location: //a:b@c:99999/",
        b"Location: \xff",
        b"Location: http://",
    ),
    *(
        b"9223372036854775807",
        b"1" * 5000,
        b"0\r\n\r\n",
        b"*/",
        b"ETag: W/",
        _BETWEEN,
        b"HTTP/1.0 ",
    ),
)
_ADDRESS_WORDS: Final = (
    *(
        b"#p",
        b"#d",
        b"#",
        b"repo:",
        b"::",
        b"nbd://",
        b"https://",
        b"http://[",
        b"-",
        b"/",
        b"lvm/",
    ),
    *(b"1" * 5000, b"a" * 300, b"%", b"\0", b"\xff", b"@", b":99999", b"?", "世".encode(), b"p0"),
)
_JOB: Final = Job("/a/source.raw", 1 << 20, 1, "qcow2", {"cluster_size": "64K"})


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target("ova", _ova_seeds, (open_package,), words=_OVF_WORDS, seal=_seal_tar)
    yield Target(
        "journal",
        seeds=lambda: [_journal().encode(), b"{}"],
        steps=(read_journal,),
        words=(
            b'{"',
            b"[" * 3000,
            b"null",
            b"1e999",
            b"NaN",
            b"1" * 5000,
            b'"position": ',
            b"\xff",
        ),
    )
    yield Target(
        "http",
        seeds=lambda: [_ANSWER + _BETWEEN + _ANSWER, _MOVED + _BETWEEN + _ANSWER, _EMPTY],
        steps=(ask_server,),
        words=_HTTP_WORDS,
    )
    yield Target(
        "addresses",
        seeds=lambda: [
            b"disk.qcow2#d1#p2",
            b"https://me:pw@host:8080/a%20b?c=d#p1",
            b"repo:/a::b@c",
        ],
        steps=(parse_address, parse_url),
        words=_ADDRESS_WORDS,
    )
    yield Target("gate", lambda: [b"parent.raw", b"loop.raw"], (open_parent,), words=_ADDRESS_WORDS)
    yield Target(
        "sizes",
        seeds=lambda: [b"64K", b"1.5GiB", b"10"],
        steps=(parse_a_size,),
        words=(b"9" * 5000, b".", b"TiB", b"E", "٣".encode(), b"-", b"e9", b" ", b"_", b"\xc2\xb2"),
    )


def open_parent(content: bytes) -> None:
    """An image in a folder names its parent."""
    name = content.decode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory() as folder:
        for each in ("image.raw", "parent.raw"):
            Path(folder, each).write_bytes(bytes(_TAR_BLOCK))
        Path(folder, "loop.raw").symlink_to("loop.raw")
        with closing(FileStorage.open(Path(folder, "image.raw"))) as image:
            gate = FolderGate()
            for sibling in gate.siblings(image, ".raw"):
                sibling.close()
            parent = gate.parent(Reference(name, "raw"), image)
            parent.close()
            assert parent.name == str(Path(folder, "parent.raw").resolve())


def open_package(content: bytes) -> None:
    """List a package's disks, and read each."""
    storage = MemoryStorage(content, name="machine.ova")
    for number in range(1, min(len(package.read(storage).disks), 4) + 1):
        read_some(package.open_disk(storage, number))


def read_journal(content: bytes) -> None:
    """Ask where a copy had come to."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "disk.qcow2")
        partial_path(target).touch()
        journal_path(target).write_bytes(content)
        position = JournalFile(target, _JOB).position()
        assert position is None or 0 < position <= _JOB.size


def ask_server(content: bytes) -> None:
    """Open an object on a server that answers with these bytes, and read it."""
    reader = _CannedReader(content)
    size, _ = reader.probe(16)
    read_some(HttpStorage(reader, size))


def parse_address(content: bytes) -> None:
    """As given on the command line."""
    parse(content.decode("utf-8", "surrogateescape"))


def parse_url(content: bytes) -> None:
    """Take it apart, and follow it as a redirect."""
    text = content.decode("utf-8", "surrogateescape")
    Address.parse("https://host/a").follow(text)
    assert Address.parse(text).name


def parse_a_size(content: bytes) -> None:
    """As given on the command line."""
    assert format_size(parse_size(content.decode("utf-8", "surrogateescape")))


def _ova_seeds() -> list[bytes]:
    return [
        _package(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ]


def _package(form: int) -> bytes:
    stream = io.BytesIO()
    long = "a" * 120 + ".txt"  # in its own header, unless it is POSIX's oldest format
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in (
            ("machine.ovf", _OVF),
            ("one.raw", bytes(range(256)) * 16),
            (long if form != tarfile.USTAR_FORMAT else "a.txt", b"x"),
            ("two.raw", b"\x02" * 3 * KIB),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _seal_tar(content: bytearray) -> None:
    """Make the checksums of all that looks like a header right."""
    for at in range(0, min(len(content), 64 * KIB) - _TAR_BLOCK + 1, _TAR_BLOCK):
        block = content[at : at + _TAR_BLOCK]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 0x20
            content[at + 148 : at + 156] = b"%06o\0 " % total


def _journal() -> str:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "disk.qcow2")
        JournalFile(target, _JOB).record(65536)
        return json.dumps(json.loads(journal_path(target).read_bytes()))


class _CannedReader(RangeReader):
    """Its connections go nowhere: each gives the next part of some bytes."""

    def __init__(self, content: bytes) -> None:
        policy = HttpPolicy(timeout_s=1.0, attempts=2, pause_s=0.0)
        super().__init__(Address.parse("http://server/disk"), policy=policy)
        self._parts = content.split(_BETWEEN)
        self._index = 0

    def _take(self, address: Address) -> tuple[http.client.HTTPConnection, bool]:
        connection = http.client.HTTPConnection("server")
        part = self._parts[self._index % len(self._parts)]
        self._index += 1
        connection.sock = _CannedSocket(part)
        return connection, True

    def _give_back(self, address: Address, connection: http.client.HTTPConnection) -> None:
        connection.close()


class _CannedSocket:
    """As much of a socket as :mod:`http.client` uses."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def sendall(self, data: object) -> None:
        """Nobody listens."""

    def makefile(self, *arguments: Any, **options: Any) -> io.BytesIO:  # noqa: ANN401 - socket's
        """The answer."""
        del arguments, options
        return io.BytesIO(self._content)

    def close(self) -> None:
        """Nothing is open."""
