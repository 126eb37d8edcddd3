"""Our NBD server, judged by the clients of libnbd and QEMU."""

from __future__ import annotations

import json
import random
import subprocess
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.endpoints.cow import MEMORY, open_overlay
from imprint.endpoints.open import Access, open_editable, open_source
from imprint.endpoints.serving import Wish, open_exports, server_tls
from imprint.exports.nbd.export import Export
from imprint.exports.nbd.server import Policy
from imprint.filters.shared import SharedDisk
from imprint.testing.nbd_peers import make_certificates, qemu_nbd, serving, uri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB: Final = 1 << 20
SIZE: Final = 24 * MIB
DATA: Final = ((0, MIB), (5 * MIB, 70_000), (16 * MIB + 4096, 4 * MIB), (SIZE - 512, 512))
"""Offset and length of what is not a hole."""


@pytest.fixture
def content() -> bytes:
    noise = random.Random(7)
    disk = bytearray(SIZE)
    for start, length in DATA:
        disk[start : start + length] = noise.randbytes(length)
    return bytes(disk)


@pytest.fixture
def raw(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in DATA:
            file.seek(start)
            file.write(content[start : start + length])
    return path


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def convert(raw: Path, image_format: str, *options: str) -> Path:
    path = raw.with_suffix(f".{image_format}")
    run("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, path)
    return path


def export(path: Path, undo: ExitStack, name: str = "") -> Export:
    return Export(name, undo.enter_context(closing(open_source(str(path)))))


def status(address: str) -> list[tuple[int, int, int]]:
    """Offset, length and flags of all runs, as nbdinfo has them; neighbours joined."""
    found: list[tuple[int, int, int]] = []
    for item in json.loads(run("nbdinfo", "--json", "--map", address)):
        if found and found[-1][2] == item["type"]:
            found[-1] = found[-1][0], found[-1][1] + item["length"], item["type"]
        else:
            found.append((item["offset"], item["length"], item["type"]))
    return found


@pytest.mark.oracle("nbdinfo")
def test_the_map_of_a_raw_disk_is_that_of_its_file(raw: Path, undo: ExitStack) -> None:
    """Fails if holes are told as data, or data as holes: blocks of 4 KiB are what a file has."""
    expected = []
    position = 0
    for start, length in DATA:
        first, last = start // 4096 * 4096, min(-(-(start + length) // 4096) * 4096, SIZE)
        if first > position:
            expected.append((position, first - position, 3))
        expected.append((first, last - first, 0))
        position = last
    with serving(export(raw, undo)) as path:
        assert status(uri(path)) == expected


@pytest.mark.oracle("nbdinfo", "qemu-nbd", "qemu-img", "qemu-io")
def test_the_map_of_a_qcow2_is_what_qemu_tells_of_it(raw: Path, undo: ExitStack) -> None:
    """Fails if block status is of another disk than the image's, or zeros are said to have room."""
    image = convert(raw, "qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -z -u 9M 1M", "-c", "write -z -u 17M 1M", image)
    with serving(export(image, undo)) as ours, qemu_nbd(image, "qcow2", "-r") as theirs:
        assert status(uri(ours)) == status(uri(theirs))


@pytest.mark.oracle("nbdcopy", "qemu-img")
@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("raw", ()),
        ("qcow2", ()),
        ("qcow2", ("-c",)),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vhdx", ()),
    ],
)
def test_nbdcopy_gets_the_disk(  # noqa: PLR0917
    raw: Path,
    content: bytes,
    tmp_path: Path,
    undo: ExitStack,
    image_format: str,
    options: tuple[str, ...],
) -> None:
    """Fails if a byte is lost between sendfile, holes, decoded clusters and four connections."""
    image = raw if image_format == "raw" else convert(raw, image_format, *options)
    copy = tmp_path / "copy"
    with serving(export(image, undo)) as path:
        run("nbdcopy", uri(path), copy)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(path), raw)
    assert copy.read_bytes()[:SIZE] == content


