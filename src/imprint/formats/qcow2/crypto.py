"""The one place where encryption enters the driver.

:func:`open_data` is called by ``Qcow2Layer.open`` for every image: what it returns is where
``DATA`` extents are read from and written to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError
from imprint.formats.qcow2 import layout

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage
    from imprint.formats.qcow2.header import HeaderArea


def open_data(area: HeaderArea, storage: Storage, data: Storage, opener: Opener) -> Storage:
    """The storage of guest clusters, by host offset: ``data``, or what decrypts it.

    Args:
        area: says the method, and where the LUKS header is.
        storage: the image file.
        data: the image file, or the external data file.
        opener: asks for the passphrase.

    Raises:
        UnsupportedFeatureError: if the image is encrypted.
    """
    del opener
    if area.header.crypt_method != layout.CRYPT_NONE:
        method = "AES" if area.header.crypt_method == layout.CRYPT_AES else "LUKS"
        raise UnsupportedFeatureError(f"expected no encryption, found {method}", name=storage.name)
    return data
