"""check: compare an image's structures with each other; repair them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.core.events import Finding, Severity
from imprint.endpoints.images import check

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint check disk.qcow2
  imprint check disk.qcow2 --repair
"""

_DAMAGED_EXIT: Final = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/check.md`` lists them too."""
    parser.add_argument("image", help="image file")
    parser.add_argument(
        "--repair", action="store_true", help="put right what can be, in place; nobody may use it"
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Check; 1 if there is something left that somebody should see to, leaks included."""
    findings: list[Finding] = []
    for finding in check(args.image, options.access(args, console), repair=args.repair):
        findings.append(finding)
        repaired = " (repaired)" if finding.repaired else ""
        console.print(f"{finding.severity.value}: {finding.where}: {finding.what}{repaired}")
    left = [item for item in findings if item.severity is not Severity.INFO and not item.repaired]
    repaired_count = sum(item.repaired for item in findings)
    console.print(f"{args.image}: {_verdict(left, repaired_count)}")
    console.result(
        findings=[
            {
                "severity": item.severity.value,
                "where": item.where,
                "what": item.what,
                "repaired": item.repaired,
            }
            for item in findings
        ],
        errors=sum(item.severity is Severity.ERROR for item in left),
        warnings=sum(item.severity is Severity.WARNING for item in left),
        repaired=repaired_count,
    )
    return _DAMAGED_EXIT if left else 0


def _verdict(left: list[Finding], repaired: int) -> str:
    errors = sum(item.severity is Severity.ERROR for item in left)
    parts = []
    if errors:
        parts.append(f"{errors} error{'s' if errors > 1 else ''}")
    if len(left) > errors:
        parts.append(f"{len(left) - errors} warning{'s' if len(left) - errors > 1 else ''}")
    if repaired:
        parts.append(f"{repaired} repaired")
    return ", ".join(parts) if parts else "nothing is wrong"
