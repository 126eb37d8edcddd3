"""An ATA drive with hidden areas, to which the real ``hdparm`` talks.

The kernel hands the ``ioctl(SG_IO)`` of that one process over (seccomp's user notification), and
what a drive would answer to the command of its ATA PASS-THROUGH is put into its memory. So what is
tested is which commands a drive gets; no drive is needed. The sectors are those of a loop device,
which grows and shrinks as the kernel's view of a drive does.

Source: SAT-3, ATA PASS-THROUGH (12) and (16) and the ATA Status Return descriptor; ATA/ATAPI-6,
IDENTIFY DEVICE, READ NATIVE MAX ADDRESS EXT, SET MAX ADDRESS EXT; ACS-3, GET NATIVE MAX ADDRESS
EXT; Linux, seccomp(2), seccomp_unotify(2), and scsi/sg.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.testing.volumes import attached

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR: Final = 512
# Numbers of the system calls ioctl and seccomp.
_CALLS: Final = {"x86_64": (16, 317), "aarch64": (29, 277)}
_SG_IO: Final = 0x2285
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NO_NEW_PRIVS: Final = 38
_NEW_LISTENER: Final = 8
_IDENTIFY, _DCO, _AMA = 0xEC, 0xB1, 0x78
_READ_MAX: Final = (0x27, 0xF8)
_SET_MAX: Final = (0x37, 0xF9)


class Drive:
    """A drive whose state is a file, and ``hdparm`` as it is found in front of it.

    Attributes:
        device: what the kernel shows of it.
        tools: folder with the ``hdparm``, for ``PATH``.
    """

    def __init__(self, folder: Path, device: str, state: dict[str, Any]) -> None:
        self.device = device
        self.tools = folder / "tools"
        self._state = folder / "drive.json"
        _save(self._state, {**state, "device": device, "commands": []})
        self.tools.mkdir()
        real = shutil.which("hdparm", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert real is not None, "the test needs hdparm"
        words = f"{sys.executable} -m imprint.testing.ata_drive {self._state} {real}"
        path = os.pathsep.join(filter(None, sys.path))
        (self.tools / "hdparm").write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {words} "$@"\n')
        (self.tools / "hdparm").chmod(0o755)
        if subprocess.run([self.tools / "hdparm", "-V"], check=False).returncode:  # noqa: S603
            pytest.skip("the kernel hands no system calls over here")

    @property
    def environment(self) -> dict[str, str]:
        """In which its ``hdparm`` is found first."""
        return {"PATH": f"{self.tools}:{os.environ['PATH']}"}

    @property
    def state(self) -> dict[str, Any]:
        """As it is now: ``visible`` sectors, and the ``commands`` that changed that."""
        found: dict[str, Any] = json.loads(self._state.read_text())
        return found

    def change(self, **facts: object) -> None:
        """Have it behave otherwise from now on."""
        _save(self._state, {**self.state, **facts})


def _save(path: Path, state: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(json.dumps(state))
    new.replace(path)


@contextlib.contextmanager
def drive(folder: Path, content: bytes, *, visible: int, **facts: object) -> Iterator[Drive]:
    """A drive that shows only the first ``visible`` sectors of ``content``.

    Args:
        folder: for its files.
        content: of all sectors that it has.
        visible: how many it shows.
        facts: ``ama``: it is of ACS-3; ``refuses``: commands that it aborts;
            ``real``: sectors without DCO.
    """
    store, shown = folder / "platters", folder / "shown"
    store.write_bytes(content)
    shown.write_bytes(content[: visible * SECTOR])
    native = len(content) // SECTOR
    state = {"visible": visible, "native": native, "store": str(store), "shown": str(shown)}
    with attached(shown) as device:
        yield Drive(folder, device, {**state, **facts})


def _answer(state: dict[str, Any], cdb: bytes) -> tuple[int, bytes] | None:
    """What the drive says to a command: an address and data; ``None``: it aborts."""
    order: tuple[int, ...]
    if cdb[0] == 0x85:  # ATA PASS-THROUGH (16)
        command, feature, count = cdb[14], cdb[4], cdb[6]
        order = (8, 10, 12, 7, 9, 11)
    elif cdb[0] == 0xA1:  # ATA PASS-THROUGH (12)
        command, feature, count = cdb[9], cdb[3], cdb[4]
        order = (5, 6, 7)
    else:
        return None
    if command in state.get("refuses", ()):
        return None
    address = int.from_bytes(bytes(cdb[at] for at in order), "little")
    is_ama = bool(state.get("ama"))
    if command == _IDENTIFY:
        return 0, _identity(state["visible"], is_ama=is_ama)
    if (command in _READ_MAX and not is_ama) or (command == _AMA and is_ama and feature == 0):
        return state["native"] - 1, b""
    if command == _DCO and "real" in state:
        words = [2, 0, 0, *struct.unpack("<4H", struct.pack("<Q", state["real"] - 1)), *[0] * 249]
        data = struct.pack("<256H", *words)[:510] + b"\xa5"
        return 0, data + bytes([-sum(data) & 0xFF])
    if command in _SET_MAX and not is_ama:
        _show(state, address + 1, is_for_ever=bool(count & 1))
        return address, b""
    return None


def _identity(visible: int, *, is_ama: bool) -> bytes:
    words = [0] * 256
    words[0], words[49], words[53], words[80] = 0x40, 0x300, 6, 0x7F0 if is_ama else 0x1F0
    words[60], words[61] = visible & 0xFFFF, visible >> 16
    words[82] = words[85] = 0 if is_ama else 1 << 10
    words[83], words[86] = 0x4400, 0x8400
    words[84] = words[87] = 0x4000
    words[119] = words[120] = 0x4000 | (1 << 8 if is_ama else 0)
    words[100], words[101] = visible & 0xFFFF, visible >> 16
    return struct.pack("<256H", *words)


def _show(state: dict[str, Any], sectors: int, *, is_for_ever: bool) -> None:
    """SET MAX ADDRESS EXT, and the kernel's look at it."""
    state["visible"] = sectors
    state["commands"].append({"sectors": sectors, "is_for_ever": is_for_ever})
    with Path(state["store"]).open("rb") as store, Path(state["shown"]).open("r+b") as shown:
        kept = shown.seek(0, os.SEEK_END)
        store.seek(kept)
        shown.write(store.read(max(0, sectors * SECTOR - kept)))
        shown.truncate(sectors * SECTOR)
    subprocess.run(["losetup", "--set-capacity", state["device"]], check=True)  # noqa: S603, S607


