"""A Linux guest of QEMU, for what only a kernel can say: a shell at the end of a channel.

The host's own kernel may lack modules, and may not be asked at all in a container. The guest
takes the kernel of an installed package, and its programs from the host.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import platform
import re
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.testing.cpio import Archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOST: Final = "10.0.2.2"
"""This host's loopback addresses, as the guest has them. Source: QEMU, "Network emulation"."""

TOOLS: Final = ("qemu-system-x86_64", "busybox", "ldd")
PACKAGES: Final = "linux-image-cloud-amd64 and busybox-static"

_START_S: Final = 30.0
_COMMAND_S: Final = 60.0
_ATTEMPTS: Final = 3
_MEMORY: Final = "256"
_READY: Final = b"@ready"
_DONE: Final = re.compile(rb"\n@done (\d+)\n")
_MODULES: Final = (
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "virtio-rng",  # without it, programs wait for randomness
    "crc32c_generic",
    "ext4",
    "nbd",
)
_UNPACK: Final = {".zst": ("zstd", "-dcq"), ".gz": ("gzip", "-dc")}

# Not on the console: a terminal forgets what it was given when a daemon lets go of it.
_INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
exec <>/dev/vport0p1 >&0 2>&0
echo @ready
while read -r line; do
    sh -c "$line" </dev/null
    printf '\\n@done %d\\n' $?
done
"""


class Kernel(NamedTuple):
    """A kernel, and the folder of its modules."""

    image: Path
    modules: Path

    def needed(self) -> Iterator[bytes]:
        """The modules that a guest needs, each after those that it needs itself.

        Source: kmod, ``modules.dep(5)``.
        """
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text(encoding="ascii").splitlines():
            path, _, others = line.partition(":")
            needs[Path(path).name.split(".")[0]] = [path, *others.split()]
        wanted = [path for name in _MODULES for path in reversed(needs.get(name, []))]
        return (_unpacked(self.modules / path) for path in dict.fromkeys(wanted))


def find_kernel() -> Kernel | None:
    """The newest kernel that is installed with a client for NBD, for this kind of processor."""
    if platform.machine() != "x86_64":
        return None
    for image in sorted(Path("/boot").glob("vmlinuz-*"), reverse=True):
        modules = Path("/lib/modules", image.name.removeprefix("vmlinuz-"))
        has_all = (modules / "modules.dep").is_file() and any(modules.rglob("nbd.ko*"))
        if has_all and os.access(image, os.R_OK):
            return Kernel(image, modules)
    return None


def make_initramfs(path: Path, kernel: Kernel, programs: Iterable[str], files: Path) -> None:
    """What a guest boots into.

    Args:
        path: is written.
        kernel: whose modules are wanted.
        programs: of the host, by their names; they are put into ``/host``.
        files: all in this folder are put into ``/files``.
    """
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "mnt"):
        archive.add_folder(name)
    archive.add("init", _INIT.encode())
    for number, module in enumerate(kernel.needed()):
        archive.add(f"modules/{number:02}.ko", module)
    for place, name in (("bin", "busybox"), *(("host", name) for name in programs)):
        program = shutil.which(name)
        assert program is not None, name
        archive.add(f"{place}/{name}", Path(program).read_bytes())
        for library in _libraries(program):
            archive.add(library, Path(library).read_bytes())
    for file in files.iterdir():
        archive.add(f"files/{file.name}", file.read_bytes())
    path.write_bytes(archive.end())


class GuestError(AssertionError):
    """The guest has ended, or does not answer."""


class Guest:
    """A guest that runs; its commands are those of a shell, one line each."""

    def __init__(self, process: subprocess.Popen[bytes], console: Path) -> None:
        """``console`` has what the kernel says."""
        self._process = process
        self._console = console
        self._heard = b""

    def run(self, command: str, *, exit_code: int = 0) -> str:
        """Run a command, which has to end so; gives what it has said on both streams.

        Raises:
            AssertionError: if it ends otherwise.
        """
        assert "\n" not in command
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        until = time.monotonic() + _COMMAND_S
        while not (done := _DONE.search(self._heard)):
            self._listen(until)
        said, self._heard = self._heard[: done.start()].decode(), self._heard[done.end() :]
        assert int(done[1]) == exit_code, f"{command}: exit code {int(done[1])}\n{said}"
        return said.strip()

    def wait_until_ready(self) -> None:
        """Wait for the shell.

        Raises:
            GuestError: if the guest ends before it comes.
        """
        until = time.monotonic() + _START_S
        while _READY not in self._heard:
            self._listen(until)
        self._heard = self._heard.partition(_READY)[2]

    def _listen(self, until: float) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise GuestError(f"the guest does not answer:\n{self._text()}")
        heard = os.read(self._process.stdout.fileno(), 1 << 16)
        if not heard:
            raise GuestError(f"the guest has ended:\n{self._text()}")
        self._heard += heard

    def _text(self) -> str:
        return (self._heard + self._console.read_bytes()[-2000:]).decode(errors="replace")


@contextlib.contextmanager
def running(kernel: Kernel, initramfs: Path) -> Iterator[Guest]:
    """A guest, for as long as the context lasts.

    Some versions of QEMU emulate what a kernel does to its own code while it boots wrongly
    once in a while; it is started again then.

    Raises:
        GuestError: if it never comes to its shell.
    """
    for attempt in range(_ATTEMPTS):
        console = initramfs.with_suffix(".console")
        with _started(kernel, initramfs, console) as process:
            guest = Guest(process, console)
            try:
                guest.wait_until_ready()
            except GuestError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            yield guest
            return


@contextlib.contextmanager
def _started(kernel: Kernel, initramfs: Path, console: Path) -> Iterator[subprocess.Popen[bytes]]:
    # A panic reboots at once (panic=-1), and a reboot is the end (-no-reboot).
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", _MEMORY, "-nodefaults"]
    command += ["-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    command += ["-device", "virtio-serial-pci", "-chardev", "stdio,id=shell"]
    command += ["-device", "virtserialport,chardev=shell", "-netdev", "user,id=net"]
    command += ["-device", "virtio-net-pci,netdev=net,romfile="]
    command += ["-device", "virtio-rng-pci"]
    command += ["-kernel", str(kernel.image), "-initrd", str(initramfs)]
    command += ["-append", "console=ttyS0 loglevel=1 panic=-1 mitigations=off"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:  # noqa: S603 - of the test
        try:
            yield process
        finally:
            process.kill()


def _libraries(program: str) -> list[str]:
    said = _said_by("ldd", program).decode()
    return re.findall(r"(/\S+) \(0x", said)  # none, of a program that is linked statically


def _unpacked(module: Path) -> bytes:
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    if module.suffix in _UNPACK:
        return _said_by(*_UNPACK[module.suffix], str(module))
    return module.read_bytes()


def _said_by(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603 - of the test
