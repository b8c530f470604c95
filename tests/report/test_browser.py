"""The page in a real browser at the width of a phone: no error, no overflow, numbers at the pointer."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# A window cannot be as narrow as a phone, so a frame is used. The script acts as the visitor.
VISITOR = """<!doctype html><iframe src="report.html" width="390" height="844"></iframe><pre></pre>
<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const root = page.documentElement, seen = {};
  seen.width = frame.contentWindow.innerWidth;
  seen.overflow = root.scrollWidth - root.clientWidth;
  seen.pictures = [...page.images].map((image) => image.naturalWidth);
  seen.columns = new Set([...page.querySelectorAll(".panel")].map((p) => p.getBoundingClientRect().left)).size;
  const svg = page.querySelector(".panel svg"), box = svg.getBoundingClientRect();
  seen.panel = box.width;
  const letters = svg.querySelector("text");
  seen.letters = parseFloat(getComputedStyle(letters).fontSize) * box.width / svg.viewBox.baseVal.width;
  const told = () => [...page.querySelectorAll(".panel")].map((panel) => [
    panel.querySelector("output").textContent,
    ...[...panel.querySelectorAll(".value")].map((value) => value.textContent)]);
  const Pointer = frame.contentWindow.PointerEvent, Key = frame.contentWindow.KeyboardEvent;
  seen.before = told();
  // In the middle of the drawing's axes.
  const middle = box.left + box.width * (52 + 350) / 2 / 360;
  svg.dispatchEvent(new Pointer("pointermove", {clientX: middle, clientY: box.top + 50, pointerType: "mouse"}));
  seen.hovered = told();
  svg.dispatchEvent(new Key("keydown", {key: "ArrowRight"}));
  seen.next = told();
  svg.dispatchEvent(new Key("keydown", {key: "End"}));
  seen.end = told();
  seen.spoken = svg.getAttribute("aria-valuetext");
  seen.role = svg.getAttribute("role");
  svg.dispatchEvent(new Pointer("pointerleave", {pointerType: "mouse"}));
  seen.left = told();
  svg.dispatchEvent(new Pointer("pointerdown", {clientX: box.left, clientY: box.top + 50, pointerType: "touch"}));
  svg.dispatchEvent(new Pointer("pointerleave", {pointerType: "touch"}));
  seen.tapped = told();
  document.querySelector("pre").textContent = JSON.stringify(seen);
});
</script>"""


def chromium(folder, *arguments):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [*command, profile, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def visit(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("visit")
    shutil.copy(workdir / "report.html", folder)
    (folder / "visitor.html").write_text(VISITOR)
    return chromium(
        folder,
        "--window-size=800,1000",
        "--allow-file-access-from-files",
        "--dump-dom",
        (folder / "visitor.html").as_uri(),
    )


@pytest.fixture(scope="module")
def seen(visit):
    return json.loads(html.unescape(re.search(r"<pre>(.+?)</pre>", visit.stdout)[1]))


def test_no_error_on_the_console(visit):
    assert [line for line in visit.stderr.splitlines() if "CONSOLE" in line] == []


def test_it_fits_a_phone(seen):
    assert seen["width"] == 390
    assert seen["overflow"] == 0
    assert seen["columns"] == 1  # the panels are below each other
    assert 300 < seen["panel"] <= 390
    assert seen["letters"] > 11


def test_figures_are_there(seen):
    (width,) = seen["pictures"]
    assert width > 300


def test_numbers_under_pointer_finger_and_keys(seen):
    assert seen["before"] == seen["left"] == [["", "", "", "", ""]] * 2
    loss, error = seen["hovered"]
    assert loss == ["t = 0.5", "0.11", "2.01", "0.22346", "2.1235"]
    assert error == ["t = 0.5", "2.5", "50", "12.5", "60"]
    assert [panel[0] for panel in seen["next"]] == ["t = 0.55", "t = 0.55"]
    assert [panel[0] for panel in seen["end"]] == ["t = 1", "t = 1"]
    assert seen["spoken"].startswith("t = 1; curve, 30 training images 0.01; straight line, 30 ")
    assert seen["role"] == "slider"
    assert [panel[0] for panel in seen["tapped"]] == ["t = 0", "t = 0"]


def test_it_prints_on_paper(workdir, tmp_path):
    target = tmp_path / "report.pdf"
    chromium(
        tmp_path, f"--print-to-pdf={target}", "--no-pdf-header-footer",
        (workdir / "report.html").as_uri(),
    )  # fmt: skip
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type ?/Page\b", data)) >= 2
