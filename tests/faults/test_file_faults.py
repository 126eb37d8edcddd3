"""Files on a full disk, and writers that die: the old content or the new, and nothing else."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError, RefusedError, TargetBusyError, TargetError
from imprint.core.formats import CreateSpec
from imprint.core.units import KIB, MIB
from imprint.formats import raw
from imprint.storage import pending
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile, partial_path
from imprint.storage.stream import StreamStorage, spool
from imprint.testing.opener import DictOpener
from imprint.testing.volumes import small_disk
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WRITER = """
import sys, time
from pathlib import Path
from imprint.storage.pending import PendingFile
file = PendingFile.create(Path(sys.argv[1]), may_replace=True)
file.write(memoryview(b"new" * 100_000), 0)
if sys.argv[2] == "flushed":
    file.flush()
print("written", flush=True)
time.sleep(60)
"""


def _random(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(params=["tmpfs", "ext4"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some megabytes."""
    with small_disk(request.param, tmp_path, 5 * MIB) as point:
        yield point


@contextmanager
def _size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size``; Python ignores the signal for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _fill(file: FileStorage, start: int = 0) -> None:
    """Write more than there is room for, and insist on it."""
    for index in range(start, 16):
        file.write(memoryview(_random(MIB, index)), index * MIB)
    file.flush()


@pytest.mark.root
@pytest.mark.oracle("mkfs.ext4")
class TestFullDisk:
    def test_a_new_file_leaves_nothing(self, tiny: Path) -> None:
        """Fails if half an image stays on a disk that is full anyway."""
        before = sorted(tiny.iterdir())
        file = PendingFile.create(tiny / "disk.img", may_replace=False)
        with pytest.raises(TargetError, match="no space left") as caught:
            _fill(file)
        assert caught.value.offset is not None
        assert caught.value.exit_code == 5
        file.abort()
        assert sorted(tiny.iterdir()) == before

    def test_the_old_file_stays(self, tiny: Path) -> None:
        """Fails if replacing a file costs its content though there is no room for the new one."""
        path = tiny / "disk.img"
        old = _random(MIB, 99)
        path.write_bytes(old)
        file = PendingFile.create(path, may_replace=True)
        with pytest.raises(TargetError, match="no space left"):
            _fill(file)
        file.abort()
        assert path.read_bytes() == old
        assert not partial_path(path).exists()

    def test_a_copy_reports_it_and_cleans_up(self, tiny: Path) -> None:
        """Fails if the copy engine loses the error, or the rest of the file."""
        before = sorted(tiny.iterdir())
        file = PendingFile.create(tiny / "disk.img", may_replace=False)
        spec = CreateSpec(16 * MIB, DictOpener())
        source = raw.FORMAT.open(MemoryStorage(_random(16 * MIB)), DictOpener())
        target = raw.FORMAT.create(file, spec)
        with pytest.raises(TargetError, match="no space left"):
            copy(source, target, workers=2, detect_zeros=False)
        assert sorted(tiny.iterdir()) == before

    def test_a_file_changed_in_place_can_still_be_read(self, tiny: Path) -> None:
        """Fails if a write that does not fit harms what was there before."""
        path = tiny / "disk.img"
        old = _random(MIB, 99)
        path.write_bytes(old)
        file = FileStorage.open(path, writable=True)
        with pytest.raises(TargetError, match="no space left"):
            _fill(file, 1)
        file.abort()
        assert path.read_bytes()[:MIB] == old

    def test_a_range_copied_by_the_kernel_fails_alike(self, tiny: Path, tmp_path: Path) -> None:
        """Fails if an offloaded copy stops early without an error."""
        large = tmp_path / "large.img"
        large.write_bytes(_random(16 * MIB))
        source = FileStorage.open(large)
        file = PendingFile.create(tiny / "disk.img", may_replace=False)
        with pytest.raises(TargetError, match="no space left"):
            file.copy_range(source, 0, 0, 16 * MIB)
        file.abort()
        source.close()

    def test_standard_input_finds_no_room(self, tiny: Path) -> None:
        """Fails if a temporary copy that is cut short passes for the input."""
        before = os.statvfs(tiny).f_bavail
        output, input_ = os.pipe()
        with subprocess.Popen(["head", "-c", "16M", "/dev/urandom"], stdout=input_) as feeder:
            os.close(input_)
            with pytest.raises(TargetError, match="no space left") as caught:
                spool(output, tiny)
            os.close(output)
            feeder.wait()
        assert caught.value.name == str(tiny)
        assert os.statvfs(tiny).f_bavail == before

    def test_standard_output_into_a_file(self, tiny: Path) -> None:
        """Fails if ``> file`` on a full disk passes for success."""
        fd = os.open(tiny / "out", os.O_WRONLY | os.O_CREAT)
        try:
            with pytest.raises(TargetError, match="no space left"):
                StreamStorage(fd).zero(0, 16 * MIB)
        finally:
            os.close(fd)


