"""Running a disk: served on a socket of our own to QEMU, which changes an overlay only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.cancel import CancelToken
from imprint.core.errors import RefusedError, TargetError, UnsupportedFeatureError
from imprint.endpoints import tools
from imprint.endpoints.cow import MEMORY, open_overlay
from imprint.endpoints.emulator.machine import (
    ACCELERATED,
    EXPORT,
    Display,
    Firmware,
    Machine,
    Medium,
    Wish,
    command,
    firmware_files,
    machine_for,
)
from imprint.endpoints.open import open_source
from imprint.endpoints.serving import listen_unix
from imprint.endpoints.survey import describe
from imprint.exports.nbd.export import Export
from imprint.exports.nbd.server import Server
from imprint.filters.shared import SharedDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.endpoints.open import Access

PROGRAM: Final = "qemu-system-x86_64"
_KVM: Final = "/dev/kvm"
_LOOK_S: Final = 0.2
_QUIT_S: Final = 10.0


@dataclass(frozen=True)
class Run:
    """A machine that has run, or would.

    Attributes:
        machine: which it was.
        command: what started it.
        kept: the file that has what it has changed; ``None``: that is forgotten.
        accelerated: whether the processor itself has run it.
    """

    machine: Machine
    command: tuple[str, ...]
    kept: Path | None
    accelerated: bool


def run(
    address: str,
    access: Access,
    wish: Wish,
    *,
    keep: Path | None = None,
    dry: bool = False,
    serial_to: int | None = None,
    cancel: CancelToken,
) -> Run:
    """Start a machine with a disk, and wait until it is switched off.

    The disk is read only. What the machine writes is in an overlay: in a file, to be used again or
    merged by ``commit``, or in memory.

    Args:
        address: of the disk.
        access: how it is opened.
        wish: what the machine shall be.
        keep: the file of the overlay, made if it is not there; ``None``: in memory.
        dry: only say what would be started.
        serial_to: descriptor that gets what the serial line says; ``None``: standard output.
        cancel: switches the machine off.

    Raises:
        UnsupportedFeatureError: if QEMU, or a firmware, is missing.
        RefusedError: if the overlay is that of another disk.
        TargetError: if QEMU ends by itself with an error.
        ImagingError: of the kind that says what is wrong with the disk.
    """
    program = tools.find(PROGRAM)
    if program is None:
        raise UnsupportedFeatureError(
            f"expected the program {PROGRAM}, found none",
            advice="Debian's package qemu-system-x86 has it",
        )
    accelerated = _can_accelerate(program)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imprint-run-")))
        source = open_source(address, access)
        owner = stack.enter_context(contextlib.ExitStack())
        owner.callback(source.close)
        machine = machine_for(source, describe(source), wish)
        if machine.medium is Medium.OPTICAL and keep is not None:
            raise RefusedError("cannot be written: it is an optical disc", name=address)
        words = command(
            program,
            machine,
            wish,
            socket=folder / "disk.sock",
            uefi=_uefi(folder) if machine.firmware is Firmware.UEFI else None,
            accelerated=accelerated,
        )
        if not dry:
            disk: Source | SharedDisk = source
            if machine.medium is not Medium.OPTICAL:
                place = str(keep or MEMORY)
                disk = SharedDisk(open_overlay(source, address, place, snapshot=access.snapshot))
                owner.pop_all()
                owner.callback(disk.close)  # which owns the source
            with _served(disk, folder / "disk.sock"):
                _wait_for(words, wish.display, serial_to, cancel)
    return Run(machine, tuple(words), keep, accelerated)


def _can_accelerate(program: str) -> bool:
    """Whether the kernel runs machines on this processor as it is.

    In a machine that is one itself, QEMU may end before the first instruction: it is tried.
    """
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return False
    words = [program, "-nodefaults", "-S", "-machine", "pc", *ACCELERATED, "-display", "none"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(  # noqa: S603 - as below
            [*words, "-monitor", "stdio"],
            input=b"quit\n",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_QUIT_S,
            check=False,
        )
        return tried.returncode == 0
    return False


def _uefi(folder: Path) -> tuple[Path, Path]:
    """The firmware, and variables of its own for this run."""
    code, variables = firmware_files()
    own = folder / "variables.fd"
    shutil.copyfile(variables, own)
    return code, own


@contextlib.contextmanager
def _served(disk: Source | SharedDisk, socket: Path) -> Iterator[None]:
    """The disk, on a socket that only this user can use; flushed in the end."""
    with listen_unix(socket) as listener:
        over = CancelToken()
        server = Server([Export(EXPORT, disk)], [listener])
        thread = threading.Thread(target=server.run, args=(over,), name="nbd-server", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.cancel()
            thread.join()
            if isinstance(disk, SharedDisk):
                disk.flush()


def _wait_for(
    words: list[str], display: Display, serial_to: int | None, cancel: CancelToken
) -> None:
    """Run QEMU until it ends, or is to end."""
    is_serial = display is Display.SERIAL
    stdin = None if is_serial else subprocess.DEVNULL
    stdout = serial_to if is_serial else subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of words, and the program is our choice
            words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
    except OSError as failure:
        raise TargetError(f"{PROGRAM} cannot be run: {failure.strerror}") from failure
    said = _Listener(process)
    patience_ends: float | None = None
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
                break
            if patience_ends is not None and time.monotonic() > patience_ends:
                process.kill()
            elif patience_ends is None and cancel.is_cancelled:
                process.send_signal(signal.SIGTERM)  # which QEMU takes for the end of the session
                patience_ends = time.monotonic() + _QUIT_S
    except BaseException:
        process.kill()  # nobody would be left to serve its disk
        process.wait()
        raise
    text = said.text()
    if process.returncode not in (0, -signal.SIGTERM, -signal.SIGKILL):
        raise TargetError(f"{PROGRAM} has failed: {text or process.returncode}")
    cancel.check()


class _Listener:
    """Keeps the last line that a process says on its standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._last = b""
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._listen, name="qemu-stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The line, once the process has ended."""
        self._thread.join()
        return self._last.decode(errors="replace").strip()[:400]

    def _listen(self) -> None:
        assert self._stream is not None
        with self._stream:
            for line in self._stream:
                if line.strip():
                    self._last = line
