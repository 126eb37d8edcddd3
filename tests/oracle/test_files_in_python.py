"""Files of images for Python programs: by ``imprint.open``, and by fsspec."""

from __future__ import annotations

import csv
import io
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest

import imprint
from imprint.core.errors import NotFoundError, UsageError
from imprint.endpoints.fsspec_files import ImprintFileSystem

ROOT = Path(__file__).resolve().parents[2]
ROWS = [["name", "count"], ["Grüße", "1"], ["b", "2"]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with one partition: a table, a link to it, and 300,000 bytes."""
    tree = tmp_path / "tree"
    (tree / "data").mkdir(parents=True)
    with (tree / "data" / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(ROWS)
    (tree / "data" / "bytes").write_bytes(bytes(range(250)) * 1200)
    (tree / "link").symlink_to("data/table.csv")
    volume, disk = tmp_path / "volume.img", tmp_path / "disk.img"
    commands: list[list[str | Path]] = [
        ["mkfs.ext4", "-q", "-F", "-d", tree, volume, "8M"],
        ["truncate", "-s", "16M", disk],
        ["sfdisk", "-q", disk],
        ["dd", f"if={volume}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc", "status=none"],
    ]
    table = b"label: dos\n2048,16384\n"
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, input=table)
    return disk


@pytest.fixture
def registered() -> None:
    """As installing the package does it."""
    fsspec.register_implementation("imprint", ImprintFileSystem, clobber=True)
    ImprintFileSystem.clear_instance_cache()


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
def test_an_opened_disk_has_volumes_and_files(image: Path) -> None:
    """Fails if a program cannot get at files by the names that addresses have."""
    with imprint.open(image) as disk:
        assert disk.read_at(510, 2) == b"\x55\xaa"
        assert disk.info().format == "raw"
        assert disk.size == 16 << 20
        assert [(volume.name, volume.kind) for volume in disk.volumes()] == [("p1", "ext4")]
        with pytest.raises(UsageError):
            disk.filesystem("p2")
        files = disk.filesystem("p1")
        assert files is disk.filesystem("p1") is disk.filesystem()
        names = [entry.path for entry in files.listdir("/data")]
        assert names == ["/data/bytes", "/data/table.csv"]
        assert files.stat("/data/bytes").size == 300_000
        assert {entry.path for entry in files.walk("/data")} == {"/data", *names}
        assert files.stat("/link", follow=False).target == "data/table.csv"
        with files.open("/link") as raw, io.TextIOWrapper(raw, encoding="utf-8") as text:
            assert list(csv.reader(text)) == ROWS
        with files.open("/data/bytes") as file:
            assert file.seek(-5, io.SEEK_END) == 299_995
            assert file.read() == bytes(range(245, 250))
            assert file.seek(250_001) == 250_001
            assert file.read(3) == bytes((1, 2, 3))
            with pytest.raises(ValueError, match="expected a place"):
                file.seek(-1)
        for call in (files.stat, files.read, files.listdir):
            with pytest.raises(NotFoundError):
                call("/nope")


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_a_file_of_an_image_is_read_by_its_url(image: Path) -> None:
    """Fails if what reads by fsspec cannot read inside of images."""
    url = f"imprint://{image}#p1:/data/table.csv"
    with fsspec.open(url, "rt", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == ROWS
    system, path = fsspec.url_to_fs(f"imprint://{image}#p1:/data")
    assert path == "/data"
    assert system.ls(path, detail=False) == ["/data/bytes", "/data/table.csv"]
    assert system.find("/") == ["/data/bytes", "/data/table.csv", "/link"]
    assert system.glob("/da*/*.csv") == ["/data/table.csv"]
    assert system.info("/data/bytes")["size"] == system.du("/data/bytes") == 300_000
    assert system.isdir("/data")
    assert system.isfile("/link")
    assert not system.exists("/nope")
    assert system.cat_file("/data/bytes", 250, 253) == bytes((0, 1, 2))
    assert system.cat_file("/data/bytes", -2) == bytes((248, 249))
    assert system.cat(["/data/bytes"])["/data/bytes"] == bytes(range(250)) * 1200
    assert system.cat_ranges(["/data/bytes"] * 2, [0, 250], [1, 252]) == [b"\0", b"\0\1"]
    assert system.modified("/data/bytes").year >= 2020
    with pytest.raises(FileNotFoundError):
        system.open("/nope")
    with pytest.raises(io.UnsupportedOperation):
        system.open("/new", "wb")
    for change in (system.rm, system.mkdir, system.makedirs, system.rmdir, system.touch):
        with pytest.raises(io.UnsupportedOperation):
            change("/link")
    system.close()


def test_the_package_declares_what_it_registers() -> None:
    """Fails if installing the package does not make ``imprint://`` known."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["fsspec.specs"]["imprint"].partition(":")
    assert getattr(import_module(module), name) is ImprintFileSystem