def _serve(listener: int, path: Path) -> None:
    """Answer until the process has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        said = bytearray(80)
        try:
            fcntl.ioctl(listener, _RECEIVE, said)
        except FileNotFoundError:  # it has ended meanwhile
            continue
        number, process = struct.unpack_from("<QI", said)
        (header_at,) = struct.unpack_from("<Q", said, 48)
        memory = os.open(f"/proc/{process}/mem", os.O_RDWR)
        try:
            _pass_through(memory, header_at, path)
        finally:
            os.close(memory)
        fcntl.ioctl(listener, _SEND, bytearray(struct.pack("<QqiI", number, 0, 0, 0)))


def _pass_through(memory: int, header_at: int, path: Path) -> None:
    header = bytearray(os.pread(memory, 88, header_at))
    data_at, command_at, sense_at = struct.unpack_from("<QQQ", header, 16)
    before, state = (json.loads(path.read_text()) for _ in range(2))
    answer = _answer(state, os.pread(memory, header[8], command_at))
    if state != before:
        _save(path, state)
    address, data = answer or (0, b"")
    if data:
        os.pwrite(memory, data, data_at)
    low = address.to_bytes(6, "little")
    key, error, status = (1, 0, 0x50) if answer else (0xB, 4, 0x51)
    sense = bytes((0x72, key, 0, 0x1D, 0, 0, 0, 14, 9, 12, 1, error, 0, 0))
    sense += bytes((low[3], low[0], low[4], low[1], low[5], low[2], 0x40, status))
    os.pwrite(memory, sense, sense_at)
    struct.pack_into("<BBBBHH", header, 64, 2, 1, 0, len(sense), 0, 8)
    os.pwrite(memory, bytes(header), header_at)


def _filtered() -> int:
    """Hand over the SG_IO of this process from now on; what is asked can be had from there."""
    call, seccomp = _CALLS[os.uname().machine]
    steps = (
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 3, call),
        (0x20, 0, 0, 24),  # load its second argument
        (0x15, 0, 1, _SG_IO),
        (0x06, 0, 0, 0x7FC00000),  # SECCOMP_RET_USER_NOTIF
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    wanted = struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(program))
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = int(system.syscall(seccomp, 1, _NEW_LISTENER, wanted))
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


def main(arguments: list[str]) -> int:
    """``STATE HDPARM [ARGUMENT]...``: run it with the drive; its exit code."""
    state, program, *words = arguments
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process == 0:
        socket.send_fds(theirs, [b"-"], [_filtered()])
        os.execv(program, ["hdparm", *words])  # noqa: S606 - the tool under test
    theirs.close()
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    _serve(listeners[0], Path(state))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
