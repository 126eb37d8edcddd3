"""Copies that are killed, and the same command again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imprint.core.errors import Cancelled, ReadError, RefusedError, TargetError
from imprint.core.events import Event, Finding, Progress
from imprint.endpoints.copying import CopyRequest, run
from imprint.endpoints.journal import journal_path
from imprint.endpoints.target import TargetRequest
from imprint.storage.pending import partial_path

MIB = 1 << 20
SIZE = 12 * MIB

FORMATS = [("raw", {}), ("vdi", {}), ("qcow2", {}), ("qcow2", {"compression": "zlib"})]
IDS = ["raw", "vdi", "qcow2", "qcow2-zlib"]

KILLED = """
import os, signal, sys
from imprint.core.events import Progress
from imprint.endpoints import copying
from imprint.endpoints.target import TargetRequest
from imprint.transfer import pace
pace.INTERVAL_S = 0
source, target, name, at, options = sys.argv[1:]
def die(event):
    if isinstance(event, Progress) and event.done >= int(at):
        os.kill(os.getpid(), signal.SIGKILL)
copying.run(copying.CopyRequest(
    source, TargetRequest(target, name, dict(eval(options)), force=True),
    on_event=die, workers=1, checkpoint_interval_s=0))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A disk with data, compressible and not, and holes."""
    path = tmp_path / "source.raw"
    noise = random.Random(11)
    with path.open("wb") as file:
        for index in range(12):
            file.seek(index * MIB)
            if index % 4 != 2:
                file.write(noise.randbytes(300_000) + b"text " * 50_000)
        file.truncate(SIZE)
    return path


def _kill_at(source: Path, target: Path, name: str, options: dict[str, str], at: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, source, target, name, str(at), repr(options)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL


def _content(path: Path, name: str) -> bytes:
    import imprint

    with imprint.open(path, format=name) as disk:
        return disk.read_at(0, disk.size)


@pytest.mark.parametrize(("name", "options"), FORMATS, ids=IDS)
@pytest.mark.parametrize("at", [2, 5, 11])
def test_a_killed_copy_leaves_the_old_file_and_goes_on(
    tmp_path: Path, source: Path, name: str, options: dict[str, str], at: int
) -> None:
    """Fails if kill -9 harms the old target, or the second attempt starts over or goes wrong."""
    target = tmp_path / "target.img"
    target.write_bytes(b"old content")

    _kill_at(source, target, name, options, at * MIB)

    assert target.read_bytes() == b"old content"
    position = json.loads(journal_path(target).read_text())["position"]
    assert position >= (at - 1) * MIB

    request = CopyRequest(str(source), TargetRequest(str(target), name, options, force=True))
    outcome = run(request)

    assert outcome.report.resumed_at == position
    assert outcome.report.bytes_read <= SIZE - position
    assert _content(target, name)[:SIZE] == source.read_bytes()
    assert not partial_path(target).exists()
    assert not journal_path(target).exists()


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(("name", "options"), FORMATS[1:], ids=IDS[1:])
def test_qemu_finds_nothing_wrong_with_a_resumed_image(
    tmp_path: Path, source: Path, name: str, options: dict[str, str]
) -> None:
    """Fails if being killed leaves leaks or stale entries in the finished image."""
    from imprint.testing import oracles

    target = tmp_path / f"target.{name}"
    _kill_at(source, target, name, options, 7 * MIB)
    run(CopyRequest(str(source), TargetRequest(str(target), name, options)))
    report = oracles.check(target, name)
    assert report.get("corruptions", 0) == 0
    assert oracles.is_equal(source, target, first_format="raw", second_format=name)


def test_another_source_is_not_resumed_with(tmp_path: Path, source: Path) -> None:
    """Fails if two disks are mixed into one image."""
    target = tmp_path / "target.raw"
    _kill_at(source, target, "raw", {}, 6 * MIB)
    changed = bytearray(source.read_bytes())
    changed[100] ^= 1
    source.write_bytes(changed)
    notes: list[Event] = []

    with pytest.raises(RefusedError, match="left of another copy"):
        run(CopyRequest(str(source), TargetRequest(str(target)), resume=True))
    run(CopyRequest(str(source), TargetRequest(str(target)), on_event=notes.append))

    assert target.read_bytes() == bytes(changed)
    assert any(isinstance(note, Finding) and "starts over" in note.what for note in notes)


def test_a_source_that_changed_under_the_same_time_is_noticed(tmp_path: Path, source: Path) -> None:
    """Fails if the overlap before the checkpoint is not compared."""
    target = tmp_path / "target.raw"
    _kill_at(source, target, "raw", {}, 6 * MIB)
    facts = source.stat()
    with source.open("r+b") as file:
        file.seek(4 * MIB + 1000)
        file.write(b"changed")
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    with pytest.raises(RefusedError, match="holds now"):
        run(CopyRequest(str(source), TargetRequest(str(target)), resume=True))


def test_no_resume_starts_over(tmp_path: Path, source: Path) -> None:
    """Fails if the user's wish to begin anew is ignored."""
    target = tmp_path / "target.raw"
    _kill_at(source, target, "raw", {}, 6 * MIB)
    outcome = run(CopyRequest(str(source), TargetRequest(str(target)), resume=False))
    assert outcome.report.resumed_at == 0
    assert target.read_bytes() == source.read_bytes()


