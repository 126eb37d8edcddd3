"""The page of a report, as a person uses it: in a browser, with mouse and keyboard."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.testing.oracles import run
from imprint.testing.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("pytsk3")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.oracle("chromium", "mkfs.ext4")

_FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE: Final = (
    b"<img src=x onerror=window.hacked=1>",
    b"<!--<script",
    b"quote\"'&amp;",
    b"control\x01\nname",
    b"bytes\xff\xfe",
    "right\u202eto left".encode(),
)


@pytest.fixture(scope="module")
def page_file() -> Iterator[Path]:
    """The page of a disk with hostile names, a large file, and a file of 2020."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "tree"
        (tree / "docs/deep").mkdir(parents=True)
        (tree / "docs/deep/large.bin").write_bytes(b"l" * 50_000)
        (tree / "docs/middle.txt").write_bytes(b"m" * 20_000)
        os.utime(tree / "docs/middle.txt", (1_577_923_200, 1_577_923_200))
        (tree / "</").mkdir()
        (tree / "</script><script>window.hacked=2;<").write_bytes(b"x")
        (tree / "link").symlink_to("</script><script>window.hacked=3</script>")
        for hostile in HOSTILE:
            Path(os.fsdecode(os.fsencode(tree) + b"/" + hostile)).write_bytes(b"h")
        # A slash in the name of the image makes it what would end the script, too.
        (folder / "<").mkdir()
        image = folder / "</script><script>window.hacked=4;.raw"
        run("mkfs.ext4", "-q", "-F", "-d", tree, image, "4M")
        Program(folder).ok("report", image, "--html", "page.html", "--deleted")
        yield folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one; it may reach nothing but files."""
    profile = tempfile.mkdtemp()
    with playwright.sync_playwright() as program:
        made = program.chromium.launch_persistent_context(
            profile,
            executable_path=shutil.which("chromium"),
            headless=True,
            args=_FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        yield made
        made.close()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:  # noqa: ANN401 - without types
    """The page, shown; nothing may have been said or asked for."""
    shown = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(page_file.as_uri())
    shown.locator("html[data-ready=yes]").wait_for()
    yield shown
    assert shown.evaluate("window.hacked") is None
    assert said == []
    assert asked == [page_file.as_uri()]
    shown.close()


def names(page: Any) -> list[str]:  # noqa: ANN401 - without types
    """What the list shows."""
    found: list[str] = page.locator("#files .row .name").all_text_contents()
    return found


def test_search_finds_by_name_and_by_path(page: Any) -> None:  # noqa: ANN401 - without types
    """Fails if a file that is there is not found, or one that is not meant is."""
    page.fill("#search", "LARGE")
    page.locator("#count", has_text="1 found").wait_for()
    assert [name.rpartition("/")[2] for name in names(page)] == ["large.bin"]
    page.fill("#search", "docs/mid")
    page.locator("#files .name", has_text="middle.txt").wait_for()
    assert len(names(page)) == 1
    page.fill("#search", "no such file")
    page.locator("#count", has_text="0 found").wait_for()
    page.fill("#search", "")
    page.locator("#count", has_text="files and folders").wait_for()


def test_hostile_names_are_shown_and_do_nothing(page: Any) -> None:  # noqa: ANN401
    """Fails if a name is markup, runs, or steers how it is read."""
    page.fill("#search", "hacked")
    page.locator("#count", has_text="2 found").wait_for()
    shown = "\n".join(names(page))
    assert "<img src=x onerror=window.hacked=1>" in shown
    assert "script><script>window.hacked=2;<" in shown
    assert page.locator("#files img, #map img").count() == 0
    for text, expected in (
        ("control", "control\\u0001\\u000aname"),
        ("bytes", "bytes\\xff\\xfe"),
        ("right", "right\\u202eto left"),
        ("quote", "quote\"'&amp;"),
    ):
        page.fill("#search", text)
        page.locator("#count", has_text="1 found").wait_for()
        page.locator("#files .name", has_text=expected).wait_for()
    assert "</script><script>window.hacked=4;.raw" in page.text_content("h1")


def test_the_keyboard_is_enough(page: Any) -> None:  # noqa: ANN401 - without types
    """Fails if the tree cannot be walked, opened and closed by keys."""
    page.locator("#files").focus()
    page.keyboard.press("Home")
    assert page.locator("#files [aria-selected=true]").get_attribute("aria-expanded") == "true"
    for _ in range(30):
        chosen = page.locator("#files [aria-selected=true] .name").text_content()
        if chosen.endswith("docs"):
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert any(name.endswith("middle.txt") for name in names(page))
    page.keyboard.press("ArrowLeft")
    assert not any(name.endswith("middle.txt") for name in names(page))
    page.keyboard.press("Enter")
    assert "docs" in page.text_content("#place")


def test_sizes_are_drawn_in_proportion(page: Any) -> None:  # noqa: ANN401 - without types
    """Fails if the map is empty, or an area is not as large as what it stands for."""
    page.locator("#map button", has_text="docs").click()
    page.locator("#place", has_text="docs").wait_for()
    areas = {}
    for button in page.locator("#map button").all():
        box = button.bounding_box()
        areas[button.get_attribute("aria-label").partition(":")[0]] = box["width"] * box["height"]
    assert set(areas) == {"deep", "middle.txt"}
    assert areas["deep"] / areas["middle.txt"] == pytest.approx(2.5, rel=0.05)
    page.locator("#map button[aria-label^='middle.txt']").click()
    chosen = page.locator("#files [aria-selected=true] .name").text_content()
    assert chosen.endswith("middle.txt")
    page.locator("#facts", has_text="2020-01-02T00:00:00Z").wait_for()


def test_times_are_plotted_and_zoomed(page: Any) -> None:  # noqa: ANN401 - without types
    """Fails if a file of another year has no bar, or a range does not list its files."""
    assert page.locator("#times rect").count() >= 2
    page.locator("#times").focus()
    for _ in range(8):
        page.keyboard.press("+")
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
    text = page.text_content("#span")
    page.keyboard.press("Home")
    assert page.text_content("#span") != text
    box = page.locator("#times").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.up()
    page.click("#list")
    page.locator("#count", has_text="1 found").wait_for()
    assert names(page)[0].endswith("docs/middle.txt")


def test_dark_and_light_follow_the_system(page: Any) -> None:  # noqa: ANN401 - without types
    """Fails if a reader at night gets a white page."""
    colors = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colors == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