class TestLimit:
    """The same without root: a limit on the size of files, which fails with EFBIG."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda file: file.write(memoryview(bytes(3 * MIB)), 0),
            lambda file: file.write(memoryview(b"x"), 2 * MIB),
            lambda file: file.resize(2 * MIB + 1),
            lambda file: file.zero(0, 2 * MIB + 1),
            lambda file: file.copy_range(MemoryStorage(bytes(3 * MIB)), 0, 0, 3 * MIB),
        ],
    )
    def test_growing_too_far_is_an_error(
        self, tmp_path: Path, change: Callable[[FileStorage], None]
    ) -> None:
        """Fails if a change that was not made passes for done."""
        path = tmp_path / "disk.img"
        path.write_bytes(b"old")
        file = PendingFile.create(path, may_replace=True)
        with _size_limit(2 * MIB), pytest.raises(TargetError, match="file too large"):
            change(file)
        file.abort()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_fits_is_kept(self, tmp_path: Path) -> None:
        """Fails if a write that fits exactly is refused."""
        data = _random(2 * MIB)
        file = PendingFile.create(tmp_path / "disk.img", may_replace=False)
        with _size_limit(2 * MIB):
            file.write(memoryview(data), 0)
            file.commit()
        assert (tmp_path / "disk.img").read_bytes() == data


class TestKilled:
    @pytest.mark.parametrize("stage", ["cached", "flushed"])
    @pytest.mark.parametrize("old", [None, b"old content"])
    def test_the_name_has_the_old_content_or_none(
        self, tmp_path: Path, old: bytes | None, stage: str
    ) -> None:
        """Fails if a killed writer leaves half an image under the final name."""
        path = tmp_path / "disk.img"
        if old is not None:
            path.write_bytes(old)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), stage], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            writer.send_signal(signal.SIGKILL)
        assert (path.read_bytes() if path.exists() else None) == old
        assert partial_path(path).read_bytes() == b"new" * 100_000

        # The dead writer's lock is gone with it: the next one starts from nothing.
        file = PendingFile.create(path, may_replace=True)
        assert file.size == 0
        file.write(memoryview(b"newer"), 0)
        file.commit()
        assert path.read_bytes() == b"newer"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_killed_writer_can_be_followed_up(self, tmp_path: Path) -> None:
        """Fails if what was written before cannot be taken up again."""
        path = tmp_path / "disk.img"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), "flushed"], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
        file = PendingFile.resume(path, may_replace=False)
        assert file.size == 300_000
        file.write(memoryview(b"end"), 300_000)
        file.commit()
        assert path.read_bytes() == b"new" * 100_000 + b"end"

    def test_a_writer_at_work_is_not_disturbed(self, tmp_path: Path) -> None:
        """Fails if a second process can take or truncate the file of the first."""
        path = tmp_path / "disk.img"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), "flushed"], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                with pytest.raises(ImagingError, match="in use by another program"):
                    PendingFile.create(path, may_replace=True)
                assert partial_path(path).stat().st_size == 300_000
            finally:
                writer.kill()


def test_a_lost_folder_is_an_error(tmp_path: Path) -> None:
    """Fails if a file that cannot get its name passes for finished."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = PendingFile.create(folder / "disk.img", may_replace=False)
    file.write(memoryview(bytes(64 * KIB)), 0)
    partial_path(folder / "disk.img").unlink()
    folder.rmdir()
    with pytest.raises(TargetError):
        file.commit()
    file.abort()


def test_a_file_that_another_process_has_just_finished_is_not_emptied(tmp_path: Path) -> None:
    """Fails if two writers of one name can empty the finished image of the first."""
    path = tmp_path / "disk.raw"
    first = PendingFile.create(path, may_replace=True)
    first.write(memoryview(b"whole"), 0)
    fd = os.open(partial_path(path), os.O_RDWR)
    first.commit()
    with pytest.raises(TargetBusyError, match="just finished"):
        pending._claim(fd, partial_path(path))
    os.close(fd)
    assert path.read_bytes() == b"whole"


def test_a_finished_image_is_kept_when_its_name_is_taken_meanwhile(tmp_path: Path) -> None:
    """Fails if the work is deleted because somebody else made a file of that name."""
    path = tmp_path / "disk.raw"
    storage = PendingFile.create(path, may_replace=False)
    storage.write(memoryview(b"ours"), 0)
    path.write_bytes(b"theirs")
    with pytest.raises(RefusedError, match="appeared"):
        storage.commit()
    storage.abort()
    assert path.read_bytes() == b"theirs"
    assert partial_path(path).read_bytes() == b"ours"
