"""Repositories that are far away, through the command line."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from imprint.testing.object_servers import make_bucket, moto_server, ssh_server, user_name

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20


def test_disks_go_to_an_object_store_and_come_back(program: Program, disk: Path) -> None:
    """Fails if credentials, the cache or limits of the line do not reach the store."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    disk.write_bytes(random.Random(1).randbytes(2 * MIB))
    cache = program.folder / "cache"
    program.environment.update(
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        XDG_CACHE_HOME=str(cache),
        IMPRINT_PASSPHRASE="correct horse",
    )
    place = "repo:s3://images/some/where"
    with moto_server() as endpoint:
        make_bucket(endpoint, "images")
        program.environment["AWS_ENDPOINT_URL"] = endpoint
        program.refuses(7, "repo", "list", place)
        program.ok("repo", "init", place, "--encrypt")
        made = program.ok("capture", disk, f"{place}::disk", "--limit-upload", "1G", "--json").json
        assert made["bytes_stored"] >= 2 * MIB
        program.ok("compare", f"{place}::disk", disk, "--strict")
        assert sum(item.stat().st_size for item in cache.rglob("*") if item.is_file()) >= 2 * MIB
        own = program.folder / "own"
        program.ok("restore", f"{place}::disk", "back.raw", "--cache-dir", own)
        assert (program.folder / "back.raw").read_bytes() == disk.read_bytes()
        assert any(item.is_file() for item in own.rglob("*"))
        program.ok("verify", f"{place}::disk", "--cache-size", "0", "--limit-download", "1G")
        program.ok("repo", "init", "local")
        program.ok("repo", "copy", place, "local")
        program.ok("repo", "check", place, "--read-data")
    program.ok("compare", "repo:local::disk", disk, "--strict")
    result = program("info", f"{place}::disk")
    assert result.exit_code == 8, result.err


@pytest.mark.oracle("sshd", "ssh-keygen")
def test_disks_go_over_ssh_and_come_back(
    program: Program, disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fails if a repository on another host cannot be used as one here."""
    pytest.importorskip("paramiko")
    disk.write_bytes(random.Random(1).randbytes(MIB))
    home = tmp_path_factory.mktemp("home")
    with ssh_server(home / "server") as port:
        (home / ".ssh").mkdir()
        for name, there in (("user", "id_ed25519"), ("known_hosts", "known_hosts")):
            os.link(home / "server" / name, home / ".ssh" / there)
        program.environment["HOME"] = str(home)
        program.environment.pop("SSH_AUTH_SOCK", None)
        place = f"repo:sftp://{user_name()}@127.0.0.1:{port}{home}/images"
        program.ok("repo", "init", place)
        program.ok("capture", disk, f"{place}::disk")
        program.ok("compare", f"{place}::disk", disk, "--strict")
        found = program.ok("repo", "list", place, "--json").json_lines
        assert [item["image"] for item in found] == ["disk"]
        packs = (home / "images" / "packs").glob("*/*")
        pack = max(packs, key=lambda item: item.stat().st_size)
        content = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(content[: MIB // 2] + b"damage" + content[MIB // 2 + 6 :])
        # A cache still has it as it was.
        program.ok("compare", f"{place}::disk", disk, "--strict")
        assert program("verify", f"{place}::disk").exit_code == 1
        pack.write_bytes(content)
        program.ok("verify", f"{place}::disk")
    program.ok("compare", f"repo:{home}/images::disk", disk, "--strict")
