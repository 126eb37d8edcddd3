"""Mounting a view, until somebody unmounts it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError, UnsupportedFeatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from imprint.exports.fuse.view import View

TYPE: Final = "imprint"
"""What mounts of ours are called in the table of mounts: ``fuse.imprint``."""

_DEVICE: Final = Path("/dev/fuse")
_CACHED_S: Final = 3600  # where nothing can be written, the kernel need not ask again
_READAHEAD_KIB: Final = 1024
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAID_MAX: Final = 300


@dataclass(frozen=True)
class Session:
    """How a view is mounted.

    Attributes:
        source: what the table of mounts calls it.
        allow_other: other users may look; permissions are held to then.
        writable: some of it can be changed, and then what is shown of it is another.
        threads: answer several requests at a time: it pays off where bytes come from far away.
        helper: there is a program that unmounts what a process that was killed has left.
    """

    source: str
    allow_other: bool = False
    writable: bool = False
    threads: bool = False
    helper: bool = False


def check_available() -> None:
    """See whether there is a FUSE here at all.

    Raises:
        UnsupportedFeatureError: if something is missing, and what.
    """
    if sys.platform == "linux" and not _DEVICE.exists():
        raise UnsupportedFeatureError(
            "/dev/fuse is missing: the kernel has no FUSE, or keeps it from this container",
            advice="modprobe fuse, as root, loads it",
        )
    try:
        from imprint.exports.fuse import driver  # loads libfuse
    except ModuleNotFoundError as failure:
        if failure.name != "mfusepy":
            raise
        raise UnsupportedFeatureError(
            "mounting needs the Python module mfusepy, which is not installed",
            advice="pip install 'imprint[mount]' brings it",
        ) from failure
    except (OSError, AttributeError) as failure:  # none found; or one that is too old
        raise UnsupportedFeatureError(
            f"mounting needs libfuse, which was not found: {failure}",
            advice="apt-get install fuse3, or the same of your system, brings it",
        ) from failure
    del driver


def serve(view: View, point: Path, session: Session, on_ready: Callable[[], None]) -> None:
    """Mount, and answer until it is unmounted, or a signal says to do so.

    Has to be called in the main thread, for the signals. They end it as unmounting does.

    Args:
        view: what is shown.
        point: an empty folder.
        session: how.
        on_ready: called, in another thread, when the files are there.

    Raises:
        UnsupportedFeatureError: if there is no FUSE.
        TargetError: if it cannot be mounted.
    """
    check_available()
    from imprint.exports.fuse import driver

    has_started = threading.Event()
    is_over = threading.Event()
    failures: list[BaseException] = []
    point = point.absolute()
    with _signals_left_to_the_library(), _here() as back, _heard() as said, said.file:

        def start() -> None:
            back()
            has_started.set()

        def report() -> None:
            has_started.wait()
            if is_over.is_set():
                return
            with contextlib.suppress(OSError):
                _read_far_ahead(point.stat().st_dev)  # answered by this very process
            said.restore()
            try:
                on_ready()
            except BaseException as error:  # noqa: BLE001 - raised in the main thread
                failures.append(error)
                os.kill(os.getpid(), signal.SIGTERM)  # the library's own way of unmounting

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        has_streams = view.has_streams or session.writable  # somebody may make a file system
        kind = driver.StreamOperations if has_streams else driver.Operations
        ended: RuntimeError | None = None
        try:
            driver.Driver(
                view,
                kind(view, on_start=start, may_change=session.writable),
                os.fspath(point),
                **_options(session, driver.library_version()),
            )
        except RuntimeError as error:  # also when it is ended by a signal
            ended = error
        if not has_started.is_set():
            is_over.set()
            has_started.set()
            what = said.text() or f"libfuse ended with {ended}"
            raise TargetError(f"cannot be mounted: {what}", name=str(point)) from ended
        reporter.join()
        if failures:
            raise failures[0]


def _options(session: Session, version: tuple[int, int]) -> dict[str, object]:
    """In libfuse's words, see fuse(8) and mount.fuse3(8)."""
    cached_s = 0 if session.writable else _CACHED_S
    source = session.source.replace("\\", "\\\\").replace(",", "\\,")
    options: dict[str, object] = {
        "foreground": True,
        "nothreads": not session.threads,
        "fsname": source,
        "subtype": TYPE,
        "ro": not session.writable,
        "nosuid": True,
        "nodev": True,
        "use_ino": True,
        "attr_timeout": cached_s,
        "entry_timeout": cached_s,
        "negative_timeout": cached_s,
        # Two files may show the same bytes: of what is written to one, an open of the other
        # has to see. What cannot change, the kernel may keep.
        "kernel_cache": not session.writable,
        "allow_other": session.allow_other,
        "default_permissions": session.allow_other,
        "auto_unmount": session.helper,
    }
    if version[0] == 2:  # noqa: PLR2004 - libfuse 2: large writes are not its default
        options["big_writes"] = True
    return options


def _read_far_ahead(device: int) -> None:
    """Let the kernel ask for 1 MiB at a time, which only root may allow; 128 KiB otherwise.

    Source: Documentation/ABI/testing/sysfs-class-bdi.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    Path(f"/sys/class/bdi/{number}/read_ahead_kb").write_text(f"{_READAHEAD_KIB}\n")


@contextlib.contextmanager
def _signals_left_to_the_library() -> Iterator[None]:
    """Python's handlers do not run while C waits; libfuse's own ones stop it at once.

    What is ignored stays ignored, as whoever started us wants.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _here() -> Iterator[Callable[[], None]]:
    """Gives what goes back to the folder that we are in: libfuse goes to the root.

    Parts of an image may be opened only when they are needed, by the names that the user gave.
    """
    folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda: os.fchdir(folder)
    finally:
        os.close(folder)


class _Said:
    """Standard error, while it goes to a file: the library speaks of its failures only there."""

    def __init__(self, file: BinaryIO, kept: int) -> None:
        self.file = file
        self._kept = kept
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Let it go where it went. Calling again changes nothing."""
        with self._lock:
            if self._kept >= 0:
                os.dup2(self._kept, 2)
                os.close(self._kept)
                self._kept = -1

    def text(self) -> str:
        """What was said, in one line."""
        self.file.seek(0)
        lines = self.file.read().decode(errors="replace").splitlines()
        return "; ".join(line.strip() for line in lines if line.strip())[:_SAID_MAX]


@contextlib.contextmanager
def _heard() -> Iterator[_Said]:
    said = _Said(tempfile.TemporaryFile(), os.dup(2))  # noqa: SIM115 - closed by the caller
    os.dup2(said.file.fileno(), 2)
    try:
        yield said
    finally:
        said.restore()
