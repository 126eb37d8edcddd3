"""What formats do alike around a layer: own the parent, make it an image, take one up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from imprint.core.errors import CorruptImageError
from imprint.core.image import Image, WritableImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Layer, Source, Storage, WritableLayer
    from imprint.core.formats import CreateSpec


_T = TypeVar("_T")


def opened_image(make: Callable[[], Layer], storage: Storage, parent: Source | None) -> Image:
    """The image of the layer that ``make`` opens. If it raises, ``parent`` is closed."""
    return Image(_made(make, parent), name=storage.name, parent=parent)


def editable_image(
    make: Callable[[], WritableLayer], storage: Storage, parent: Source | None
) -> WritableImage:
    """The same for writing in place."""
    return WritableImage(_made(make, parent), storage, name=storage.name, parent=parent)


def new_image(layer: WritableLayer, storage: Storage, spec: CreateSpec) -> WritableImage:
    """An image that was just laid out."""
    return WritableImage(
        layer, storage, name=storage.name, parent=spec.parent_source, is_fresh=True
    )


def resumed_image(
    layer: WritableLayer, storage: Storage, spec: CreateSpec, *, size: int, is_same: bool = True
) -> WritableImage:
    """An image that was begun before; see :class:`~imprint.core.formats.Resuming`.

    Args:
        layer: of the image.
        storage: its file.
        spec: what it shall become.
        size: that its disk has to have, in bytes.
        is_same: whether the rest of it is what ``spec`` asks for.

    Raises:
        CorruptImageError: if it is another one.
    """
    if layer.size != size or not is_same:
        raise CorruptImageError(
            f"expected an unfinished image of {size} bytes, found {layer.size}", name=storage.name
        )
    return WritableImage(layer, storage, name=storage.name, parent=spec.parent_source)


def _made(make: Callable[[], _T], parent: Source | None) -> _T:
    try:
        return make()
    except BaseException:
        if parent is not None:
            parent.close()
        raise