@pytest.mark.oracle("nbdinfo")
def test_exports_are_listed_with_what_can_be_done_with_them(raw: Path, undo: ExitStack) -> None:
    """Fails if a client is told the wrong size, flags or block sizes."""
    first = Export("one", undo.enter_context(closing(open_source(str(raw)))), description="a disk")
    overlay = open_overlay(open_source(str(raw)), str(raw), MEMORY)
    second = Export("two/ä", undo.enter_context(closing(SharedDisk(overlay))))
    with serving(first, second) as path:
        listed = json.loads(run("nbdinfo", "--json", "--list", uri(path)))["exports"]
        default = json.loads(run("nbdinfo", "--json", uri(path)))["exports"][0]
    named: dict[str, Any] = {item["export-name"]: item for item in listed}
    assert set(named) == {"one", "two/ä"}
    assert named["one"]["description"] == "a disk"
    for item, writes in ((named["one"], False), (named["two/ä"], True), (default, False)):
        assert item["export-size"] == SIZE
        assert item["is_read_only"] is not writes
        assert item["can_multi_conn"] is True
        assert item["can_df"] is True
        assert item["can_zero"] is item["can_trim"] is item["can_fua"] is writes
        assert item["contexts"] == ["base:allocation"]
        assert item["block_size_maximum"] == 32 * MIB


@pytest.mark.oracle("qemu-io", "qemu-img")
@pytest.mark.parametrize("kind", ["overlay", "raw", "qcow2"])
def test_what_qemu_writes_is_read_back_and_kept(
    raw: Path, tmp_path: Path, undo: ExitStack, kind: str
) -> None:
    """Fails if a write, zero or discard hits the wrong bytes, or the image under an overlay."""
    before = raw.read_bytes()
    if kind == "overlay":
        kept = tmp_path / "cow.qcow2"
        disk = SharedDisk(open_overlay(open_source(str(raw)), str(raw), str(kept)))
    else:
        kept = raw if kind == "raw" else convert(raw, "qcow2")
        disk = SharedDisk(open_editable(str(kept), Access(format=kind)))
    undo.callback(disk.close)
    patterns = [
        "write -P 0x55 1M 3M",
        "write -f -P 0x66 20479k 2k",
        "write -z 16500k 1000k",
        "write -z -u 18M 1M",
        "write -P 0x77 5000001 12345",
        "discard 0 64k",
        "flush",
    ]
    checks = [
        "read -P 0x55 1M 2M",
        "read -P 0x66 20479k 2k",
        "read -P 0 16500k 1000k",
        "read -P 0 18M 1M",
        "read -P 0x77 5000001 12345",
    ]
    with serving(Export("", disk)) as path:
        commands = [word for text in [*patterns, *checks] for word in ("-c", text)]
        said = run("qemu-io", "-f", "raw", *commands, uri(path))
        assert "failed" not in said, said
    undo.close()
    image_format = "raw" if kind == "raw" else "qcow2"
    commands = [word for text in checks for word in ("-c", text)]
    assert "failed" not in run("qemu-io", "-r", "-f", image_format, *commands, kept)
    if kind != "raw":
        run("qemu-img", "check", kept)
        assert raw.read_bytes() == before


@pytest.mark.oracle("nbdcopy", "qemu-img")
def test_a_disk_is_copied_into_an_overlay_which_is_used_again(raw: Path, tmp_path: Path) -> None:
    """Fails if what four connections write gets lost, or an overlay forgets when it is closed."""
    empty, kept = tmp_path / "empty.raw", tmp_path / "cow.qcow2"
    with empty.open("wb") as file:
        file.truncate(SIZE)
    for turn in range(2):
        overlay = open_overlay(open_source(str(empty)), str(empty), str(kept))
        with closing(SharedDisk(overlay)) as disk, serving(Export("", disk)) as path:
            if turn == 0:
                run("nbdcopy", "--flush", raw, uri(path))
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(path), raw)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", kept, raw)
    assert not any(empty.read_bytes())


@pytest.mark.oracle("qemu-io")
@pytest.mark.parametrize("is_thin", [True, False])
def test_zeros_that_shall_keep_their_room_have_it_where_there_is_any(
    tmp_path: Path, *, is_thin: bool
) -> None:
    """Fails if mkfs fills an overlay with zeros, or a disk has no room where a client wants it.

    qemu-io asks for room (NBD_CMD_FLAG_NO_HOLE) unless ``-u`` is given.
    """
    empty, overlay = tmp_path / "empty.raw", tmp_path / "cow.qcow2"
    with empty.open("wb") as file:
        file.truncate(SIZE)
    wish = Wish(cow=str(overlay)) if is_thin else Wish(writable=True)
    [export] = open_exports([str(empty)], Access(format="raw"), wish)
    with closing(export.disk), serving(export) as path:
        said = run(
            "qemu-io", "-f", "raw", "-c", "write -z 1M 16M", "-c", "read -P 0 0 24M", uri(path)
        )
        assert "failed" not in said, said
    kept = overlay if is_thin else empty
    assert (kept.stat().st_blocks * 512 >= 16 * MIB) is not is_thin


