"""What ``serve`` exports, as disks of the Linux kernel: ``nbd-client`` in a guest of QEMU."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.guest import HOST, PACKAGES, TOOLS, Guest, find_kernel, make_initramfs, running
from imprint.testing.nbd_peers import make_certificates
from imprint.testing.oracles import run
from imprint.testing.program import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.testing.program import Program

KIB: Final = 1 << 10
MIB: Final = 1 << 20
CONTENT: Final = random.Random(11).randbytes(500 * KIB)
"""What the guest writes: ``/files/content`` there."""

PROGRAMS: Final = ("nbd-client", "mke2fs", "fstrim", "blkdiscard")

pytestmark = pytest.mark.oracle(*TOOLS, *PROGRAMS, "qemu-img", "e2fsck", "debugfs")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Guest]:
    kernel = find_kernel()
    if kernel is None:
        pytest.skip(f"no kernel for a guest: {PACKAGES} have one")
    (certificates / "content").write_bytes(CONTENT)
    initramfs = tmp_path_factory.mktemp("guest") / "initramfs"
    make_initramfs(initramfs, kernel, PROGRAMS, certificates)
    with running(kernel, initramfs) as found:
        found.run(f"date -s @{int(certificates.stat().st_mtime) + 60}")  # for certificates
        yield found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def port_of(said: dict[str, list[str]]) -> str:
    return said["uris"][0].rpartition("/")[0].rpartition(":")[2]


def attach(guest: Guest, port: str, device: str, *options: str) -> None:
    guest.run(" ".join(["/host/nbd-client", HOST, port, f"/dev/{device}", *options]))
    guest.run(f"while [ $(cat /sys/block/{device}/size) = 0 ]; do sleep 0.01; done")


def detach(guest: Guest, device: str) -> None:
    guest.run(f"/host/nbd-client -d /dev/{device}")
    guest.run(f"while [ -e /sys/block/{device}/pid ]; do sleep 0.01; done")


def queue(guest: Guest, device: str, name: str) -> str:
    """What the kernel makes of what we tell: ``Documentation/ABI/stable/sysfs-block``."""
    return guest.run(f"cat /sys/block/{device}/queue/{name}")


def test_the_kernel_reads_each_export(guest: Guest, program: Program, disk: Path) -> None:
    """Fails if a sector of an export is another one in the kernel, or the kernel may write."""
    for image_format in ("qcow2", "e01"):
        program.ok("convert", "-f", "raw", disk, f"disk.{image_format}", "--progress", "none")
    expected = sha256(disk.read_bytes())
    images = ["raw=disk.raw", "disk.qcow2", "disk.e01"]
    with serve(program, *images, "--port", "0") as served:
        port = port_of(served.said)
        listed = guest.run(f"/host/nbd-client -l {HOST} {port}").splitlines()
        assert {line.partition(":")[0] for line in listed} >= {"raw", "disk.qcow2", "disk.e01"}
        for name, sector, options in (
            ("raw", 512, ("-N", "raw")),
            ("disk.qcow2", 4096, ("-N", "disk.qcow2", "-C", "4", "-b", "4096")),
            ("disk.e01", 1024, ("-N", "disk.e01", "-b", "1024", "-nonetlink")),
            ("raw", 512, ()),
        ):
            attach(guest, port, "nbd0", *options)
            assert guest.run("sha256sum </dev/nbd0").split()[0] == expected, name
            assert int(queue(guest, "nbd0", "logical_block_size")) == sector
            assert guest.run("cat /sys/block/nbd0/ro") == "1"
            guest.run("dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1", exit_code=1)
            detach(guest, "nbd0")
        guest.run(f"/host/nbd-client {HOST} {port} /dev/nbd0 -N nothing", exit_code=1)
        served.end()


def test_a_file_system_of_the_kernel_lands_in_the_overlay(
    guest: Guest, program: Program, disk: Path
) -> None:
    """Fails if a write, TRIM, zero or flush of the kernel gets lost, or into the image."""
    before = disk.read_bytes()
    with serve(program, "disk.raw", "--cow", "cow.qcow2", "--port", "0") as served:
        attach(guest, port_of(served.said), "nbd1", "-C", "2")
        assert queue(guest, "nbd1", "write_cache") == "write back"
        assert queue(guest, "nbd1", "fua") == "1"
        assert int(queue(guest, "nbd1", "discard_max_bytes")) > MIB
        guest.run("/host/mke2fs -q -F -t ext4 /dev/nbd1 6M")
        guest.run("mount -t ext4 -o discard /dev/nbd1 /mnt")
        guest.run("cp /files/content /mnt/kept; cp /files/content /mnt/gone; sync; rm /mnt/gone")
        guest.run("sync; /host/fstrim /mnt; umount /mnt")
        guest.run("dd if=/files/content of=/dev/nbd1 bs=1000 seek=6500 count=3 conv=fsync")
        guest.run("/host/blkdiscard -z -o 7M -l 512K /dev/nbd1")
        guest.run("echo 3 >/proc/sys/vm/drop_caches")
        seen = guest.run("sha256sum </dev/nbd1").split()[0]
        detach(guest, "nbd1")
        served.end()
    overlay, copy = program.folder / "cow.qcow2", program.folder / "copy.raw"
    run("qemu-img", "check", overlay)
    run("qemu-img", "convert", "-O", "raw", overlay, copy)
    content = copy.read_bytes()
    assert sha256(content) == seen
    assert content[6_500_000:6_503_000] == CONTENT[:3000]
    assert not any(content[7 * MIB : 7 * MIB + 512 * KIB])
    run("e2fsck", "-fn", copy)
    run("debugfs", "-R", f"dump kept {program.folder / 'kept'}", copy)
    assert (program.folder / "kept").read_bytes() == CONTENT
    assert disk.read_bytes() == before


def test_what_was_flushed_outlives_a_server_that_is_killed(
    guest: Guest, program: Program, disk: Path
) -> None:
    """Fails if the kernel hangs on a server that is gone, or cannot use the next one."""
    options = ("disk.raw", "--cow", "cow.qcow2")
    with serve(program, *options, "--port", "0") as served:
        attach(guest, port_of(served.said), "nbd2")
        guest.run("dd if=/files/content of=/dev/nbd2 bs=4096 seek=1000 conv=fsync")
        served.process.kill()
        served.process.wait()
    guest.run("dd if=/dev/nbd2 of=/dev/null bs=4096 count=1 skip=2000", exit_code=1)
    guest.run("/host/nbd-client -d /dev/nbd2; true")
    expected = bytearray(disk.read_bytes())
    expected[1000 * 4096 : 1000 * 4096 + len(CONTENT)] = CONTENT
    with serve(program, *options, "--port", "0") as served:
        attach(guest, port_of(served.said), "nbd2")
        assert guest.run("sha256sum </dev/nbd2").split()[0] == sha256(bytes(expected))
        detach(guest, "nbd2")
        served.end()


def test_the_kernel_reads_through_tls(
    guest: Guest, program: Program, disk: Path, certificates: Path
) -> None:
    """Fails if nbd-client's TLS does not understand ours, or gets anything without it."""
    trust = ("-cacertfile", "/files/ca-cert.pem", "-tlshostname", "localhost")
    own = ("-certfile", "/files/client-cert.pem", "-keyfile", "/files/client-key.pem")
    options = ("--tls", certificates, "--tls-verify-peer", "--port", "0")
    with serve(program, disk, *options) as served:
        port = port_of(served.said)
        said = guest.run(f"/host/nbd-client {HOST} {port} /dev/nbd3", exit_code=1)
        assert "this server needs TLS" in said
        guest.run(f"/host/nbd-client {HOST} {port} /dev/nbd3 {' '.join(trust)}", exit_code=1)
        attach(guest, port, "nbd3", *trust, *own, "-C", "2")
        assert guest.run("sha256sum </dev/nbd3").split()[0] == sha256(disk.read_bytes())
        detach(guest, "nbd3")
        served.end()
