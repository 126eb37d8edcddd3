"""The house rules that linters do not know."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from imprint import formats
from imprint.filesystems import table
from imprint.filesystems.allocation import Walking

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LINES_MAX = 400
FUNCTION_LINES_MAX = 70
BLOB_BYTES_MAX = 100 << 10


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_are_short(path: Path) -> None:
    """Fails where something should be split by concern."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name


def test_only_the_command_line_reads_the_environment() -> None:
    """Fails if a library function behaves otherwise because of a variable that nobody sees."""
    for path in SOURCES:
        if path.relative_to(ROOT / "src" / "imprint").parts[0] not in ("cli", "testing"):
            assert "os.environ" not in path.read_text(encoding="utf-8"), _name(path)
            assert "getenv" not in path.read_text(encoding="utf-8"), _name(path)


def test_nothing_is_left_to_be_done() -> None:
    """Fails on notes to ourselves: what is not done is an issue, not a comment."""
    for path in SOURCES:
        found = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text(encoding="utf-8"))
        assert found is None, _name(path)


@pytest.mark.parametrize("name", formats.names())
def test_every_format_has_a_page_a_contract_and_an_oracle(name: str) -> None:
    """Fails if a format is added and not explained or not tested."""
    assert (ROOT / "docs" / "formats" / f"{name}.md").exists()
    contracts = (ROOT / "tests" / "contracts").glob("test_format*.py")
    assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in contracts)
    if name != "raw":
        assert list((ROOT / "tests" / "oracle").glob(f"test_{name}*.py"))


@pytest.mark.parametrize("kind", sorted(table.MODULES))
def test_every_file_system_has_a_page_a_row_and_an_oracle(kind: str) -> None:
    """Fails if an allocation map is added and not explained, or not tested against another tool."""
    module = table.MODULES[kind]
    text = (ROOT / "docs" / "used.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and f"`{kind}`" in line]
    assert len(rows) == 1
    _, _, has_map, has_proof, page, _ = rows[0].split("|")
    assert has_proof.strip() == ("✓" if isinstance(table.allocator(kind), Walking) else "–")
    if module in ("swap", "whole"):  # there is nothing to look for
        return
    assert has_map.strip() == "✓"
    assert f"(filesystems/{module}.md)" in page
    assert (ROOT / "docs" / "filesystems" / f"{module}.md").exists()
    oracles = (ROOT / "tests" / "oracle").glob("test_*_allocation.py")
    wanted = f"imprint.filesystems.{module} import"
    assert any(wanted in path.read_text(encoding="utf-8") for path in oracles)


def test_links_in_the_docs_lead_somewhere() -> None:
    """Fails if a page was moved, or never written."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{_name(page)}: {link}"


def test_the_two_versions_agree() -> None:
    """Fails if a release would carry two version numbers."""
    import imprint

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{imprint.__version__}"\n' in project


def test_no_large_file_is_kept_in_the_repository() -> None:
    """Fails if a disk image slips in: clones carry it for ever."""
    try:
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.exists() and path.suffix != ".lock":
            assert path.stat().st_size <= BLOB_BYTES_MAX, name


def test_public_names_exist() -> None:
    """Fails if the package promises what it does not have."""
    import imprint

    for name in imprint.__all__:
        assert getattr(imprint, name) is not None
