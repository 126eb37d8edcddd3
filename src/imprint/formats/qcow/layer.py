"""Reading a QCOW: lookups in two levels of tables, deflate, and QEMU's old AES."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, PassphraseError, TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.tables import TableCache, run_length
from imprint.core.units import align_down, div_up
from imprint.formats.qcow.layout import COMPRESSED, CRYPT_AES, SECTOR_BYTES, Header

if TYPE_CHECKING:
    from imprint.codecs.ciphers import SectorCipher
    from imprint.core.contracts import Opener, Storage
    from imprint.filters.cipher import CipherStorage

_AES_KEY_BYTES = 16


class QcowLayer:
    """A QCOW opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(
        self,
        storage: Storage,
        header: Header,
        *,
        backing: str | None = None,
        plain: CipherStorage | None = None,
    ) -> None:
        """Take over a storage.

        Args:
            storage: the file.
            header: of it, checked.
            backing: the name of the backing file, for :meth:`info`.
            plain: the same storage decrypted, if the image is encrypted.
        """
        self._storage = storage
        self._header = header
        self._backing = backing
        self._plain = plain
        self._tables = TableCache(storage, "Q", "big")

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the cluster."""
        return Traits(grain=self._header.cluster_size)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many clusters of its L2 table as lie alike.

        Raises:
            TruncatedImageError: if a table or a cluster begins behind the file's end.
        """
        header = self._header
        size = header.cluster_size
        cluster, within = divmod(offset, size)
        l1_index, index = divmod(cluster, header.l2_count)
        wanted = div_up(within + length, size)
        table, at = self._tables.find(header.l1_table_offset, header.l1_count, l1_index)
        if table[at] == 0:
            run = run_length(table, at, div_up(index + wanted, header.l2_count))
            run_bytes = (run * header.l2_count - index) * size - within
            return Extent(offset, min(length, run_bytes), Kind.HOLE)
        table, at = self._tables.find(table[at], header.l2_count, index)
        entry = table[at]
        if entry & COMPRESSED:
            run = 1
            wanted = min(wanted, len(table) - at)
            while run < wanted and table[at + run] & COMPRESSED:
                run += 1
            where, _ = header.compressed(entry)
            run_bytes = min(length, run * size - within)
            return Extent(offset, run_bytes, Kind.ENCODED, self._storage, where)
        run = run_length(table, at, wanted, step=size if entry else 0)
        run_bytes = min(length, run * size - within)
        if entry == 0:
            return Extent(offset, run_bytes, Kind.HOLE)
        return self._data(offset, run_bytes, entry + within)

    def unit(self, offset: int) -> Extent:
        """The compressed cluster around ``offset``."""
        start = align_down(offset, self._header.cluster_size)
        where, _ = self._header.compressed(self._entry(start))
        length = min(self._header.cluster_size, self.size - start)
        return Extent(start, length, Kind.ENCODED, self._storage, where)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Inflate a cluster.

        Raises:
            CorruptImageError: if it does not hold a whole cluster.
            TruncatedImageError: if it lies behind the end of the file.
        """
        from imprint.codecs import deflate

        name = self._storage.name
        offset, length = self._header.compressed(self._entry(unit.offset))
        if offset + length > self._storage.size:
            raise TruncatedImageError(
                f"compressed cluster at 0x{offset:x}: expected 0x{length:x} bytes inside the "
                f"file's 0x{self._storage.size:x}",
                name=name,
                offset=offset,
                length=length,
            )
        packed = bytearray(length)
        self._storage.readinto(memoryview(packed), offset)
        try:
            data = deflate.decompress(packed, self._header.cluster_size)
        except CorruptImageError as failure:
            what = f"compressed cluster at 0x{offset:x}: {failure}"
            raise CorruptImageError(what, name=name, offset=offset, length=length) from failure
        buffer[:] = data if len(buffer) == len(data) else data[: len(buffer)]

    def info(self) -> ImageInfo:
        """What the header says."""
        notes: tuple[str, ...] = ()
        is_aes = self._header.crypt_method == CRYPT_AES
        if is_aes:
            notes += ("Encrypted with QEMU's old AES: a wrong passphrase gives random bytes.",)
        if self._backing is not None:
            notes += ("The image does not say what format its backing file is in.",)
        return ImageInfo(
            "qcow",
            self.size,
            options={"cluster_size": self._header.cluster_size},
            parent=self._backing,
            encryption="aes" if is_aes else None,
            notes=notes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _entry(self, offset: int) -> int:
        """The L2 entry of a cluster that ``map`` has found to be compressed."""
        header = self._header
        l1_index, index = divmod(offset // header.cluster_size, header.l2_count)
        table, at = self._tables.find(header.l1_table_offset, header.l1_count, l1_index)
        table, at = self._tables.find(table[at], header.l2_count, index)
        return table[at]

    def _data(self, offset: int, length: int, position: int) -> Extent:
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"cluster of the disk's offset {offset}: expected data at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )
        if self._plain is None:
            return Extent(offset, length, Kind.DATA, self._storage, position)
        # Sectors are numbered by their place on the disk, whole ones lying anywhere.
        if position % SECTOR_BYTES != offset % SECTOR_BYTES:
            raise CorruptImageError(
                f"encrypted cluster at 0x{position:x}: expected whole sectors",
                name=self._storage.name,
                offset=position,
            )
        plain = self._plain.numbered_from((offset - position) // SECTOR_BYTES)
        return Extent(offset, length, Kind.DATA, plain, position)


def decrypted(storage: Storage, opener: Opener) -> CipherStorage:
    """``storage`` seen through AES-128-CBC, with the passphrase itself as the key.

    Whoever has no passphrase gets an image whose tables can be read, but not its data.
    """
    from imprint.codecs.ciphers import sector_cipher
    from imprint.filters.cipher import CipherStorage, LockedCipher

    try:
        passphrase = opener.passphrase(storage.name)
    except PassphraseError as missing:
        return CipherStorage(storage, LockedCipher(missing, SECTOR_BYTES))
    key = passphrase[:_AES_KEY_BYTES].ljust(_AES_KEY_BYTES, b"\0")
    cipher: SectorCipher = sector_cipher(
        key, algorithm="aes", mode="cbc-plain64", name=storage.name
    )
    return CipherStorage(storage, cipher)
