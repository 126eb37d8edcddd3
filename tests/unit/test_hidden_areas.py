"""Hidden areas of drives, from what hdparm and smartctl say.

The texts are of the form that hdparm 9.65 prints (``strings /sbin/hdparm``; hdparm(8), ``-N`` and
``--dco-identify``), the JSON of the form of smartctl 7.3; the figures are those of public reports.
"""

from __future__ import annotations

import pytest

from imprint.storage.hidden import Hidden, parse_hidden

ENABLED = "\n/dev/sdx:\n max sectors   = 78125000/78165360, HPA is enabled\n"
DISABLED = "\n/dev/sdx:\n max sectors   = 78165360/78165360, HPA is disabled\n"
ACS3 = "\n/dev/sdx:\n max sectors   = 976773168/976773168, ACCESSIBLE MAX ADDRESS disabled\n"
ACS3_ENABLED = "\n/dev/sdx:\n max sectors   = 900000000/976773168, ACCESSIBLE MAX ADDRESS enabled\n"
INVALID = (
    "\n/dev/sdx:\n max sectors   = 1953525168/14715056(1953525168?), HPA setting seems invalid "
    "(buggy kernel device driver?)\n"
)
OVERLAY = """
/dev/sdx:
DCO Revision: 0x0002
The following features can be selectively disabled via DCO:
\tTransfer modes:
\t\t udma0 udma1 udma2 udma3 udma4 udma5
\tReal max sectors: 78242976
\tATA command/feature sets:
\t\t SMART self_test error_log security HPA 48_bit
"""
FAILED = "\n/dev/sdx:\n HDIO_DRIVE_CMD(dco_identify) failed: Input/output error\n"


def test_am_07_a_host_protected_area_is_found() -> None:
    """Fails if the examiner is not told of sectors that the drive hides."""
    hidden = parse_hidden(ENABLED, "", None)
    assert hidden.protected_sectors == 40360
    assert hidden.limited_by == "HPA"
    assert [found for found in hidden.findings() if "40360 sectors" in found and "HPA" in found]
    limited = parse_hidden(ACS3_ENABLED, "", None)
    assert (limited.limited_by, limited.protected_sectors) == ("AMA", 76773168)


def test_am_07_an_overlay_is_found_below_it() -> None:
    """Fails if a DCO, which READ NATIVE MAX does not see, stays hidden."""
    hidden = parse_hidden(DISABLED, OVERLAY, None)
    assert hidden.protected_sectors == 0
    assert hidden.overlaid_sectors == 78242976 - 78165360
    assert len(list(hidden.findings())) == 1


@pytest.mark.parametrize("native", [DISABLED, ACS3])
def test_a_drive_that_hides_nothing_gives_no_finding(native: str) -> None:
    """Fails if a drive is suspected that is whole."""
    hidden = parse_hidden(native, "", None)
    assert hidden.protected_sectors == 0
    assert not list(hidden.findings())


@pytest.mark.parametrize("native", ["", INVALID, "\n/dev/loop0:\n", " max sectors   = 0/0, x"])
def test_what_a_bridge_makes_up_is_unknown(native: str) -> None:
    """Fails if silence, or nonsense, is taken for "nothing is hidden"."""
    facts = parse_hidden(native, FAILED, None).to_json()
    assert facts["protected_sectors"] == "unknown"
    assert facts["overlaid_sectors"] == "unknown"


def test_capacity_without_a_namespace_is_found() -> None:
    """Fails if a part of an NVMe drive that no namespace has goes unnoticed."""
    size = 512_110_190_592
    smart = {
        "nvme_total_capacity": size,
        "nvme_unallocated_capacity": 12_110_190_592,
        "nvme_namespaces": [{"id": 1, "size": {"blocks": 976562500, "bytes": 400_000_000_000}}],
    }
    first, second = parse_hidden("", "", smart).findings()
    assert "12110190592 bytes" in first
    assert "100000000000 bytes" in second
    whole = {**smart, "nvme_unallocated_capacity": 0}
    whole["nvme_namespaces"] = [{"id": 1, "size": {"bytes": size}}]
    assert not list(parse_hidden("", "", whole).findings())
    odd = {"nvme_total_capacity": "x", "nvme_namespaces": 7, "nvme_unallocated_capacity": None}
    assert parse_hidden("", "", odd) == Hidden()
