"""Files of images for Python programs: by ``imprint.open``, and by fsspec."""

from __future__ import annotations

import csv
import io
import mmap
import os
import pickle
import shutil
import subprocess
import threading
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

import imprint
from imprint.core.errors import NotFoundError, ReadError, UnsupportedFeatureError, UsageError
from imprint.endpoints.fsspec_files import ImprintFileSystem, ReadWarning
from imprint.testing.small_hfs import small_hfs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ROWS = [["name", "count"], ["Grüße", "1"], ["b", "2"]]
BYTES: Final = bytes(range(250)) * 1200


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with one partition: a table, a link to it, and 300,000 bytes."""
    tree = tmp_path / "tree"
    (tree / "data").mkdir(parents=True)
    with (tree / "data" / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(ROWS)
    (tree / "data" / "bytes").write_bytes(BYTES)
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
def registered() -> Iterator[None]:
    """As installing the package does it."""
    fsspec.register_implementation("imprint", ImprintFileSystem, clobber=True)
    fsspec.register_implementation("far", Far, clobber=True)
    ImprintFileSystem.clear_instance_cache()
    Far.fetched.clear()
    yield
    ImprintFileSystem.clear_instance_cache()
    fsspec.filesystem("memory").rm("/", recursive=True)


class FarFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file of which each request is noted."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        if self.fs.fails:
            raise RuntimeError("the line is cut")
        self.fs.fetched.append((start, end - start))
        with (Path(self.fs.root) / self.path).open("rb") as file:
            return os.pread(file.fileno(), end - start, start)


class Far(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A folder as a file system of fsspec's that is far away."""

    protocol = "far"
    fetched: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, root: str, *, is_stream: bool = False, **options: object) -> None:
        super().__init__(**options)
        self.root = root
        self.is_stream = is_stream
        self.fails = False

    def info(self, path: str, **_: object) -> dict[str, Any]:
        size = (Path(self.root) / path).stat().st_size
        return {"name": path, "size": size, "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> object:  # noqa: ANN401
        if self.is_stream:
            return Stream((Path(self.root) / path).read_bytes())
        return FarFile(self, path, mode, **options)


class Stream(io.BytesIO):
    """A file that knows no way back."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise ValueError(f"cannot seek to {offset}, {whence}")


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
    assert system.cat(["/data/bytes"])["/data/bytes"] == BYTES
    assert system.cat_ranges(["/data/bytes"] * 2, [0, 250], [1, 252]) == [b"\0", b"\0\1"]
    assert system.modified("/data/bytes").year >= 2020
    assert system.read_block("/data/table.csv", 0, 1, delimiter=b"\n") == b"name,count\r\n"
    with system.open("/data/bytes") as file:
        assert (file.size, file.path, file.mode, file.fs) == (300_000, "/data/bytes", "rb", system)
    with pytest.raises(FileNotFoundError):
        system.open("/nope")
    with pytest.raises(io.UnsupportedOperation):
        system.open("/new", "wb")
    for folder in ("/data", "/"):
        with pytest.raises(IsADirectoryError):
            system.open(folder)
    with pytest.raises(io.UnsupportedOperation):
        system.copy("/link", "/other")
    for change in (system.rm, system.mkdir, system.makedirs, system.rmdir, system.touch):
        with pytest.raises(io.UnsupportedOperation):
            change("/link")
    system.close()


@pytest.mark.oracle("mkfs.ext4", "sfdisk", "qemu-img")
@pytest.mark.usefixtures("registered")
def test_a_chain_leads_into_an_image_in_a_local_file(image: Path, tmp_path: Path) -> None:
    """Fails if a chain is not what fsspec's own file systems of archives make of it."""
    overlay = tmp_path / "over.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", overlay], check=True
    )
    for address in (f"file://{image}", str(image), f"file://{overlay}"):
        url = f"imprint://p1/data/table.csv::{address}"
        with fsspec.open(url, "rt", encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == ROWS
        system, path = fsspec.url_to_fs(f"imprint://p1/data::{address}")
        assert path == "/p1/data"
        assert system.ls(path, detail=False) == ["/p1/data/bytes", "/p1/data/table.csv"]
    assert system.ls("/", detail=False) == ["/p1"]
    assert system.find("/") == ["/p1/data/bytes", "/p1/data/table.csv", "/p1/link"]
    assert system.glob("/p*/da*/*.csv") == ["/p1/data/table.csv"]
    assert [system.info(name)["type"] for name in ("/", "/p1", "/p1/link")] == [
        *("directory", "directory", "file")
    ]
    assert system.info("/p1/data/bytes")["size"] == system.du("/p1/data/bytes") == 300_000
    assert system.info("/p1")["name"] == "/p1"
    assert system.cat_file("/p1/data/bytes", -2) == bytes((248, 249))
    found = fsspec.open_files(f"imprint://p1/data/*::{address}")
    assert [item.path for item in found] == ["/p1/data/bytes", "/p1/data/table.csv"]
    for whole in ("imprint::", "imprint://::"):
        assert fsspec.url_to_fs(f"{whole}{address}") == (system, "/")
    system.get("/p1/data", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "bytes").read_bytes() == BYTES
    for name in ("/p2/x", "/p1/nope", "/nope"):
        with pytest.raises(FileNotFoundError):
            system.open(name)
    for name in ("/", "/p1"):
        with pytest.raises(OSError, match="expected a file"):
            system.open(name)
    with pytest.raises(io.UnsupportedOperation):
        system.open("/p1/new", "wb")
    with pytest.raises(FileNotFoundError):
        fsspec.open("imprint://p1/x::file:///nope/disk.img")


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_of_an_image_far_away_only_ranges_are_read(image: Path) -> None:
    """Fails if the whole image is fetched, or options do not reach its file system."""
    with image.open("r+b") as file:
        file.truncate(1 << 30)
    url = "imprint://p1/data/bytes::far://disk.img"
    with fsspec.open(url, far={"root": str(image.parent)}) as file:
        assert file.seek(250_000) == 250_000
        assert file.read(10) == BYTES[250_000:250_010]
    assert 0 < sum(length for _, length in Far.fetched) < 4 << 20
    assert max(length for _, length in Far.fetched) <= 1 << 20
    before = len(Far.fetched)
    system, path = fsspec.url_to_fs(url, far={"root": str(image.parent)})
    assert system.cat_file(path, 250_000, 250_010) == BYTES[250_000:250_010]
    assert len(Far.fetched) == before
    read: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: read.append(system.cat_file(path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [BYTES] * 4


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_a_file_system_that_fails_is_an_error_of_the_system(image: Path) -> None:
    """Fails if an exception that nobody knows comes out, or an image looks empty by it."""
    options = {"root": str(image.parent)}
    system, _ = fsspec.url_to_fs("imprint://::far://disk.img", far=options)
    outer = fsspec.filesystem("far", **options)
    with system.open("/p1/data/bytes") as file:
        outer.fails = True
        with pytest.raises(OSError, match="the line is cut"):
            file.read()
    with pytest.raises(ReadError, match="the line is cut"):
        fsspec.url_to_fs("imprint://p1::far://volume.img", far=options)
    outer.fails = False
    assert system.cat_file("/p1/data/bytes") == BYTES
    with pytest.raises(UnsupportedFeatureError, match="front to back"):
        fsspec.url_to_fs("imprint://::far://disk.img", far={**options, "is_stream": True})


@pytest.mark.oracle("mkfs.ext4", "sfdisk", "qemu-img")
@pytest.mark.usefixtures("registered")
def test_chains_may_be_long_and_begin_with_files_that_are_open(image: Path, tmp_path: Path) -> None:
    """Fails if an image cannot be where every other file can."""
    packed = tmp_path / "packed.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", image, packed], check=True)
    memory = fsspec.filesystem("memory")
    memory.pipe("/packed.qcow2", packed.read_bytes())
    assert fsspec.open("imprint://p1/data/bytes::memory://packed.qcow2").open().read() == BYTES
    shutil.make_archive(str(tmp_path / "inner"), "zip", tmp_path, "packed.qcow2")
    memory.pipe("/inner.zip", (tmp_path / "inner.zip").read_bytes())
    url = "imprint://p1/data/bytes::zip://packed.qcow2::memory://inner.zip"
    assert fsspec.open(url).open().read() == BYTES
    outside, volume = tmp_path / "outside", tmp_path / "outer.img"
    outside.mkdir()
    shutil.copy(packed, outside)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", outside, volume, "16M"], check=True)
    memory.pipe("/outer.img", volume.read_bytes())
    url = "imprint://p1/data/bytes::imprint://files/packed.qcow2::memory://outer.img"
    assert fsspec.open(url).open().read() == BYTES
    for given in (fsspec.open(str(image)), image):
        system = fsspec.filesystem("imprint", fo=given)
        assert system.cat_file("/p1/data/bytes") == BYTES
    with image.open("rb") as file:
        system = fsspec.filesystem("imprint", fo=file, skip_instance_cache=True)
        assert system.cat_file("/p1/data/bytes") == BYTES
        system.close()
        assert not file.closed


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_what_is_closed_or_sent_away_is_opened_again(image: Path) -> None:
    """Fails if fsspec gives out what is closed, or a worker cannot be given a file system."""
    for url in (f"imprint://{image}#p1:/data/bytes", f"imprint://p1/data/bytes::{image}"):
        system, path = fsspec.url_to_fs(url)
        assert fsspec.url_to_fs(url)[0] is system
        system.close()
        again, _ = fsspec.url_to_fs(url)
        assert again.cat_file(path) == BYTES
        again.close()
        assert pickle.loads(pickle.dumps(again)).cat_file(path) == BYTES


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_addresses_and_paths_are_told_apart(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a relative address is taken for a path in a chain, or the reverse."""
    folder = image.parent / "files"
    folder.mkdir()
    image.rename(folder / "disk.img")
    (image.parent / "volume.img").rename(folder / "p1")
    monkeypatch.chdir(folder.parent)
    for url in (
        *("imprint://files/disk.img#p1:/data/bytes", "imprint://files/p1:/data/bytes"),
        *("imprint://p1/data/bytes::files/disk.img", "imprint://files/data/bytes::files/p1"),
    ):
        assert fsspec.open(url).open().read() == BYTES
    monkeypatch.chdir(folder)
    system, path = fsspec.url_to_fs("imprint://./p1")
    assert (path, system.ls("/data", detail=False)[0]) == ("/", "/data/bytes")
    for url in ("imprint://p1", "imprint://p1/data", "imprint://", "imprint"):
        with pytest.raises(UsageError, match="expected a disk"):
            fsspec.filesystem("imprint", **ImprintFileSystem._get_kwargs_from_urls(url))
    for url in ("imprint://data/bytes::disk.img", "imprint:///p1/data::disk.img"):
        with pytest.raises(UsageError, match="volume first"):
            fsspec.open(url)


@pytest.mark.oracle("mkfs.ext4")
@pytest.mark.usefixtures("registered")
def test_images_of_the_same_name_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a program reads one image and gets the files of another one."""
    for number in "12":
        folder = tmp_path / number
        (folder / "tree").mkdir(parents=True)
        (folder / "tree" / "which").write_text(number, encoding="ascii")
        path = folder / "disk.img"
        command: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-d", folder / "tree", path, "2M"]
        subprocess.run(command, check=True, capture_output=True)
        shutil.make_archive(str(folder / "disk"), "zip", folder, "disk.img")

    def opened() -> Iterator[Any]:
        with Path("disk.img").open("rb") as file:
            yield fsspec.filesystem("imprint", fo=file)
            yield ImprintFileSystem(None, None, file)
            yield fsspec.filesystem("imprint", fo=mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        yield fsspec.filesystem("imprint", fo=fsspec.open("zip://disk.img::disk.zip"))
        yield fsspec.filesystem("imprint", fo="zip://disk.img", target_options={"fo": "disk.zip"})
        yield fsspec.filesystem("imprint", fo="disk.img")

    for number in "12":
        monkeypatch.chdir(tmp_path / number)
        assert [system.cat_file("/files/which") for system in opened()] == [number.encode()] * 6
        assert fsspec.open("imprint://disk.img:/which").open().read() == number.encode()
        assert fsspec.url_to_fs("imprint://disk.img") == fsspec.url_to_fs("imprint://disk.img")


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
@pytest.mark.usefixtures("registered")
def test_what_is_no_plain_file_is_refused_clearly(image: Path) -> None:
    """Fails if what is compressed is taken for a disk, or an argument makes another exception."""
    with pytest.raises(UnsupportedFeatureError, match="compressed with gzip"):
        fsspec.filesystem("imprint", fo=fsspec.open(str(image), compression="gzip"))
    for wrong in (5, b"disk.img", [str(image)]):
        with pytest.raises(UsageError, match="expected a URL, a path or an open file"):
            fsspec.filesystem("imprint", fo=wrong)


@pytest.mark.oracle("mkfs.ext4")
@pytest.mark.usefixtures("registered")
def test_links_to_folders_lead_nobody_round_in_circles(tmp_path: Path) -> None:
    """Fails if looking for files goes on until the stack is full, and finds nothing then."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_bytes(b"x")
    for name in ("one", "two", "d/up"):
        (tree / name).symlink_to("..")
    path = tmp_path / "disk.img"
    command: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-d", tree, path, "2M"]
    subprocess.run(command, check=True, capture_output=True)
    system = fsspec.filesystem("imprint", disk=str(path))
    assert system.find("/") == ["/d/f", "/d/up", "/one", "/two"]
    assert system.isdir("/one")
    assert system.info("/one")["islink"]
    assert system.cat_file("/d/up/one/d/f") == b"x"


@pytest.mark.usefixtures("registered")
def test_a_program_is_warned_of_what_may_not_be_whole() -> None:
    """Fails if a list of files looks whole although the file system says that it may not be."""
    volume = bytearray(small_hfs())
    volume[1024 + 10 : 1024 + 12] = bytes(2)  # drAtrb of the master block: not unmounted
    fsspec.filesystem("memory").pipe("/dirty", bytes(volume))
    with pytest.warns(ReadWarning, match="not unmounted"):
        assert fsspec.url_to_fs("imprint://files::memory://dirty")[0].ls("/files")


def test_the_package_declares_what_it_registers() -> None:
    """Fails if installing the package does not make ``imprint://`` known."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["fsspec.specs"]["imprint"].partition(":")
    assert getattr(import_module(module), name) is ImprintFileSystem
