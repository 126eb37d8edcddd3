"""Ceph's object gateway with the smallest cluster that carries it: one monitor, one OSD in memory.

It is ready after some 12 seconds, and takes about 300 MiB.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Final

from imprint.testing.object_servers import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOOLS: Final = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
"""What has to be installed: Debian's packages radosgw, ceph-mon, ceph-osd and ceph-common."""

ACCESS_KEY: Final = "somebody"
SECRET_KEY: Final = "secret"  # noqa: S105 - of a server that only this test knows

_STEP_S: Final = 60.0
_CONFIG: Final = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{old}]
keyring = {folder}/keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {folder}
pid file = {folder}/$name.$pid.pid
admin socket = {folder}/$name.$pid.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw thread pool size = 16
"""
_ALLOW_ALL: Final = (
    "--cap",
    "mon",
    "allow *",
    "--cap",
    "osd",
    "allow *",
    "--cap",
    "mgr",
    "allow *",
)


@contextlib.contextmanager
def ceph_gateway(folder: Path) -> Iterator[str]:
    """The URL of an S3 server; ``folder`` is empty, and its path is short: sockets live in it."""
    monitor, old, gateway = free_port(), free_port(), free_port()
    fsid = str(uuid.uuid4())
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    config = folder / "ceph.conf"
    config.write_text(
        _CONFIG.format(fsid=fsid, mon=monitor, old=old, gateway=gateway, folder=folder)
    )
    settings = ("--conf", str(config))
    _make_keyring(folder / "keyring")
    address = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{old}]"
    _run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap")
    keys = ("--keyring", str(folder / "keyring"))
    _run(folder, "ceph-mon", *settings, "--mkfs", "-i", "a", "--monmap", "monmap", *keys)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(["ceph-mon", *settings, "-i", "a", "-f"], monitor))
        osd = str(uuid.uuid4())
        _run(folder, "ceph", *settings, "osd", "new", osd)
        _run(folder, "ceph", *settings, "auth", "add", "osd.0", "-i", "keyring")
        _run(folder, "ceph-osd", *settings, "-i", "0", "--mkfs", "--osd-uuid", osd, *keys)
        # It is there when it says so to the monitor, which the gateway waits for.
        stack.enter_context(running(["ceph-osd", *settings, "-i", "0", "-f", *keys], monitor))
        log = str(folder / "gateway.log")
        command = ["radosgw", *settings, "-n", "client.admin", "-f", f"--log-file={log}"]
        stack.enter_context(running(command, gateway, start_s=_STEP_S))
        _run(
            folder,
            *("radosgw-admin", *settings, "user", "create", "--uid=test", "--display-name=test"),
            *(f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"),
        )
        yield f"http://127.0.0.1:{gateway}"


def _make_keyring(path: Path) -> None:
    tool = ("ceph-authtool", str(path), "--gen-key")
    _run(path.parent, *tool, "--create-keyring", "-n", "mon.", "--cap", "mon", "allow *")
    _run(path.parent, *tool, "-n", "client.admin", *_ALLOW_ALL)
    osd = ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")
    _run(path.parent, *tool, "-n", "osd.0", *osd)


def _run(folder: Path, *command: str) -> None:
    """Run one of the tools.

    Raises:
        RuntimeError: if it fails.
    """
    done = subprocess.run(  # noqa: S603 - tools that the test brings
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_STEP_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')}")
