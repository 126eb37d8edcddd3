"""Overlays and their parents: merging an overlay down, and giving it another parent.

Both leave an overlay that reads as before at any moment: ``commit`` makes the parent durable
before it empties the overlay, ``rebase`` makes the overlay durable before it names another
parent. What was interrupted is done by the same command again.
"""

from __future__ import annotations

import contextlib
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.core.contracts import Reference
from imprint.core.errors import (
    ReferenceRefusedError,
    RefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import OnEvent, Progress, ignore
from imprint.core.extent import Kind, cut
from imprint.core.formats import CreateSpec, Rebasable, parse_options
from imprint.core.image import Image
from imprint.core.limits import SPAN_BYTES
from imprint.endpoints.differing import own_what_differs
from imprint.endpoints.images import find_parent, reference_to, tell_if_elsewhere
from imprint.endpoints.open import Access, open_editable, open_editable_storage, open_image
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.transfer.span import HAS_BYTES
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Storage
    from imprint.core.extent import Extent
    from imprint.core.formats import Format, Option, OptionValue
    from imprint.core.image import WritableImage
    from imprint.core.info import ImageInfo, Value

_NOT_REMADE = ("preallocation",)  # an emptied overlay is to be small


@dataclass(frozen=True)
class Committed:
    """What a commit has done.

    Attributes:
        parent: path of the image that has the data now.
        bytes_written: to it, ranges made zero included.
        grown_to: its new size, if it had to grow.
        is_empty: whether the overlay was emptied.
    """

    parent: str
    bytes_written: int
    grown_to: int | None
    is_empty: bool


@dataclass(frozen=True)
class Rebased:
    """What a rebase has done.

    Attributes:
        parent: as it is named in the image now.
        bytes_written: to the overlay, so that it reads as before.
    """

    parent: Reference | None
    bytes_written: int


def commit(
    address: str,
    access: Access,
    *,
    keep: bool = False,
    workers: int = 2,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Committed:
    """Write what an overlay holds into its parent, and empty the overlay.

    Args:
        address: of the overlay.
        access: how it and its parents may be opened.
        keep: leave the overlay as it is.
        workers: threads that read ahead.
        on_event: told about progress.
        cancel: stops it.

    Raises:
        UsageError: if the image has no parent.
        RefusedError: if the parent was only guessed to be raw, or if the overlay has what
            emptying it would lose.
    """
    name, storage = open_editable_storage(address, access)
    format_ = access.driver(name)
    try:
        overlay = format_.open(storage, access.gate())
    except BaseException:
        storage.close()
        raise
    with closing(overlay):
        info = overlay.info()
        parent = overlay.parent
        if not isinstance(parent, Image):
            raise UsageError("has no parent to commit to", name=address)
        if not keep:
            _check_can_be_emptied(address, info)
        parent_access = _parent_access(address, info, parent, access)
        with closing(open_editable(parent.name, parent_access)) as target:
            grown_to = overlay.size if overlay.size > target.size else None
            if grown_to is not None:
                target.resize(grown_to)
            written = _merge(overlay, target, workers=workers, on_event=on_event, cancel=cancel)
            target.flush()
        if not keep:
            _empty(storage, format_, info, parent.name, parent_access)
        return Committed(parent.name, written, grown_to, not keep)


def rebase(
    address: str,
    access: Access,
    *,
    parent: str | None,
    parent_format: str | None = None,
    unsafe: bool = False,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Rebased:
    """Give an image another parent, or none; it reads as before.

    Args:
        address: of the image.
        access: how it and its present parents may be opened.
        parent: path of the new parent; a relative one is looked for in the current folder,
            then in the image's. ``None``: it shall have none.
        parent_format: of the new parent; ``None``: found by content.
        unsafe: only change the name: the new parent holds what the old one held.
        on_event: told about progress.
        cancel: stops it.

    Raises:
        UnsupportedFeatureError: if the format's images cannot change their parent.
        ReferenceRefusedError: if the present parent cannot be opened, which only ``unsafe``
            does without, or if the new one builds upon the image.
    """
    name, storage = open_editable_storage(address, access)
    with closing(storage):
        format_ = access.driver(name)
        if not isinstance(format_, Rebasable):
            raise UnsupportedFeatureError(f"{name} images cannot change their parent", name=address)
        reference, written = None, 0
        new_access = access
        if parent is not None:
            image_path = Path(storage.name)
            path = find_parent(parent, image_path)
            reference = reference_to(path, parent, image_path, parent_format)
            tell_if_elsewhere(path, image_path, access)
            new_access = _allowing(access, path.resolve().parent)
        if not unsafe:
            with contextlib.ExitStack() as opened:
                new = None
                if reference is not None:
                    new = new_access.gate().parent(reference, storage)
                    opened.callback(new.close)
                image = opened.enter_context(closing(_open_whole(storage, format_, access)))
                written = own_what_differs(
                    image, image.parent, new, on_event=on_event, cancel=cancel
                )
                image.flush()
    _, storage = open_editable_storage(address, access)  # closing the image has closed it
    with closing(storage):
        format_.set_parent(storage, new_access.gate(), reference)
    return Rebased(reference, written)


def _open_whole(storage: Storage, format_: Format, access: Access) -> WritableImage:
    """Open the image with its present parent, which says what it reads as now."""
    try:
        return format_.edit(storage, access.gate())
    except ReferenceRefusedError as error:
        error.advice = (
            f"{error.advice}; or " if error.advice else ""
        ) + "--unsafe changes only the name"
        raise


def _merge(
    overlay: Image,
    target: WritableImage,
    *,
    workers: int,
    on_event: OnEvent,
    cancel: CancelToken | None,
) -> int:
    """Write all that ``overlay`` itself says of its disk into ``target``; bytes of it."""

    def load(extent: Extent) -> tuple[Extent, memoryview | None]:
        if extent.kind not in HAS_BYTES:
            return extent, None
        data = memoryview(bytearray(extent.length))
        overlay.readinto(data, extent.offset)
        return extent, data

    own = (item for item in overlay.own_extents(0, overlay.size) if item.kind is not Kind.HOLE)
    written = 0
    with closing(
        windowed(load, cut(own, SPAN_BYTES), workers=workers, window=2 * workers)
    ) as loaded:
        for extent, data in loaded:
            if cancel is not None:
                cancel.check()
            if data is None:
                target.zero(extent.offset, extent.length)
            else:
                target.write(data, extent.offset)
            written += extent.length
            on_event(Progress("commit", extent.end, overlay.size, written))
    on_event(Progress("commit", overlay.size, overlay.size, written))
    return written


def _parent_access(address: str, info: ImageInfo, parent: Image, access: Access) -> Access:
    """How the parent may be opened for writing, now that the gate has let it be read."""
    format_name = parent.info().format
    if info.parent_format is None and format_name == "raw":
        raise RefusedError(
            f"does not say which format its parent {parent.name} has, "
            "and that is not changed on the guess that it is raw",
            name=address,
            advice=f"imprint rebase --unsafe --parent {parent.name} -F raw says that it is",
        )
    return Access(
        format=format_name,
        allowed=access.allowed,
        passphrase=access.passphrase,
        size_policy=access.size_policy,
        on_event=access.on_event,
    )


def _check_can_be_emptied(address: str, info: ImageInfo) -> None:
    """An overlay is emptied by making it anew: refuse if that would lose something."""
    for what, is_there in (
        ("internal snapshots", info.snapshots),
        ("dirty bitmaps", info.bitmaps),
        ("a data file", info.data_file),
        ("encryption", info.encryption),
    ):
        if is_there:
            raise RefusedError(
                f"has {what}, which emptying it would lose",
                name=address,
                advice="--keep commits, and leaves the overlay as it is",
            )


def _empty(
    storage: Storage, format_: Format, info: ImageInfo, parent_path: str, parent_access: Access
) -> None:
    """Replace the overlay by an empty one with the same parent and options, at once."""
    assert isinstance(storage, FileStorage)
    path = storage.path.resolve()
    with closing(open_image(parent_path, parent_access)) as parent:
        spec = CreateSpec(
            info.size,
            parent_access.gate(),
            _options_again(format_, info),
            Reference(info.parent, info.parent_format or parent_access.format),
            parent,
        )
        pending = PendingFile.create(path, may_replace=True)
        try:
            facts = os.fstat(storage.fileno())
            os.fchmod(pending.fileno(), facts.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):
                os.fchown(pending.fileno(), facts.st_uid, facts.st_gid)
            format_.create(pending, spec).commit()
        except BaseException:
            pending.abort()
            raise


def _options_again(format_: Format, info: ImageInfo) -> dict[str, OptionValue]:
    """The options that make an image like this one."""
    known: dict[str, Value] = {**info.options, "uuid": info.uuid}
    values = parse_options(format_.name, format_.options, {})
    for option in format_.options:
        value = known.get(option.name)
        if value is not None and option.name not in _NOT_REMADE and _allows(option, value):
            values[option.name] = value
    return values


def _allows(option: Option, value: OptionValue) -> bool:
    """Whether a value that an image has is one that can be asked for."""
    return not option.choices or value in option.choices


def _allowing(access: Access, folder: Path) -> Access:
    """The same, with another folder where parents may live: the user has named a file there."""
    return Access(
        allowed=(*access.allowed, folder),
        passphrase=access.passphrase,
        size_policy=access.size_policy,
        on_event=access.on_event,
    )
