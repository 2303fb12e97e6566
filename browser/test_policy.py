"""The content security policy, by trying what it forbids and what it must let through."""

from typing import Any

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


def test_webassembly_and_workers_of_the_site_are_let_through(view: Any) -> None:
    page = view("spec/problem.html")
    assert page.evaluate(f"() => WebAssembly.compile({MODULE}).then(() => true)")
    started = """() => new Promise(done => {
      addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      const worker = new Worker('../_static/doctools.js');
      worker.onerror = () => done('started');  // it is no worker's script, which it finds out once it runs
      setTimeout(() => done('no answer'), 5000);
    })"""
    assert page.evaluate(started) == "started"
