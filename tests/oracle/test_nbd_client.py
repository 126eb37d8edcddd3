"""Our NBD client, against the servers of QEMU and nbdkit."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import NetworkError, ReadError
from imprint.core.extent import Kind
from imprint.storage.nbd import NbdStorage
from imprint.storage.nbd_links import NbdPolicy
from imprint.testing.nbd_peers import make_certificates, nbdkit, qemu_nbd, socket_path, uri
from imprint.testing.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB: Final = 1 << 20
SIZE: Final = 16 * MIB


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    noise = random.Random(11)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in ((0, MIB), (6 * MIB, 3 * MIB), (SIZE - 4096, 4096)):
            file.seek(start)
            file.write(noise.randbytes(length))
    return path


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def read(disk: NbdStorage, offset: int, length: int) -> bytes:
    data = bytearray(length)
    disk.readinto(memoryview(data), offset)
    return bytes(data)


@pytest.mark.oracle("qemu-nbd", "qemu-img", "nbdinfo")
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_disk_is_read_and_mapped_as_nbdinfo_does(
    raw: Path, program: Program, image_format: str
) -> None:
    """Fails if holes of the server are lost, or a byte of the disk."""
    image = raw
    if image_format != "raw":
        image = raw.with_suffix(".qcow2")
        command = ["qemu-img", "convert", "-O", image_format, str(raw), str(image)]
        subprocess.run(command, check=True)
    with qemu_nbd(image, image_format, "-r") as path:
        mapped = program.ok("map", "--json", uri(path)).json_lines
        told = subprocess.run(
            ["nbdinfo", "--json", "--map", uri(path)], capture_output=True, check=True
        )
        program.ok("convert", uri(path), "copy.raw", "--progress", "none")
        assert program.ok("compare", uri(path), raw, "-f", "raw", "--json").json["equal"]
    kinds = {0: "data", 2: "zero", 3: "hole"}
    expected = [(i["offset"], i["length"], kinds[i["type"]]) for i in json.loads(told.stdout)]
    assert [(i["offset"], i["length"], i["kind"]) for i in mapped] == expected
    copy = program.folder / "copy.raw"
    assert copy.read_bytes() == raw.read_bytes()
    assert copy.stat().st_blocks * 512 < SIZE // 2


@pytest.mark.oracle("nbdkit")
@pytest.mark.parametrize(
    "options", [(), ("--no-sr",), ("--filter=noextents",), ("--filter=noparallel",)]
)
def test_servers_that_offer_less_give_the_same_disk(raw: Path, options: tuple[str, ...]) -> None:
    """Fails if simple replies, or no block status, make another disk."""
    server = nbdkit(*options, "-r", "file", str(raw))
    with server as path, closing(NbdStorage.open(uri(path))) as disk:
        assert read(disk, 0, SIZE) == raw.read_bytes()
        kinds = {extent.kind for extent in disk.extents(0, SIZE)}
    has_map = options not in (("--no-sr",), ("--filter=noextents",))
    assert kinds == ({Kind.DATA, Kind.HOLE} if has_map else {Kind.DATA})


@pytest.mark.oracle("nbdkit")
def test_sixteen_threads_read_from_a_server_that_takes_its_time(raw: Path) -> None:
    """Fails if replies that come late, and in another order, reach the wrong reader."""
    content = raw.read_bytes()
    server = nbdkit("--filter=delay", "-r", "file", str(raw), "rdelay=10ms")
    with (
        server as path,
        closing(NbdStorage.open(uri(path))) as disk,
        ThreadPoolExecutor(16) as pool,
    ):
        places = [(at, 1 + at % 70_000) for at in range(0, SIZE - 70_000, 99_991)]
        found = list(pool.map(lambda place: read(disk, *place), places))
    assert found == [content[at : at + length] for at, length in places]


@pytest.mark.oracle("nbdkit")
def test_requests_keep_to_the_block_sizes_of_a_server(raw: Path) -> None:
    """Fails if a server that takes only whole blocks of 4 KiB, 64 at most, is asked for others."""
    filters = ["--filter=blocksize-policy", "file", str(raw)]
    sizes = ["blocksize-minimum=4096", "blocksize-preferred=65536", "blocksize-maximum=262144"]
    server = nbdkit(*filters, *sizes, "blocksize-error-policy=error")
    with server as path, closing(NbdStorage.open(uri(path), writable=True)) as disk:
        content = bytearray(raw.read_bytes())
        assert disk.traits.logical_sector == 4096
        assert read(disk, 1, 700_001) == content[1:700_002]
        for offset, length in ((5 * MIB + 3, 300_000), (100, 1), (8191, 2)):
            disk.write(memoryview(b"\x07" * length), offset)
            content[offset : offset + length] = b"\x07" * length
        disk.zero(7 * MIB + 1, MIB)
        content[7 * MIB + 1 : 8 * MIB + 1] = bytes(MIB)
        disk.flush()
        assert read(disk, 0, SIZE) == content
    assert raw.read_bytes() == content


@pytest.mark.oracle("nbdkit")
def test_an_export_without_zeroing_is_written_all_the_same(
    raw: Path, tmp_path: Path, program: Program
) -> None:
    """Fails if commands are sent that a server does not offer."""
    copy = tmp_path / "copy"
    with copy.open("wb") as file:
        file.write(b"\xff" * SIZE)
    with nbdkit("--filter=nozero", "file", str(copy)) as path:
        program.ok("convert", raw, uri(path), "--force", "--progress", "none")
    assert copy.read_bytes() == raw.read_bytes()


@pytest.mark.oracle("qemu-nbd")
def test_an_export_is_overwritten_like_a_device(
    raw: Path, tmp_path: Path, program: Program
) -> None:
    """Fails if it is done unasked, or what was there before shows through."""
    copy = tmp_path / "copy"
    with copy.open("wb") as file:
        file.write(b"\xff" * (SIZE + 3 * MIB))
    with qemu_nbd(copy, "raw") as path:
        address = uri(path)
        assert "would be erased" in program.refuses(5, "convert", raw, address)[0]
        assert copy.read_bytes() == b"\xff" * (SIZE + 3 * MIB)
        done = program.ok("restore", raw, address, "--force", "--json", "--progress", "none")
        assert done.json["bytes_written"] < SIZE
        again = program.ok("restore", raw, address, "--delta", "--force", "--json")
        assert again.json["bytes_written"] == 0
        program.ok("capture", address, "back.e01", "--verify", "--progress", "none")
        assert "is the source as well" in program.refuses(5, "convert", address, address)[0]
    assert copy.read_bytes()[:SIZE] == raw.read_bytes()
    assert copy.read_bytes()[-MIB:] == bytes(MIB)
    program.ok("compare", "back.e01", copy, "-F", "raw")


@pytest.mark.oracle("qemu-nbd")
def test_exports_that_cannot_be_targets_are_refused(
    raw: Path, tmp_path: Path, program: Program
) -> None:
    """Fails if a small or read-only export is begun to be written."""
    small = tmp_path / "small"
    small.write_bytes(bytes(MIB))
    with qemu_nbd(small, "raw") as path:
        said = program.refuses(5, "convert", raw, uri(path), "--force")
        assert f"has {MIB} bytes, {SIZE} are needed" in said[0]
        assert "read-only" not in said[0]
    with qemu_nbd(raw, "raw", "-r") as path:
        assert "read-only" in program.refuses(5, "convert", small, uri(path), "--force")[0]


@pytest.mark.oracle("nbdkit")
def test_a_write_that_fails_fails_the_copy(raw: Path, program: Program) -> None:
    """Fails if an error that comes after the next write was sent is lost."""
    filters = ["--filter=error", "memory", str(SIZE), "error-pwrite=ENOSPC"]
    with nbdkit(*filters, "error-pwrite-rate=1") as path:
        done = program("convert", raw, uri(path), "--force", "--progress", "none")
    assert done.exit_code == 5
    assert "no space left on device" in done.messages[-1]


@pytest.mark.oracle("nbdkit")
def test_bad_areas_over_nbd_are_rescued_around(raw: Path, tmp_path: Path, program: Program) -> None:
    """Fails if a failing medium behind NBD ends the capture, or costs more than its bad sectors."""
    bad = [(MIB // 2, 4096), (7 * MIB + 512, 1024)]
    lines = ["# Mapfile", "0x0 + 1"]
    position = 0
    for start, length in [*bad, (SIZE, 0)]:
        lines.append(f"0x{position:x} 0x{start - position:x} +")
        if length:
            lines.append(f"0x{start:x} 0x{length:x} -")
        position = start + length
    (tmp_path / "bad.map").write_text("\n".join(lines) + "\n")
    options = [f"ddrescue-mapfile={tmp_path / 'bad.map'}"]
    with nbdkit("-r", "--filter=ddrescue", "file", str(raw), *options) as path:
        done = program("capture", uri(path), "copy.raw", "--json", "--progress", "none")
    assert done.exit_code == 6, done.err
    assert done.json["bad"] == [{"offset": start, "length": length} for start, length in bad]
    expected = bytearray(raw.read_bytes())
    for start, length in bad:
        expected[start : start + length] = bytes(length)
    assert (tmp_path / "copy.raw").read_bytes() == expected


@pytest.mark.oracle("qemu-nbd", "nbdkit")
def test_what_is_wrong_with_a_server_is_said_in_one_line(
    raw: Path, tmp_path: Path, program: Program
) -> None:
    """Fails if a user has to guess why an export cannot be opened."""
    nobody = program.refuses(8, "info", uri(tmp_path / "nobody"))
    assert "no such file" in nobody[0]
    assert "connection refused" in program.refuses(8, "info", "nbd://127.0.0.1:1/x")[0]
    program.refuses(2, "info", "nbd+unix:///x")
    program.refuses(2, "info", "nbd://host/x?socket=/y")
    with qemu_nbd(raw, "raw", "-r", "-x", "one") as path:
        said = program.refuses(8, "info", uri(path, "two"))
        assert "has no export 'two'" in said[0]
        assert "'one'" in said[1]
        assert (
            "the server offers no TLS"
            in program.refuses(8, "info", uri(path, "one").replace("nbd+", "nbds+"))[0]
        )
        assert program.ok("info", "--json", uri(path, "one")).json["size"] == SIZE
    with nbdkit("--oldstyle", "-r", "file", str(raw)) as path:
        program.refuses(4, "info", uri(path))


@pytest.mark.oracle("nbdkit")
def test_tls_is_used_where_it_is_asked_for(raw: Path, tmp_path: Path) -> None:
    """Fails if certificates are not checked, or a server that needs TLS cannot be read."""
    folder, others = tmp_path / "pki", tmp_path / "others"
    make_certificates(folder)
    make_certificates(others)
    options = ["--tls=require", f"--tls-certificates={folder}", "--tls-verify-peer"]
    with nbdkit(*options, "-r", "file", str(raw)) as path:
        secure = uri(path).replace("nbd+unix", "nbds+unix")
        with closing(NbdStorage.open(f"{secure}&tls-certificates={folder}")) as disk:
            assert read(disk, 0, SIZE) == raw.read_bytes()
        with pytest.raises(NetworkError, match="needs TLS"):
            NbdStorage.open(uri(path))
        for wrong in (
            f"&tls-certificates={others}",
            "",
            f"&tls-certificates={folder}&tls-hostname=x",
        ):
            with pytest.raises(NetworkError, match="certificate verify failed"):
                NbdStorage.open(f"{secure}{wrong}")
        with pytest.raises(ReadError, match="no certificates"):
            NbdStorage.open(f"{secure}&tls-certificates={tmp_path / 'none'}")


class Cutting:
    """Passes bytes on between a client and a server, and cuts connections short."""

    def __init__(self, path: Path, server: Path, cuts: list[int]) -> None:
        self._server, self._cuts, self.connections = server, cuts, 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._start(self._accept)

    def close(self) -> None:
        self._end(self._listener)
        self._threads[0].join()
        self._end(*self._open)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._open += [client, server]
                self.connections += 1
                left = self._cuts.pop(0) if self._cuts else 1 << 40
                server.connect(str(self._server))
                self._start(self._pass, client, server, 1 << 40)
                self._start(self._pass, server, client, left)

    def _pass(self, one: socket.socket, other: socket.socket, left: int) -> None:
        with suppress(OSError):
            while left and (data := one.recv(min(65536, left))):
                other.sendall(data)
                left -= len(data)
        self._end(one, other)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def policy() -> NbdPolicy:
    return NbdPolicy(timeout_s=20, attempts=4, pause_s=0.01)


@pytest.mark.oracle("qemu-nbd")
def test_reads_survive_connections_that_break(raw: Path, policy: NbdPolicy) -> None:
    """Fails if a broken connection ends a read, or bytes of two attempts are mixed up."""
    with (
        qemu_nbd(raw, "raw", "-r") as server,
        socket_path() as path,
        closing(Cutting(path, server, [300_000, 1_000_000, 2_000_000])) as between,
        closing(NbdStorage.open(uri(path), policy=policy)) as disk,
    ):
        found = b"".join(read(disk, at, 2 * MIB) for at in range(0, SIZE, 2 * MIB))
        assert between.connections >= 4
    assert found == raw.read_bytes()


@pytest.mark.oracle("qemu-nbd")
def test_reads_do_not_survive_a_server_that_never_answers(raw: Path, policy: NbdPolicy) -> None:
    """Fails if attempts have no end."""
    with (
        qemu_nbd(raw, "raw", "-r") as server,
        socket_path() as path,
        closing(Cutting(path, server, [3000, *[200] * 99])),
        closing(NbdStorage.open(uri(path), policy=policy)) as disk,
        pytest.raises(NetworkError, match="tried 4 times"),
    ):
        read(disk, 0, MIB)


@pytest.mark.oracle("qemu-nbd")
def test_writes_do_not_survive_a_broken_connection(raw: Path, policy: NbdPolicy) -> None:
    """Fails if what was written and not flushed is believed to be there."""
    with (
        qemu_nbd(raw, "raw") as server,
        socket_path() as path,
        closing(Cutting(path, server, [400])),
        closing(NbdStorage.open(uri(path), writable=True, policy=policy)) as disk,
        pytest.raises(NetworkError),
    ):
        _overwrite(disk)


def _overwrite(disk: NbdStorage) -> None:
    for _ in range(4):
        for at in range(0, SIZE, MIB):
            disk.write(memoryview(bytes(MIB)), at)
    disk.flush()


@pytest.mark.oracle("nbdkit")
def test_a_disk_is_not_read_on_from_another_one(raw: Path) -> None:
    """Fails if a server that comes back with another export is taken for the same."""
    policy = NbdPolicy(timeout_s=3, attempts=2, pause_s=0.01)
    with socket_path() as path:
        with nbdkit("file", str(raw)) as first:
            path.symlink_to(first)
            disk = NbdStorage.open(uri(path), policy=policy)
            read(disk, 0, MIB)
        with nbdkit("null", "1M") as second, closing(disk):
            path.unlink()
            path.symlink_to(second)
            with pytest.raises(NetworkError, match="has become another"):
                read(disk, 0, MIB)
