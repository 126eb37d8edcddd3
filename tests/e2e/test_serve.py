"""``serve`` as its users run it: where it listens, what it says, and how it ends."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.storage.nbd import NbdStorage
from imprint.testing.nbd_peers import make_certificates, socket_path, uri
from imprint.testing.program import Served, serve

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB: Final = 1 << 20


def content_of(address: str) -> bytes:
    with closing(NbdStorage.open(address)) as export:
        data = bytearray(export.size)
        export.readinto(memoryview(data), 0)
    return bytes(data)


def test_it_listens_on_this_host_only_and_says_where(program: Program, disk: Path) -> None:
    """Fails if a client cannot use the address that is printed, or strangers could."""
    with serve(program, "disk.raw", "--port", "0") as served:
        [address] = served.said["uris"]
        assert address.startswith("nbd://127.0.0.1:")
        assert served.said["exports"] == [
            {"name": "disk.raw", "size": 8 * MIB, "read_only": True, "uris": [address]}
        ]
        assert content_of(address) == disk.read_bytes()
        program.ok("compare", address, "disk.raw", "-f", "raw", "-F", "raw")
        served.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_on_signals_with_clients_connected(
    program: Program, disk: Path, number: signal.Signals
) -> None:
    """Fails if an idle client keeps the server, or the socket stays behind."""
    with socket_path() as path:
        with serve(program, "disk.raw", "--unix", path, "--cow", "cow.qcow2") as served:
            assert path.stat().st_mode & 0o777 == 0o600
            with closing(NbdStorage.open(uri(path), writable=True)) as export:
                export.write(memoryview(b"new"), 100)
                export.flush()
                export.write(memoryview(b"newer"), MIB)
                served.end(number)
        assert not path.exists()
        assert disk.read_bytes()[100:103] != b"new"
        program.ok("check", "cow.qcow2")
        with serve(program, "disk.raw", "--unix", path, "--cow", "cow.qcow2") as served:
            assert content_of(uri(path))[100:103] == b"new"
            served.end()


def test_once_it_ends_when_the_last_client_has_left(program: Program, disk: Path) -> None:
    """Fails if --once serves for ever, or a look at the list counts as a client."""
    with socket_path() as path, serve(program, disk, "--unix", path, "--once") as served:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        first, second = NbdStorage.open(uri(path)), NbdStorage.open(uri(path))
        first.close()
        assert served.process.poll() is None
        second.close()
        served.wait()


def test_several_disks_have_names_and_parts_are_disks(program: Program, disk: Path) -> None:
    """Fails if an export is another disk than its name says."""
    other = program.folder / "other.qcow2"
    program.ok("convert", "disk.raw", other, "--progress", "none")
    program.ok("repo", "init", "images")
    program.ok("convert", "disk.raw", "repo:images::old", "--progress", "none")
    small = random.Random(1).randbytes(4096)
    (program.folder / "small=x.raw").write_bytes(small)
    images = ["one=disk.raw", "other.qcow2", "repo:images::old", "small=x.raw"]
    with socket_path() as path, serve(program, *images, "--unix", path) as served:
        names = [item["name"] for item in served.said["exports"]]
        assert names == ["one", "other.qcow2", "old", "small=x.raw"]
        for address in served.said["uris"][:3]:
            assert content_of(address) == disk.read_bytes()
        assert content_of(served.said["uris"][3]) == small
        assert content_of(uri(path)) == disk.read_bytes()
        served.end()


def test_an_image_is_written_only_where_that_was_asked_for(program: Program, disk: Path) -> None:
    """Fails if a client writes into an image by default, or raw is guessed."""
    assert "raw" in program.refuses(5, "serve", "disk.raw", "--writable", "--port", "0")[0]
    options = ("-f", "raw", "--writable")
    with socket_path() as path, serve(program, disk, *options, "--unix", path) as served:
        with closing(NbdStorage.open(uri(path), writable=True)) as export:
            export.write(memoryview(b"written"), 5 * MIB)
            export.commit()
        program.refuses(5, "serve", disk, *options, "--port", "0")
        served.end()
    assert disk.read_bytes()[5 * MIB : 5 * MIB + 7] == b"written"


def test_an_overlay_belongs_to_one_disk(program: Program, disk: Path) -> None:
    """Fails if an overlay is laid over another disk, or a file that is none is overwritten."""
    program.ok("create", "other.raw", "8M", "-O", "raw")
    with serve(program, "disk.raw", "--port", "0", "--cow", "cow.qcow2") as served:
        served.end()
    said = program.refuses(5, "serve", "other.raw", "--port", "0", "--cow", "cow.qcow2")
    assert "expected an overlay of" in said[0]
    before = disk.read_bytes()
    program.refuses(5, "serve", "other.raw", "--port", "0", "--cow", "disk.raw")
    program.refuses(2, "serve", "a=disk.raw", "b=disk.raw", "--port", "0", "--cow", "c.qcow2")
    assert disk.read_bytes() == before


@pytest.mark.oracle("qemu-img", "qemu-io")
def test_an_overlay_belongs_to_one_state_of_a_disk(program: Program, disk: Path) -> None:
    """Fails if what was written over a snapshot is laid over what the disk became, or found so."""
    folder = program.folder
    image, cow = folder / "image.qcow2", folder / "cow.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, image], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "one", image], check=True)
    options = ["--port", "0", "--cow", "cow.qcow2"]
    for _ in range(2):
        with serve(program, "image.qcow2", *options, "--snapshot", "one") as served:
            served.end()
    assert "snapshot one" in program.refuses(5, "serve", "image.qcow2", *options)[0]
    check: list[str | Path] = ["qemu-io", "-f", "qcow2", "-c", "read 0 512", cow]
    assert (
        "No such file" in subprocess.run(check, capture_output=True, text=True, check=False).stderr
    )
    cow.unlink()
    program.ok("repo", "init", "r")
    program.ok("capture", "image.qcow2", "repo:r::disk")
    for _ in range(2):
        with serve(program, "repo:r::disk", *options) as served:
            served.end()
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size + 512)
    program.ok("capture", image, "repo:r::disk", "-f", "raw")
    assert "expected an overlay of" in program.refuses(5, "serve", "repo:r::disk", *options)[0]


@pytest.mark.oracle("qemu-img")
def test_an_overlay_that_qemu_has_made_is_used(program: Program, disk: Path) -> None:
    """Fails if only overlays of our own are known again, or one of the disk as another format."""
    (program.folder / "own").mkdir()
    for kind in ("raw", "qcow2"):
        words = ["-f", "qcow2", "-F", kind, "-b", "../disk.raw", "-u", f"{kind}.qcow2", "8M"]
        subprocess.run(["qemu-img", "create", "-q", *words], cwd=program.folder / "own", check=True)
    with serve(program, disk, "--port", "0", "--cow", "own/raw.qcow2") as served:
        served.end()
    said = program.refuses(5, "serve", disk, "--port", "0", "--cow", "own/qcow2.qcow2")
    assert "found one of ../disk.raw (qcow2)" in said[0]


def test_wishes_that_make_no_sense_are_refused(program: Program, disk: Path) -> None:
    """Fails if a server starts that is not the one that was asked for."""
    assert disk.exists()
    for wish in (
        ("--once", "--persistent"),
        ("--read-only", "--writable"),
        ("--tls-cert", "x"),
        ("--tls-verify-peer",),
        ("--port", "65536"),
        ("--bind", "not an address"),
        ("disk.raw",),
    ):
        program.refuses(2, "serve", "disk.raw", *wish)
    program.refuses(3, "serve", "disk.raw", "--tls", "missing")
    program.refuses(3, "serve", "missing.raw", "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "in use" in program.refuses(5, "serve", "disk.raw", "--port", port)[0]


def test_tls_with_a_folder_of_certificates(program: Program, disk: Path) -> None:
    """Fails if imprint's server and client do not understand each other's TLS."""
    make_certificates(program.folder / "pki")
    options = ["--port", "0", "--tls", "pki", "--tls-verify-peer"]
    with serve(program, disk, *options) as served:
        [address] = served.said["uris"]
        assert address.startswith("nbds://127.0.0.1:")
        trusted = f"{address}?tls-certificates={program.folder / 'pki'}"
        assert content_of(trusted) == disk.read_bytes()
        assert "verify failed" in program.refuses(8, "info", address)[0]
        assert "needs TLS" in program.refuses(8, "info", address.replace("nbds", "nbd"))[0]
        nobody = program.folder / "nobody"
        nobody.mkdir()
        shutil.copy(program.folder / "pki" / "ca-cert.pem", nobody)
        unknown = f"{address}?tls-certificates={nobody}"
        assert "certificate required" in program.refuses(8, "info", unknown)[0]
        served.end()


STARTER: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "imprint", *sys.argv[2:]])
"""


