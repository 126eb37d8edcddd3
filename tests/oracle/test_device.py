"""Real block devices: loop devices, with util-linux and the kernel as judges."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imprint.core.errors import (
    ReadError,
    RefusedError,
    TargetBusyError,
    TargetError,
    TargetTooSmallError,
    TruncatedImageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import KIB, MIB
from imprint.storage.device import DeviceStorage, confirm_text, describe
from imprint.storage.device_target import HELD_BYTES, DeviceTarget
from imprint.storage.memory import MemoryStorage
from imprint.storage.stream import open_input

pytestmark = [pytest.mark.root, pytest.mark.oracle("losetup", "blockdev", "partx")]

SIZE = 8 * MIB
BODY_WRITER = """
import sys, time
from pathlib import Path
from imprint.storage.device_target import DeviceTarget
target = DeviceTarget.open(Path(sys.argv[1]))
target.write(memoryview(b"new!" * (target.size // 4)), 0)
target.flush()
print("written", flush=True)
time.sleep(60)
"""


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def hide_partitions(device: Path) -> None:
    """Fails where there are none, which is as good."""
    subprocess.run(["partx", "--delete", device], check=False, capture_output=True)


@dataclass
class Machine:
    """Makes devices, mounts and swap, and undoes them in the right order."""

    folder: Path
    undo: ExitStack = field(default_factory=ExitStack)

    def file(self, content: bytes, name: str = "disk.img") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def attach(self, file: Path, *options: str) -> Path:
        device = Path(run("losetup", "--find", "--show", *options, file).strip())
        self.undo.callback(run, "losetup", "--detach", device)
        return device

    def disk(self, content: bytes, *options: str) -> tuple[Path, Path]:
        """A new device, and the file behind it."""
        file = self.file(content)
        return self.attach(file, *options), file

    def partitions(self, device: Path) -> list[Path]:
        """Show the device's partitions, also on kernels that know no partition tables."""
        run("partx", "--update", device)
        self.undo.callback(hide_partitions, device)
        return sorted(device.parent.glob(f"{device.name}p*"))

    def mount(self, device: Path, name: str = "mnt", *options: str) -> Path:
        point = self.folder / name
        point.mkdir()
        run("mount", *options, device, point)
        self.undo.callback(run, "umount", point)
        return point

    def swap(self, device: Path) -> None:
        run("swapon", device)
        self.undo.callback(run, "swapoff", device)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    with machine.undo:
        yield machine


@pytest.fixture
def opened() -> Iterator[Callable[[DeviceStorage], DeviceStorage]]:
    """Closes what a test opens, before the device goes."""
    with ExitStack() as stack:

        def keep(device: DeviceStorage) -> DeviceStorage:
            stack.callback(device.close)
            return device

        yield keep


Keep = Callable[[DeviceStorage], DeviceStorage]


def _random(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def _gpt(machine: Machine, *sizes: str) -> tuple[Path, Path, list[Path]]:
    """A device with a GPT made by sfdisk, its file, and its partitions."""
    file = machine.file(bytes(64 * MIB))
    table = "label: gpt\n" + "".join(f"size={size}\n" for size in sizes)
    subprocess.run(["sfdisk", "-q", str(file)], input=table, text=True, check=True)
    device = machine.attach(file)
    return device, file, machine.partitions(device)


@pytest.mark.parametrize("sector", [512, 4096])
def test_sizes_are_what_blockdev_says(machine: Machine, opened: Keep, sector: int) -> None:
    """Fails if a size or sector is taken from the wrong place."""
    path, _ = machine.disk(bytes(SIZE), "--sector-size", str(sector))
    device = opened(DeviceStorage.open(path))
    logical, physical, size = map(
        int, run("blockdev", "--getss", "--getpbsz", "--getsize64", path).split()
    )
    assert device.traits.logical_sector == logical == sector
    assert device.traits.physical_sector == physical
    assert device.size == device.stored_size == size == SIZE
    assert device.is_direct
    assert device.name == str(path)
    assert list(device.extents(5, 9)) == [Extent(5, 9, Kind.DATA, device, 5)]
    assert list(device.extents(5, 0)) == []


@pytest.mark.parametrize("sector", [512, 4096])
def test_reads_return_what_is_there(machine: Machine, opened: Keep, sector: int) -> None:
    """Fails if a range is misplaced: aligned ones are read directly, others by the cache."""
    content = _random(SIZE)
    path, _ = machine.disk(content, "--sector-size", str(sector))
    device = opened(DeviceStorage.open(path))
    buffer = memoryview(mmap.mmap(-1, 2 * MIB))
    for offset, length, shift in (
        (0, MIB, 0),
        (MIB, 2 * MIB, 0),
        (SIZE - MIB, MIB, 0),
        (512, 512, 0),
        (4096, 8192, 0),
        (4096, 8192, 512),
        (4096, 8192, 1),
        (4097, 8192, 0),
        (4096, 8191, 0),
        (SIZE - 1, 1, 0),
        (77, 100_001, 33),
        (SIZE, 0, 0),
    ):
        view = buffer[shift : shift + length]
        device.readinto(view, offset)
        assert view == content[offset : offset + length], (offset, length, shift)
    for offset, length in ((SIZE, 1), (SIZE - 1, 2), (1 << 60, 512)):
        with pytest.raises(TruncatedImageError):
            device.readinto(buffer[:length], offset)


def test_many_threads_can_read(machine: Machine, opened: Keep) -> None:
    """Fails if readers share a position."""
    content = _random(SIZE)
    path, _ = machine.disk(content)
    device = opened(DeviceStorage.open(path))

    def read(index: int) -> bool:
        offset = index * 7919 * 512 % (SIZE - 64 * KIB)
        view = memoryview(mmap.mmap(-1, 64 * KIB))
        device.readinto(view, offset)
        return view == content[offset : offset + 64 * KIB]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(100)))


def test_a_source_cannot_be_written(machine: Machine, opened: Keep) -> None:
    """Fails if evidence is opened in a way that allows to change it."""
    content = _random(SIZE)
    path, file = machine.disk(content)
    device = opened(DeviceStorage.open(path))
    assert not device.is_writable
    assert fcntl.fcntl(device.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(TargetError):
        device.write(memoryview(bytes(512)), 0)
    with pytest.raises(TargetError):
        device.zero(0, 4096)
    device.abort()
    assert file.read_bytes() == content


def test_a_mounted_device_can_be_read(machine: Machine, opened: Keep) -> None:
    """Fails if imaging a running system is refused."""
    path, file = machine.disk(bytes(SIZE))
    run("mkfs.ext4", "-q", file)
    machine.mount(path)
    device = opened(DeviceStorage.open(path))
    superblock = bytearray(2)
    device.readinto(memoryview(superblock), 1024 + 0x38)
    assert superblock == b"\x53\xef"


def test_what_a_file_system_wrote_past_the_cache_is_read(machine: Machine, opened: Keep) -> None:
    """Fails if a journal is read as it was when somebody read the device before."""
    path, file = machine.disk(bytes(4 * SIZE))
    extras = "lazy_itable_init=0,lazy_journal_init=0"
    run("mkfs.ext4", "-q", "-b", "4096", "-E", extras, "-J", "size=4", file)
    point = machine.mount(path)
    path.read_bytes()
    (point / "new").write_bytes(_random(100_000))
    run("sync", "--file-system", point)
    device = opened(DeviceStorage.open(path))
    buffer = memoryview(bytearray(4 * SIZE + 1))[1:]  # not aligned, so read through the cache
    device.readinto(buffer, 0)
    expected = file.read_bytes()
    start = expected.index(bytes.fromhex("c03b3998")) + 4096  # behind the journal's superblock
    written = expected[start : start + MIB]
    assert any(written)
    assert bytes(buffer[start : start + MIB]) == written


def test_a_device_as_standard_input_is_used_as_it_is(machine: Machine, opened: Keep) -> None:
    """Fails if ``< /dev/sdb`` copies the whole disk into a temporary file first."""
    content = _random(SIZE)
    path, _ = machine.disk(content)
    with path.open("rb", buffering=0) as file:
        device = open_input(file.fileno(), folder=machine.folder / "missing")
    assert isinstance(device, DeviceStorage)
    opened(device)
    found = memoryview(mmap.mmap(-1, SIZE))
    device.readinto(found, 0)
    assert found == content
    assert not device.is_writable


@pytest.mark.parametrize("writable", [False, True])
def test_only_block_devices_are_opened(tmp_path: Path, writable: bool) -> None:
    """Fails if a tape, a terminal or a file is taken for a disk."""
    file = tmp_path / "file"
    file.touch()
    error = TargetError if writable else ReadError
    with pytest.raises(error, match="found a character device"):
        DeviceStorage.open(Path("/dev/null"), writable=writable)
    for path in (file, tmp_path):
        with pytest.raises(error, match="expected a block device"):
            DeviceStorage.open(path, writable=writable)
    with pytest.raises(error, match="no such file"):
        DeviceStorage.open(tmp_path / "absent", writable=writable)


def test_a_bad_area_is_named_by_its_first_byte(machine: Machine, opened: Keep) -> None:
    """Fails if an error does not tell a rescue where to go on; behind the file is EIO."""
    content = _random(SIZE)
    path, file = machine.disk(content)
    os.truncate(file, 4 * MIB)
    device = opened(DeviceStorage.open(path))
    buffer = memoryview(mmap.mmap(-1, MIB))
    device.readinto(buffer, 3 * MIB)
    assert buffer == content[3 * MIB : 4 * MIB]
    with pytest.raises(ReadError, match="input/output error") as caught:
        device.readinto(buffer, 5 * MIB)
    assert (caught.value.offset, caught.value.length) == (5 * MIB, MIB)
    assert caught.value.name == str(path)
    with pytest.raises(ReadError) as caught:
        device.readinto(buffer[:512], 4 * MIB)
    assert (caught.value.offset, caught.value.length) == (4 * MIB, 512)


def test_writes_land_where_they_should(machine: Machine, opened: Keep) -> None:
    """Fails if aligned writes, cached writes and zeroing do not add up to one disk."""
    content = bytearray(_random(SIZE))
    path, file = machine.disk(bytes(content), "--sector-size", "4096")
    device = opened(DeviceStorage.open(path, writable=True))
    randomness = random.Random(3)
    buffer = memoryview(mmap.mmap(-1, 2 * MIB))
    for step in range(60):
        unit = randomness.choice([1, 512, 4096, 64 * KIB])
        offset = randomness.randrange(0, SIZE, unit)
        length = min(randomness.randint(1, MIB // unit) * unit, SIZE - offset)
        if step % 3 == 0:
            device.zero(offset, length)
            content[offset : offset + length] = bytes(length)
        else:
            shift = randomness.choice([0, 512, 3])
            view = buffer[shift : shift + length]
            view[:] = randomness.randbytes(length)
            device.write(view, offset)
            content[offset : offset + length] = view
        if step % 10 == 0:
            found = bytearray(SIZE)
            device.readinto(memoryview(found), 0)
            assert found == content
    device.commit()
    assert file.read_bytes() == content


def test_zeroing_makes_room_where_the_device_can(machine: Machine, opened: Keep) -> None:
    """Fails if zeros are written one by one though the device can make them."""
    path, file = machine.disk(_random(SIZE))
    device = opened(DeviceStorage.open(path, writable=True))
    device.zero(100, SIZE - 200)
    device.commit()
    content = file.read_bytes()
    assert content[100:-100] == bytes(SIZE - 200)
    assert content[:100] == _random(SIZE)[:100]
    assert content[-100:] == _random(SIZE)[-100:]


def test_a_device_keeps_its_size(machine: Machine, opened: Keep) -> None:
    """Fails if a disk that does not fit is written as far as it goes."""
    path, _ = machine.disk(bytes(SIZE))
    device = opened(DeviceStorage.open(path, writable=True))
    with pytest.raises(TargetTooSmallError):
        device.write(memoryview(bytes(2)), SIZE - 1)
    with pytest.raises(TargetTooSmallError):
        device.zero(SIZE, 1)
    with pytest.raises(TargetTooSmallError):
        device.resize(SIZE + 1)
    with pytest.raises(RefusedError):
        device.resize(SIZE - 1)
    device.resize(SIZE)
    device.close()
    with pytest.raises(TargetTooSmallError):
        DeviceTarget.open(path, size=SIZE + 1)
    DeviceTarget.open(path).close()


def test_bytes_are_copied_from_other_storages(machine: Machine, opened: Keep) -> None:
    """Fails if a copy from or to a device differs from its source."""
    path, _ = machine.disk(bytes(SIZE))
    device = opened(DeviceStorage.open(path, writable=True))
    data = _random(3 * MIB)
    source = MemoryStorage(data)
    assert not device.can_offload(source)
    device.copy_range(source, 5, 4096, 2 * MIB + 77)
    device.copy_range(device, 4096, 4 * MIB, 2 * MIB)
    found = bytearray(SIZE)
    device.readinto(memoryview(found), 0)
    assert found[4096 : 4096 + 2 * MIB + 77] == data[5 : 5 + 2 * MIB + 77]
    assert found[4 * MIB : 6 * MIB] == data[5 : 5 + 2 * MIB]


def test_a_read_only_device_is_no_target(machine: Machine) -> None:
    """Fails if a write-protected stick is found out only when the first write fails."""
    path, _ = machine.disk(bytes(SIZE), "--read-only")
    with pytest.raises(TargetError, match=r"read-only|not permitted"):
        DeviceStorage.open(path, writable=True)
    assert describe(path).is_read_only


def test_a_full_medium_is_an_error(machine: Machine, opened: Keep) -> None:
    """Fails if a write that the device could not keep passes for done."""
    tiny = machine.folder / "tiny"
    tiny.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tiny)
    machine.undo.callback(run, "umount", tiny)
    file = tiny / "disk.img"
    file.touch()
    os.truncate(file, SIZE)
    device = opened(DeviceStorage.open(machine.attach(file), writable=True))
    buffer = memoryview(mmap.mmap(-1, 4 * MIB))
    buffer[:] = _random(4 * MIB)
    with pytest.raises(TargetError, match=r"input/output error|no space left"):  # noqa: PT012
        device.write(buffer, 0)
        device.flush()


class TestBusy:
    """Whatever uses a device, or a part of it, keeps writers away, and is named."""

    def test_a_mounted_device_is_refused(self, machine: Machine) -> None:
        """Fails if a file system in use could be overwritten."""
        path, file = machine.disk(bytes(SIZE))
        run("mkfs.ext4", "-q", file)
        point = machine.mount(path, "my disk")
        with pytest.raises(TargetBusyError, match=f"mounted at {point}") as caught:
            DeviceTarget.open(path)
        assert caught.value.name == str(path)
        assert describe(path).used_by == (f"{path.name} is mounted at {point}",)

    @pytest.mark.oracle("sfdisk", "mkfs.ext4")
    def test_a_mounted_partition_guards_its_disk(self, machine: Machine) -> None:
        """Fails if only the device's own mounts count; its neighbour is free, though."""
        disk, _, (first, second) = _gpt(machine, "16M", "16M")
        run("mkfs.ext4", "-q", first)
        point = machine.mount(first)
        for path in (disk, first):
            with pytest.raises(TargetBusyError, match=f"{first.name} is mounted at {point}"):
                DeviceTarget.open(path)
        DeviceTarget.open(second).close()

    @pytest.mark.oracle("mkswap", "swapon")
    def test_swap_is_refused(self, machine: Machine) -> None:
        """Fails if the memory of running programs could be overwritten."""
        path, file = machine.disk(bytes(SIZE))
        file.chmod(0o600)
        run("mkswap", file)
        machine.swap(path)
        with pytest.raises(TargetBusyError, match=f"{path.name} is used as swap"):
            DeviceTarget.open(path)

    def test_the_backing_of_a_loop_device_is_refused(self, machine: Machine) -> None:
        """Fails if a user is overlooked that the kernel's exclusive claim does not show."""
        lower, file = machine.disk(bytes(SIZE))
        run("mkfs.ext4", "-q", file)
        upper = machine.attach(lower)
        point = machine.mount(upper)
        expected = f"held by {upper.name} .a loop device., which is mounted at {point}"
        with pytest.raises(TargetBusyError, match=expected):
            DeviceTarget.open(lower)

    @pytest.mark.oracle("mkfs.btrfs")
    def test_every_device_of_a_btrfs_is_refused(self, machine: Machine) -> None:
        """Fails if the second device of a file system is free game: mounts name one only."""
        devices = []
        for name in ("one", "two"):
            file = machine.file(b"", name)
            os.truncate(file, 128 * MIB)
            devices.append(machine.attach(file))
        run("mkfs.btrfs", "-q", "-f", "-d", "single", *devices)
        run("mount", "-t", "btrfs", "-o", f"device={devices[1]}", devices[0], machine.folder)
        machine.undo.callback(run, "umount", machine.folder)
        with pytest.raises(TargetBusyError, match="is mounted at"):
            DeviceTarget.open(devices[0])
        with pytest.raises(TargetBusyError, match="is a part of a mounted Btrfs"):
            DeviceTarget.open(devices[1])

    def test_two_cannot_write_one_device(self, machine: Machine) -> None:
        """Fails if two copies to one stick would mix; the claim covers its partitions."""
        path, _ = machine.disk(bytes(SIZE))
        first = DeviceTarget.open(path)
        with pytest.raises(TargetBusyError, match="claimed"):
            DeviceTarget.open(path)
        with pytest.raises(subprocess.CalledProcessError):
            run("mount", path, machine.folder)
        first.close()
        DeviceTarget.open(path).close()


class TestFacts:
    @pytest.mark.oracle("sfdisk", "lsblk", "mkfs.ext4")
    def test_a_disk_is_described_as_lsblk_does(self, machine: Machine) -> None:
        """Fails if a partition, its place or its mount is wrong."""
        disk, _, (first, _second) = _gpt(machine, "16M", "20M")
        run("mkfs.ext4", "-q", first)
        point = machine.mount(first)
        columns = "PATH,SIZE,START,RO,ROTA,LOG-SEC,PHY-SEC,MOUNTPOINTS"
        rows = json.loads(run("lsblk", "-J", "-b", "-l", "-o", columns, disk))["blockdevices"]
        seen, *parts = sorted(rows, key=lambda row: str(row["path"]))
        info = describe(disk)
        assert (info.path, info.size) == (seen["path"], seen["size"])
        assert (info.is_read_only, info.is_rotational) == (seen["ro"], seen["rota"])
        assert (info.logical_sector, info.physical_sector) == (seen["log-sec"], seen["phy-sec"])
        assert [(part.path, part.size, part.start) for part in info.partitions] == [
            (part["path"], part["size"], part["start"] * 512) for part in parts
        ]
        assert [part.mounts for part in info.partitions] == [(str(point),), ()]
        assert info.used_by == (f"{first.name} is mounted at {point}",)
        assert describe(first).partitions == ()

    def test_the_name_to_type_is_that_of_the_kernel(self, machine: Machine) -> None:
        """Fails if a link's name could be typed without knowing where it leads."""
        path, _ = machine.disk(bytes(SIZE))
        link = machine.folder / "innocent"
        link.symlink_to(path)
        assert confirm_text(link) == confirm_text(path) == path.name
        with pytest.raises(ReadError):
            confirm_text(machine.folder)


class TestTarget:
    def test_a_disk_is_written_whole(self, machine: Machine) -> None:
        """Fails if what commit says is durable is not what was written."""
        path, file = machine.disk(_random(SIZE, 1))
        new = _random(SIZE, 2)
        target = DeviceTarget.open(path, size=SIZE)
        for start in range(0, SIZE, MIB):
            view = memoryview(mmap.mmap(-1, MIB))
            view[:] = new[start : start + MIB]
            target.write(view, start)
        target.commit()
        target.close()
        assert file.read_bytes() == new

    @pytest.mark.oracle("sfdisk", "wipefs")
    def test_a_killed_writer_leaves_no_partition_table(self, machine: Machine) -> None:
        """Fails if the machine could boot, or mount, a disk that is half old and half new."""
        disk, file, _ = _gpt(machine, "16M", "16M")
        size = file.stat().st_size
        with subprocess.Popen(
            [sys.executable, "-c", BODY_WRITER, str(disk)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            writer.send_signal(signal.SIGKILL)
        content = file.read_bytes()
        assert content[:HELD_BYTES] == bytes(HELD_BYTES)
        assert content[HELD_BYTES:-HELD_BYTES] == b"new!" * ((size - 2 * HELD_BYTES) // 4)
        assert content[-HELD_BYTES:] == bytes(HELD_BYTES)
        assert run("wipefs", "--no-act", disk) == ""

    @pytest.mark.oracle("sfdisk")
    def test_an_aborted_disk_has_no_partition_table(self, machine: Machine) -> None:
        """Fails if giving up leaves a table, or if giving up before the start removes it."""
        disk, file, _ = _gpt(machine, "16M")
        before = file.read_bytes()
        DeviceTarget.open(disk).abort()
        assert file.read_bytes() == before
        target = DeviceTarget.open(disk)
        target.write(memoryview(b"new"), 10 * MIB)
        target.abort()
        content = file.read_bytes()
        assert content[:HELD_BYTES] == content[-HELD_BYTES:] == bytes(HELD_BYTES)

    @pytest.mark.oracle("sfdisk")
    def test_a_gpt_survives_the_way_to_a_larger_disk(self, machine: Machine) -> None:
        """Fails if the new table is not found, or the old disk's backup table still is."""
        small = machine.file(bytes(32 * MIB), "small.img")
        subprocess.run(
            ["sfdisk", "-q", str(small)], input="label: gpt\nsize=8M\n", text=True, check=True
        )
        disk, file, _ = _gpt(machine, "20M", "20M")
        new = small.read_bytes()
        target = DeviceTarget.open(disk, size=len(new))
        target.write(memoryview(new), 0)
        target.commit()
        content = file.read_bytes()
        assert content[: len(new)] == new
        assert content[-HELD_BYTES:] == bytes(HELD_BYTES)
        (part,) = json.loads(run("sfdisk", "-J", disk))["partitiontable"]["partitions"]
        assert part["size"] * 512 == 8 * MIB
