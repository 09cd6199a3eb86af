"""Pages for tests: their elements, and a browser to open them."""

import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


class Reader(HTMLParser):
    """Collects elements and checks that they are closed in order."""

    VOID = {"meta", "img", "br", "input", "line", "path", "polyline", "polygon", "circle"}

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def elements(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader.found


def browse(page, *options):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command += ["--virtual-time-budget=1000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
