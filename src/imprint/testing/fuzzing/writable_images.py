"""Targets: the formats that we also write; seeds come from our writers, and from the corpus."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.units import KIB, MIB
from imprint.formats.parallels import layout as parallels
from imprint.formats.qcow2 import layout as qcow2
from imprint.formats.vdi import layout as vdi
from imprint.formats.vhd import layout as vhd
from imprint.formats.vhdx import layout as vhdx
from imprint.formats.vmdk import layout as vmdk
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import RecordingStorage
from imprint.testing.fuzzing.images import BASE, image_target, made, put_u32, small_disk
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAT: Final = "flat.img"
_COWD: Final = "cowd.vmdk"
_DATA: Final = "data.img"
_LOG_AT: Final = 1 * MIB
_VHDX_SECTION: Final = 64 * KIB  # what headers and region tables are apart

_VMDK_TEXT: Final = (
    b'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID=12345678\nparentCID=ffffffff\n'
    b'createType="custom"\n\nRW 8 FLAT "flat.img" 0\nRW 3 ZERO\nRDONLY 16 SPARSE "base.img"\n'
    b'RW 16 VMFSSPARSE "cowd.vmdk"\nNOACCESS 4 FLAT "flat.img" 8\nRW 4 VMFS "flat.img"\n\n'
    b'# The Disk Data Base\n#DDB\nddb.adapterType = "ide"\nddb.geometry.sectors = "63"\n'
    b'ddb.geometry.heads = "16"\nddb.geometry.cylinders = "4"\n'
    b'ddb.uuid.image = "00112233-4455-6677-8899-aabbccddeeff"\n'
)
_VMDK_WORDS: Final = (
    *(b"RW ", b"RDONLY ", b"NOACCESS ", b"FLAT", b"SPARSE", b"ZERO", b"VMFS", b"SESPARSE"),
    *(b'"flat.img"', b'"base.img"', b'"image"', b"18446744073709551615", b"-1", b"\n", b'"', b" 0"),
    *(b"parentCID=12345678\n", b'parentFileNameHint="base.img"\n', b"CID=", b"\r\n", b"=", b"\xff"),
    *(b'createType="monolithicSparse"\n', b'createType="seSparse"\n', b'encoding="Shift_JIS"\n'),
    *(b'createType="vmfsRawDeviceMap"\n', b"VMFSRDM", b"RW 16 VMFSSPARSE"),
)
_BUNDLE_TOP: Final = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
_BUNDLE_BASE: Final = "{11111111-2222-3333-4444-555555555555}"
_NO_GUID: Final = "{00000000-0000-0000-0000-000000000000}"


def targets() -> Iterator[Target]:
    """All of them."""
    yield image_target("raw", lambda: [small_disk(8 * KIB), b""])
    yield image_target("qcow2", _qcow2_seeds, _QCOW2_PLACES, files=_qcow2_files())
    yield image_target("vdi", _vdi_seeds, (Place(vdi.Header),), files={"base.vdi": _vdi_base()})
    yield image_target("vhd", _vhd_seeds, _VHD_PLACES, files={BASE: _vhd_base()}, seal=seal_vhd)
    yield image_target(
        "vhdx", _vhdx_seeds, _VHDX_PLACES, files={BASE: _vhdx_base()}, seal=seal_vhdx
    )
    yield image_target("vmdk", _vmdk_seeds, _VMDK_PLACES, files=_vmdk_files(), words=_VMDK_WORDS)
    yield image_target(
        "parallels",
        _parallels_seeds,
        (Place(parallels.Header),),
        files={"base.hds": _hds(), "top.hds": _hds(), "plain.hds": small_disk(64 * KIB)},
        words=_XML_WORDS,
    )


_QCOW2_PLACES: Final = (
    Place(qcow2.Header),
    Place(qcow2.ExtensionHead, 104),
    Place(qcow2.ExtensionHead, 112),
    Place(qcow2.SnapshotEntry, b"\0\x01one", 46),
)


def _qcow2_base() -> bytes:
    return made("qcow2", small_disk(64 * KIB), cluster_size="512")


def _qcow2_files() -> dict[str, bytes]:
    return {BASE: _qcow2_base(), _DATA: small_disk(64 * KIB)}


def _qcow2_seeds() -> list[bytes]:
    image = formats.get("qcow2")
    kept = MemoryStorage(made("qcow2", cluster_size="512"), name="image")
    image.create_snapshot(kept, DictOpener(), "one")  # type: ignore[attr-defined]
    image.create_snapshot(kept, DictOpener(), "two")  # type: ignore[attr-defined]
    return [
        made("qcow2", cluster_size="512"),
        made("qcow2", cluster_size="4K", compression="zlib", compat="0.10"),
        made("qcow2", cluster_size="4K", compression="zstd", compression_type="zstd"),
        made("qcow2", cluster_size="16K", extended_l2="on"),
        made("qcow2", cluster_size="512", refcount_bits="1"),
        made("qcow2", small_disk(64 * KIB), parent=_qcow2_base(), cluster_size="512"),
        made("qcow2", small_disk(64 * KIB), files={_DATA: b""}, data_file=_DATA),
        bytes(kept.content),
    ]


def _vdi_base() -> bytes:
    return made("vdi", small_disk(64 * KIB), block_size="4K", uuid=_BUNDLE_BASE[1:-1])


def _vdi_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        made("vdi", block_size="4K"),
        made("vdi", disk, subformat="fixed", block_size="4K"),
        made("vdi", disk, parent=_vdi_base(), block_size="4K"),
    ]


_VHD_PLACES: Final = (
    Place(vhd.Footer),
    Place(vhd.Footer, -512),
    Place(vhd.Header, b"cxsparse"),
    Place(vhd.Locator, b"W2ru"),
    Place(vhd.Locator, b"W2ku"),
)


def _vhd_base() -> bytes:
    return made("vhd", block_size="4K", uuid=_BUNDLE_BASE[1:-1])


def _vhd_seeds() -> list[bytes]:
    return [
        made("vhd", block_size="4K"),
        made("vhd", small_disk(64 * KIB), subformat="fixed"),
        made("vhd", parent=_vhd_base(), block_size="4K"),
    ]


def seal_vhd(content: bytearray) -> None:
    """Make the checksums of footers and header right."""
    places = [(start, 512, 64) for start in (0, len(content) - 512, len(content) - 511)]
    header = content.find(b"cxsparse")
    for start, size, at in [*places, (header, 1024, 36)]:
        piece = bytes(content[start : start + size]) if start >= 0 else b""
        if len(piece) >= size - 1 and piece[:2] in (b"co", b"cx"):
            put_u32(content, start + at, vhd.checksum(piece, at), ">")


_VHDX_PLACES: Final = (
    *(Place(vhdx.Header, at * _VHDX_SECTION) for at in (1, 2)),
    *(Place(vhdx.RegionHeader, at * _VHDX_SECTION) for at in (3, 4)),
    *(Place(vhdx.RegionEntry, 3 * _VHDX_SECTION + at) for at in (16, 48)),
    *(Place(vhdx.RegionEntry, 4 * _VHDX_SECTION + at) for at in (16, 48)),
    Place(vhdx.EntryHeader, b"loge"),
    Place(vhdx.Descriptor, b"desc"),
    Place(vhdx.Descriptor, b"zero"),
    Place(vhdx.DataSector, b"data"),
    Place(vhdx.MetadataHeader, b"metadata"),
    *(Place(vhdx.MetadataEntry, b"metadata", -32 * number) for number in range(1, 7)),
    Place(vhdx.LocatorHeader, vhdx.guid("b04aefb7-d19e-4a81-b789-25b8e9445913")),
    Place(vhdx.LocatorEntry, vhdx.guid("b04aefb7-d19e-4a81-b789-25b8e9445913"), -20),
)


def _vhdx_base() -> bytes:
    return made("vhdx", small_disk(), uuid=_BUNDLE_BASE[1:-1], block_size="1M")


def _vhdx_seeds() -> list[bytes]:
    return [
        made("vhdx", block_size="1M"),
        made("vhdx", subformat="fixed"),
        made("vhdx", parent=_vhdx_base(), block_size="1M"),
        *_vhdx_with_log(),
    ]


def _vhdx_with_log() -> list[bytes]:
    """Images whose writer was killed when its log was written, and their tables were not."""
    image = formats.get("vhdx")
    found: list[bytes] = []
    for content, opener in (
        (made("vhdx", small_disk(3 * MIB), block_size="1M"), DictOpener()),
        (made("vhdx", parent=_vhdx_base(), block_size="1M"), _with_base(_vhdx_base())),
    ):
        storage = RecordingStorage(content, name="image")
        changed = image.edit(storage, opener)
        changed.write(memoryview(b"\x05" * 700), MIB // 8)
        changed.zero(0, changed.size)
        changed.commit()
        crashes = (storage.replay(count).content for count in range(len(storage.operations)))
        found.append(bytes(next(crashed for crashed in crashes if _log_is_in_use(crashed))))
    return found


def _log_is_in_use(content: bytearray) -> bool:
    guid_at = vhdx.Header.FIELDS["log_guid"].at
    starts = (_VHDX_SECTION + guid_at, 2 * _VHDX_SECTION + guid_at)
    return content[_LOG_AT : _LOG_AT + 4] == b"loge" and any(
        any(content[at : at + 16]) for at in starts
    )


def _with_base(base: bytes) -> DictOpener:
    return DictOpener(files={BASE: MemoryStorage(base, name=BASE)})


def seal_vhdx(content: bytearray) -> None:
    """Make the checksums of headers, region tables and log entries right."""
    import google_crc32c

    def seal(at: int, size: int) -> None:
        if at + size <= len(content):
            put_u32(content, at + 4, 0)
            put_u32(content, at + 4, google_crc32c.value(bytes(content[at : at + size])))

    for at in (1, 2):
        seal(at * _VHDX_SECTION, 4096)
    for at in (3, 4):
        seal(at * _VHDX_SECTION, 65536)
    at = content.find(b"loge", 0, 4 * MIB)
    for _ in range(64):
        if at < 0:
            break
        size = int.from_bytes(content[at + 8 : at + 12], "little")
        if 64 <= size <= 4 * MIB:
            seal(at, size)
        at = content.find(b"loge", at + 1, 4 * MIB)


_VMDK_PLACES: Final = (
    Place(vmdk.SparseHeader, b"KDMV"),
    Place(vmdk.SparseHeader, -1024),
    *(Place(vmdk.Marker, -512 * count) for count in (1, 3, 4, 5)),
    Place(vmdk.CowdHeader, b"COWD"),
    Place(vmdk.SeSparseHeader, struct.pack("<Q", 0xCAFEBABE)),
    Place(vmdk.SeSparseVolatile, struct.pack("<Q", vmdk.SESPARSE_VOLATILE_MAGIC)),
)


def _vmdk_base() -> bytes:
    return made("vmdk", small_disk(64 * KIB), grain_size="4K")


def _vmdk_files() -> dict[str, bytes]:
    return {BASE: _vmdk_base(), _FLAT: bytes(range(256)) * 32, _COWD: _cowd()}


def _vmdk_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        made("vmdk", grain_size="4K"),
        made("vmdk", grain_size="4K", zeroed_grain="on"),
        made("vmdk", disk, grain_size="4K", subformat="streamOptimized"),
        made("vmdk", disk, parent=_vmdk_base(), grain_size="4K"),
        _VMDK_TEXT,
        _cowd(),
        _sesparse(),
    ]


def _cowd(sectors: int = 16) -> bytes:
    """A COWD extent of two grains, of which the second is stored."""
    header = struct.pack("<4s7I", b"COWD", 1, 3, sectors, 8, 4, 1, 38).ljust(2048, b"\0")
    table = struct.pack("<4096I", 0, 37, *[0] * 4094)
    return header + struct.pack("<I", 5).ljust(512, b"\0") + table + b"\x05" * 4096


def _sesparse(sectors: int = 64) -> bytes:
    """A SESparse extent: a stored grain, a zero one, an unmapped one."""
    header = vmdk.SeSparseHeader(
        magic=0xCAFEBABE,
        version=vmdk.SESPARSE_VERSION,
        capacity=sectors,
        grain_size=vmdk.SESPARSE_GRAIN_SECTORS,
        table_size=vmdk.SESPARSE_TABLE_SECTORS,
        volatile_offset=1,
        directory_offset=8,
        directory_size=8,
        tables_offset=16,
        grains_offset=80,
    )
    state = vmdk.SeSparseVolatile(magic=vmdk.SESPARSE_VOLATILE_MAGIC)
    head = (header.pack() + state.pack()).ljust(8 * 512, b"\0")
    directory = struct.pack("<Q", 0x1000000000000000).ljust(8 * 512, b"\0")
    entries = (0x3000000000000000, 0x2000000000000000, 0x1000000000000000, *[0] * 4093)
    return head + directory + struct.pack("<4096Q", *entries) + b"\x06" * 4096


_XML_WORDS: Final = (
    *(
        b"<Image>",
        b"</Image>",
        b"<GUID>",
        b"<Type>Plain</Type>",
        b"<Shot>",
        b"</Storage>",
        b"<End>",
    ),
    *(b"top.hds", b"base.hds", b"plain.hds", b"../", b"18446744073709551616", b"-1", b"&amp;"),
    *(_BUNDLE_TOP.encode(), _BUNDLE_BASE.encode(), _NO_GUID.encode(), b"1" * 5000, b"<!-- -->"),
    *(b'<!DOCTYPE a [<!ENTITY b "c">]>', b"\xff\xfe", b"\xc2\xa0", b"<Blocksize>0</Blocksize>"),
)


def _hds() -> bytes:
    return made("parallels", small_disk(64 * KIB), cluster_size="4K")


def _parallels_seeds() -> list[bytes]:
    return [
        made("parallels", cluster_size="4K"),
        _bundle(("top.hds", "Compressed"), ("base.hds", "Compressed")),
        _bundle(("top.hds", "Compressed"), ("plain.hds", "Plain")),
    ]


def _bundle(*files: tuple[str, str], sectors: int = 128) -> bytes:
    """The descriptor of a disk with a snapshot."""
    guids = (_BUNDLE_TOP, _BUNDLE_BASE)
    images = "".join(
        f"<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{name}</File></Image>"
        for guid, (name, kind) in zip(guids, files, strict=True)
    )
    shots = "".join(
        f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>"
        for guid, parent in zip(guids, (_BUNDLE_BASE, _NO_GUID), strict=True)
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">"
        f"<Disk_Parameters><Disk_size>{sectors}</Disk_size><Cylinders>1</Cylinders>"
        "<Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding>"
        f"<Encryption><Engine>{_NO_GUID}</Engine><Data></Data></Encryption></Disk_Parameters>"
        f"<StorageData><Storage><Start>0</Start><End>{sectors}</End><Blocksize>8</Blocksize>"
        f"{images}</Storage></StorageData><Snapshots>{shots}</Snapshots></Parallels_disk_image>\n"
    ).encode()