LIBNBD: Final = """
import nbd, random, sys
uri, size, want = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "rb").read()
h = nbd.NBD()
h.set_request_structured_replies(sys.argv[4] == "structured")
h.connect_uri(uri)
assert h.get_structured_replies_negotiated() == (sys.argv[4] == "structured")
dice, done, sent, asked = random.Random(1), 0, 0, []
def check(offset, buffer):
    def ended(error):
        global done
        done += 1
        assert buffer.to_bytearray() == want[offset:offset + len(buffer.to_bytearray())], offset
        return 1
    return ended
while done < 400:
    while sent < 400 and sent - done < 16:
        length = dice.choice([1, 512, 4096, 4096, 65536, 300000])
        offset = dice.randrange(size - length)
        buffer = nbd.Buffer(length)
        h.aio_pread(buffer, offset, completion=check(offset, buffer))
        sent += 1
    h.poll(-1)
assert h.pread(size, 0) == want[:size]
for bad in [lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0)]:
    try:
        h.set_strict_mode(0)
        bad()
    except nbd.Error as error:
        assert error.errno == "EPERM", error
    else:
        raise SystemExit("the export was written")
for length, offset in ((512, size), (512, 1 << 62)):
    try:
        h.pread(length, offset)
    except nbd.Error as error:
        assert error.errno == "EINVAL", error
    else:
        raise SystemExit("read behind the end")
if sys.argv[4] == "structured":
    chunks = []
    h.pread_structured(size, 0, lambda data, offset, state, error:
                       chunks.append((offset, len(data), state)))
    holes = sum(length for _, length, state in chunks if state == nbd.READ_HOLE)
    assert 0 < holes, chunks
    whole = []
    h.pread_structured(1 << 20, 4 << 20, lambda data, offset, state, error:
                       whole.append((offset, len(data), state)), nbd.CMD_FLAG_DF)
    assert whole == [(4 << 20, 1 << 20, nbd.READ_DATA)], whole
h.shutdown()
print("good")
"""


@pytest.mark.oracle("nbdinfo", "qemu-img")
@pytest.mark.parametrize("replies", ["structured", "simple"])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_sixteen_reads_at_a_time_get_what_they_have_asked_for(
    raw: Path, undo: ExitStack, replies: str, image_format: str
) -> None:
    """Fails if replies are mixed up, refusals are not, or a hole is sent as data."""
    probe = subprocess.run(["/usr/bin/python3", "-c", "import nbd"], check=False)
    if probe.returncode:
        pytest.skip("python3-libnbd is not installed")
    image = raw if image_format == "raw" else convert(raw, "qcow2", "-c")
    with serving(export(image, undo)) as path:
        said = run("/usr/bin/python3", "-c", LIBNBD, uri(path), str(SIZE), raw, replies)
    assert said == "good\n"


@pytest.mark.oracle("nbdinfo", "qemu-img", "nbdcopy")
def test_with_tls_nothing_is_told_in_the_clear(
    raw: Path, tmp_path: Path, content: bytes, undo: ExitStack
) -> None:
    """Fails if clients get anything without TLS, or get a wrong disk through it."""
    folder = tmp_path / "pki"
    make_certificates(folder)
    tls = server_tls(
        folder / "server-cert.pem",
        folder / "server-key.pem",
        folder / "ca-cert.pem",
        verify_peer=True,
    )
    copy = tmp_path / "copy"
    with serving(export(raw, undo), policy=Policy(tls=tls)) as path:
        secure = uri(path).replace("nbd+unix", "nbds+unix")
        credentials = f"tls-creds-x509,id=t,endpoint=client,dir={folder}"
        image = f"driver=nbd,path={path},tls-creds=t,tls-hostname=localhost"
        opts = ("--object", credentials, "--image-opts", image)
        assert json.loads(run("qemu-img", "info", "--output=json", *opts))["virtual-size"] == SIZE
        run("qemu-img", "convert", *opts, "-O", "raw", copy)
        for command in (["nbdinfo", uri(path)], ["nbdinfo", "--list", uri(path)]):
            plain = subprocess.run(command, capture_output=True, text=True, check=False)
            assert plain.returncode != 0
            assert "export-size" not in plain.stdout
        stranger = subprocess.run(
            ["nbdinfo", f"{secure}&tls-certificates=/nonexistent"], capture_output=True, check=False
        )
        assert stranger.returncode != 0
    assert copy.read_bytes() == content
