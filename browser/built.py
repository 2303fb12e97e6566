"""The built site: its pages, a server for it on this machine alone, and the browser that looks at it."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = Path(os.environ.get("SITE", ROOT / "_build" / "html"))
WIDE, NARROW = 1280, 360
"""Widths of a window, in pixels."""
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",  # a container's root cannot have one; no page comes from elsewhere
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Options with which it is started."""


def pages(html: Path = HTML) -> list[str]:
    """Every page of the site, by its path; what only leads on from an old address is none."""
    return sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html")
                  if "_static" not in path.parts and "<title>Moved: " not in path.read_text("utf-8"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(html: Path = HTML) -> Iterator[str]:
    """Serve the site, on a port that is free; yields its address, without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(html)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