def test_sockets_of_systemd_are_used(program: Program, disk: Path) -> None:
    """Fails if a server that is started for a socket listens elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        arguments = [str(number), "serve", "--json", "disk.raw", "--once"]
        with subprocess.Popen(
            [sys.executable, "-c", STARTER, *arguments],
            cwd=program.folder,
            env={**program.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            served = Served(process)
            port = listener.getsockname()[1]
            assert served.said["uris"] == [f"nbd://127.0.0.1:{port}/disk.raw"]
            assert content_of(served.said["uris"][0]) == disk.read_bytes()
            served.wait()


def test_what_a_killed_server_has_left_is_taken_up(program: Program, disk: Path) -> None:
    """Fails if a dead socket has to be removed by hand, or what was flushed is lost."""
    options = ("--cow", "cow.qcow2")
    with socket_path() as path:
        with (
            serve(program, disk, *options, "--unix", path) as served,
            closing(NbdStorage.open(uri(path), writable=True)) as export,
        ):
            program.refuses(5, "serve", disk, "--unix", path)
            export.write(memoryview(b"kept"), MIB)
            export.flush()
            served.process.kill()
            served.process.wait()
        assert path.exists()
        program.ok("check", "cow.qcow2")
        with serve(program, disk, *options, "--unix", path) as served:
            expected = bytearray(disk.read_bytes())
            expected[MIB : MIB + 4] = b"kept"
            assert content_of(uri(path)) == expected
            served.end()
