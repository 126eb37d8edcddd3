"""Programs that stand between our NBD server and others: nbdkit's plug-in, and nbdfuse."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.endpoints.cow import MEMORY, open_overlay
from imprint.endpoints.open import open_source
from imprint.endpoints.serving import server_tls
from imprint.exports.nbd.export import Export
from imprint.exports.nbd.server import Policy
from imprint.filters.shared import SharedDisk
from imprint.testing.nbd_peers import START_S, make_certificates, nbdkit, serving, uri
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
SIZE: Final = 9 * MIB + 1536
"""Of sectors of 512 bytes, and not of blocks of 4096."""

WRITTEN: Final = random.Random(2).randbytes(300_000)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    noise = random.Random(1)
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in ((0, MIB), (5 * MIB, 70_000), (SIZE - 512, 512)):
            file.seek(start)
            file.write(noise.randbytes(length))
    return path


@pytest.fixture
def qcow2(raw: Path) -> Path:
    path = raw.with_suffix(".qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, path)
    return path


@contextlib.contextmanager
def reading(path: Path, name: str = "disk") -> Iterator[Export]:
    with closing(open_source(str(path))) as source:
        yield Export(name, source)


@contextlib.contextmanager
def overlaid(path: Path) -> Iterator[Export]:
    with closing(SharedDisk(open_overlay(open_source(str(path)), str(path), MEMORY))) as disk:
        yield Export("disk", disk)


@contextlib.contextmanager
def nbdfuse(folder: Path, address: str, *options: str) -> Iterator[Path]:
    """An export as a file, for as long as the context lasts."""
    point = folder / "point"
    point.mkdir()
    shown = point / "nbd"
    with subprocess.Popen(["nbdfuse", *options, str(point), address]) as process:
        try:
            until = time.monotonic() + START_S
            while not shown.exists():
                assert process.poll() is None, "nbdfuse has ended"
                assert time.monotonic() < until, "nbdfuse shows nothing"
                time.sleep(0.01)
            yield shown
        finally:
            subprocess.run(["fusermount3", "-u", point], check=False)
            process.wait(timeout=START_S)


def write_into(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(WRITTEN)


def overwritten(raw: Path, offset: int) -> bytes:
    content = bytearray(raw.read_bytes())
    content[offset : offset + len(WRITTEN)] = WRITTEN
    return bytes(content)


@pytest.mark.oracle("nbdkit", "nbdcopy", "nbdinfo", "qemu-img")
def test_nbdkit_passes_the_disk_on(raw: Path, qcow2: Path, tmp_path: Path) -> None:
    """Fails if nbdkit's client gets other bytes, another map or other rights than we give."""
    copy = tmp_path / "copy"
    with (
        reading(qcow2) as export,
        serving(export) as ours,
        nbdkit("nbd", f"socket={ours}", "export=disk", "shared=true") as between,
    ):
        run("nbdcopy", uri(between), copy)
        maps = [
            json.loads(run("nbdinfo", "--json", "--map", address).stdout)
            for address in (uri(between), uri(ours, "disk"))
        ]
        told = json.loads(run("nbdinfo", "--json", uri(between)).stdout)["exports"][0]
    assert maps[0] == maps[1]
    assert copy.read_bytes()[:SIZE] == raw.read_bytes()
    assert told["is_read_only"] is True
    assert told["can_multi_conn"] is True


@pytest.mark.oracle("nbdkit", "qemu-io", "qemu-img")
def test_what_is_written_through_nbdkit_is_in_the_overlay(raw: Path) -> None:
    """Fails if a write, zero or discard of nbdkit's client is refused or goes astray."""
    before = raw.read_bytes()
    commands = ["write -P 0x55 1M 3M", "write -z -u 18k 100k", "write -f -P 7 5M 512", "flush"]
    checks = ["read -P 0x55 1M 3M", "read -P 0 18k 100k", "read -P 7 5M 512", "discard 6M 1M"]
    words = [word for text in [*commands, *checks] for word in ("-c", text)]
    with overlaid(raw) as export, serving(export) as ours:
        with nbdkit("nbd", f"uri={uri(ours, 'disk')}") as between:
            assert "failed" not in run("qemu-io", "-f", "raw", *words, uri(between)).stdout
        words = [word for text in checks[:3] for word in ("-c", text)]
        assert "failed" not in run("qemu-io", "-r", "-f", "raw", *words, uri(ours)).stdout
    assert raw.read_bytes() == before


@pytest.mark.oracle("nbdkit", "nbdcopy", "qemu-img")
def test_nbdkit_takes_tls_off(raw: Path, tmp_path: Path) -> None:
    """Fails if libnbd's TLS, with a certificate of the client's, does not understand ours."""
    folder, copy = tmp_path / "pki", tmp_path / "copy"
    make_certificates(folder)
    names = (folder / f"{name}.pem" for name in ("server-cert", "server-key", "ca-cert"))
    policy = Policy(tls=server_tls(*names, verify_peer=True))
    options = ("tls=require", f"tls-certificates={folder}")
    with (
        reading(raw) as export,
        serving(export, policy=policy) as ours,
        nbdkit("nbd", f"socket={ours}", "export=disk", *options) as between,
    ):
        run("nbdcopy", uri(between), copy)
    assert copy.read_bytes()[:SIZE] == raw.read_bytes()


needs_fuse = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")


@needs_fuse
@pytest.mark.oracle("nbdfuse", "fusermount3", "qemu-img")
def test_nbdfuse_shows_the_disk_as_a_file(raw: Path, qcow2: Path, tmp_path: Path) -> None:
    """Fails if the file of nbdfuse, over several connections, has other bytes than the disk."""
    with (
        reading(qcow2) as export,
        serving(export) as ours,
        nbdfuse(tmp_path, uri(ours, "disk"), "-r") as shown,
    ):
        assert shown.stat().st_size == SIZE
        assert shown.read_bytes() == raw.read_bytes()


@needs_fuse
@pytest.mark.oracle("nbdfuse", "fusermount3")
def test_what_is_written_through_nbdfuse_is_in_the_overlay(raw: Path, tmp_path: Path) -> None:
    """Fails if a write through the file gets lost, or into the image under the overlay."""
    before, offset = raw.read_bytes(), MIB - 100_001
    with overlaid(raw) as export, serving(export) as ours:
        with nbdfuse(tmp_path, uri(ours, "disk"), "-C", "4") as shown:
            write_into(shown, offset)
            assert shown.read_bytes() == overwritten(raw, offset)
        found = bytearray(SIZE)
        export.disk.readinto(memoryview(found), 0)
    assert found == overwritten(raw, offset)
    assert raw.read_bytes() == before
