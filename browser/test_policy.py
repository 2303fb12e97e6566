"""The content security policy, by trying what it forbids and what it must let through."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.request import urlopen

import pytest

MODULE = "new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])"  # the shortest WebAssembly module


def with_script(view: Any, site: str, script: str) -> tuple[Any, list[str]]:
    """A page that arrived with one more script in it, and what the browser said."""
    page = view("spec/glossary.html")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))

    def change(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("</body>", f"<script>{script}</script></body>"))

    page.route("**/spec/problem.html", change)
    page.goto(f"{site}/spec/problem.html")
    return page, said


def test_a_script_that_was_put_into_the_page_does_not_run(view: Any, site: str) -> None:
    page, said = with_script(view, site, "window.planted = 1")
    assert page.evaluate("() => window.planted") is None
    assert any("Content Security Policy" in text for text in said), said


def test_a_script_that_is_put_in_later_does_not_run(view: Any) -> None:
    page = view("spec/problem.html")
    page.evaluate("() => document.body.append(Object.assign(document.createElement('script'), {text: 'planted = 1'}))")
    assert page.evaluate("() => window.planted") is None


@pytest.mark.parametrize("code", ["() => eval('1')", "() => new Function('return 1')()"])
def test_text_does_not_become_code(view: Any, code: str) -> None:
    page = view("spec/problem.html")
    # Later, since what a debugger evaluates itself is let through.
    answer = f"""() => new Promise(done => setTimeout(() => {{
      try {{ done(({code})()); }} catch (error) {{ done(error.name); }}
    }}))"""
    assert page.evaluate(answer) == "EvalError"


def test_nothing_is_asked_elsewhere(view: Any) -> None:
    page = view("spec/problem.html")
    blocked = """() => new Promise(done => {
      addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      fetch('http://127.0.0.1:9/').catch(() => {});
    })"""
    assert page.evaluate(blocked) == "connect-src"


def test_webassembly_is_let_through(view: Any) -> None:
    page = view("spec/problem.html")
    assert page.evaluate(f"() => WebAssembly.compile({MODULE}).then(() => true)")


def test_a_worker_starts_from_a_blob_which_has_the_policy_of_the_page_and_from_no_file_which_would_have_none(
    view: Any,
) -> None:
    page = view("spec/problem.html")
    tried = """address => new Promise(done => {
      addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      const text = `fetch("http://127.0.0.1:9/").catch(() => {});
        addEventListener("securitypolicyviolation", (event) => postMessage(event.effectiveDirective));`;
      const worker = new Worker(address ?? URL.createObjectURL(new Blob([text])));
      worker.onmessage = ({ data }) => done(`in the worker: ${data}`);
    })"""
    assert page.evaluate(tried, None) == "in the worker: connect-src"
    assert page.evaluate(tried, "../_static/doctools.js") == "worker-src"


def test_a_style_that_was_put_into_the_page_does_nothing(view: Any) -> None:
    page = view("spec/problem.html")
    put = """() => {
      document.body.insertAdjacentHTML('beforeend', '<p id="planted" style="opacity: 0">x</p>');
      return getComputedStyle(document.querySelector('#planted')).opacity;
    }"""
    assert page.evaluate(put) == "1"


class Elsewhere(BaseHTTPRequestHandler):
    """Another origin, which notes what it is asked, and would answer anybody."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(b"postMessage('loaded')")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of the other origin."""
    Elsewhere.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ASKING = """\
import js
from pyodide.ffi import to_js
refused = []
request = js.XMLHttpRequest.new()
request.open("GET", "ELSEWHERE/by-request", False)
try:
    request.send()
except Exception as error:
    refused.append(type(error).__name__)
try:
    js.Worker.new("ELSEWHERE/by-worker.js", to_js({"type": "module"}, dict_converter=js.Object.fromEntries))
except Exception as error:
    refused.append(type(error).__name__)
js.fetch("ELSEWHERE/by-fetch")
js.WebSocket.new("ELSEWHERE/by-socket".replace("http", "ws"))
js.EventSource.new("ELSEWHERE/by-events")
refused"""
LEADING = """\
class Page:
    def _repr_html_(self):
        return ('<meta http-equiv="refresh" content="0; url=ELSEWHERE/by-refresh">'
                '<img src="ELSEWHERE/by-image" onerror="document.title = 1"><a href="ELSEWHERE/by-link">here</a>'
                '<iframe src="ELSEWHERE/by-frame"></iframe><b style="color: red" class="kept">kept</b>')
Page()"""


def run_first(page: Any, code: str) -> None:
    """Put code into the first cell of the page, and run it."""
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    bar = page.locator(".run-bar").first
    bar.get_by_role("button", name="Edit").click()
    page.locator("textarea.run-editor").first.fill(code)
    bar.get_by_role("button", name="Run").click()
    if (agree := bar.get_by_role("button", name="Load and run")).is_visible():
        agree.click()
    bar.locator(".run-state[data-result]").wait_for(timeout=180_000)


def test_code_that_a_reader_changes_cannot_ask_another_origin(view: Any, elsewhere: str) -> None:
    assert urlopen(f"{elsewhere}/by-hand").status == 200  # it can be asked
    page = view("spec/entry-exit.html")
    run_first(page, ASKING.replace("ELSEWHERE", elsewhere))
    assert page.locator(".run-output").first.inner_text().strip() == "['JsException', 'JsException']"
    page.wait_for_timeout(1000)
    assert Elsewhere.asked == ["/by-hand"]


def test_html_that_code_makes_is_shown_without_what_could_load_or_lead_elsewhere(view: Any, elsewhere: str) -> None:
    page = view("spec/entry-exit.html")
    run_first(page, LEADING.replace("ELSEWHERE", elsewhere))
    shown = page.locator(".run-output .output").first
    assert shown.evaluate("box => box.innerHTML") == '<a>here</a><b class="kept">kept</b>'
    page.wait_for_timeout(1000)
    assert Elsewhere.asked == []
    assert page.url.endswith("/spec/entry-exit.html")
