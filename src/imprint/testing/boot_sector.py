"""A boot sector that tells the serial line that it was started, writes a sector, and switches off.

Source: Intel 64 and IA-32 manual, volume 2; the BIOS's int 13h, function 3; ACPI's port 604h of
QEMU's ``pc``.
"""

from __future__ import annotations

from typing import Final

SAID: Final = b"BOOTED"
SECTOR: Final = 512

_LOADED_AT: Final = 0x7C00
_CODE: Final = (
    "fa 31c0 8ed8 8ec0 8ed0 bc007c"  # cli; ds = es = ss = 0; sp = 7c00h
    "8816 {drive}"  # mov [drive], dl
    "be {text}"  # mov si, text
    "ac 84c0 7406 baf803 ee ebf5"  # next: lodsb; test al, al; jz done; out 3f8h, al
    "b80103 bb007c b90200 b600 8a16 {drive} cd13"  # int 13h: this sector to the second one
    "ba0406 b80020 ef f4 ebfd"  # out 604h, 2000h: off; hlt
)


def boot_sector() -> bytes:
    """The sector."""
    length = len(bytes.fromhex(_CODE.format(drive="0000", text="0000")))
    text_at, drive_at = length, length + len(SAID) + 3
    words = {
        name: (_LOADED_AT + at).to_bytes(2, "little").hex()
        for name, at in (("drive", drive_at), ("text", text_at))
    }
    code = bytes.fromhex(_CODE.format(**words)) + SAID + b"\r\n\0" + b"\0"
    return code.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