def test_an_interrupted_copy_says_that_it_can_go_on(tmp_path: Path, source: Path) -> None:
    """Fails if Ctrl-C throws the work away, or does not say that it did not."""
    from imprint.core.cancel import CancelToken

    target = tmp_path / "target.raw"
    cancel = CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 5 * MIB:
            cancel.cancel()

    from imprint.transfer import pace

    interval = pace.INTERVAL_S
    pace.INTERVAL_S = 0  # type: ignore[misc] # every span, to stop at a known one
    try:
        with pytest.raises(Cancelled) as caught:
            run(
                CopyRequest(
                    str(source),
                    TargetRequest(str(target)),
                    on_event=stop,
                    cancel=cancel,
                    checkpoint_interval_s=0,
                )
            )
    finally:
        pace.INTERVAL_S = interval  # type: ignore[misc]
    assert "goes on" in (caught.value.advice or "")
    assert not target.exists()
    assert run(CopyRequest(str(source), TargetRequest(str(target)))).report.resumed_at > 0


def test_a_damaged_journal_is_no_journal(tmp_path: Path, source: Path) -> None:
    """Fails if rubbish in the journal stops the copy or is believed."""
    target = tmp_path / "target.raw"
    for rubbish in (b"", b"{", b"[]", b'{"version": 1, "position": 99999999999}', b"\xff" * 100):
        journal_path(target).write_bytes(rubbish)
        partial_path(target).write_bytes(b"x" * SIZE)
        outcome = run(CopyRequest(str(source), TargetRequest(str(target), force=True)))
        assert outcome.report.resumed_at == 0
        assert target.read_bytes() == source.read_bytes()


def test_a_missing_source_leaves_nothing(tmp_path: Path) -> None:
    """Fails if a target is begun before the source is open."""
    with pytest.raises(ReadError):
        run(CopyRequest(str(tmp_path / "none"), TargetRequest(str(tmp_path / "t.raw"))))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "options"), FORMATS, ids=IDS)
def test_a_full_disk_is_one_error_and_no_file(
    tmp_path: Path, source: Path, name: str, options: dict[str, str]
) -> None:
    """Fails if running out of room (a file size limit here) leaves half a target behind."""
    target = tmp_path / "target.img"
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))\n"
        "from imprint.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", source, target, "-O", name, *given],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == TargetError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert "file too large" in done.stderr
    assert not target.exists()
    assert not partial_path(target).exists()


def test_a_copy_of_one_partition_is_not_gone_on_with_as_that_of_another(tmp_path: Path) -> None:
    """Fails if two parts of a disk that are equally long are taken for the same source."""
    disk = tmp_path / "disk.raw"
    table = bytearray(512)
    for number in (0, 1):
        first, count = 2048 + number * SIZE // 512, SIZE // 512
        entry = b"\0\0\0\0\x83\0\0\0" + first.to_bytes(4, "little") + count.to_bytes(4, "little")
        table[446 + 16 * number : 462 + 16 * number] = entry
    table[510:] = b"\x55\xaa"
    parts = [letter * 100_000 + bytes(SIZE - 100_000) for letter in (b"a", b"b")]
    disk.write_bytes(bytes(table).ljust(MIB, b"\0") + parts[0] + parts[1])
    target = tmp_path / "target.img"

    _kill_at(Path(f"{disk}#p1"), target, "raw", {}, 8 * MIB)
    outcome = run(CopyRequest(f"{disk}#p2", TargetRequest(str(target), "raw", force=True)))

    assert outcome.report.resumed_at == 0
    assert target.read_bytes() == parts[1]
