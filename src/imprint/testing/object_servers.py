"""Real servers for tests of places for objects: started on a free port, and stopped."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S: Final = 30.0
_MOTO: Final = """
import os, sys
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "50"  # in one answer, so that listings have several
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
_SSHD_CONFIG: Final = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The URL of an S3 server that keeps everything in memory."""
    port = free_port()
    command = [sys.executable, "-c", _MOTO, str(port)]
    with running(command, port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[int]:
    """The port of an SSH server.

    ``folder/user`` is the key to log in with, ``folder/known_hosts`` the key of the server.
    """
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    config = folder / "config"
    config.write_text(_SSHD_CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:  # sshd gives up its rights in there
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103
    path = shutil.which("sshd") or "/usr/sbin/sshd"
    with running([path, "-D", "-e", "-f", str(config)], port):
        yield port


def user_name() -> str:
    """Who an SSH server of ours lets in."""
    return getpass.getuser()


@contextlib.contextmanager
def running(
    command: list[str], port: int, *, start_s: float = _START_S
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on a port; it is ended at the end."""
    with subprocess.Popen(  # noqa: S603 - a server that the test brings
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(port, process, start_s)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes], start_s: float) -> None:
    """Wait until somebody listens on a port.

    Raises:
        RuntimeError: if the process ends before, or takes too long.
    """
    end = time.monotonic() + start_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket on a server that does not look at signatures."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own server
        pass


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603
