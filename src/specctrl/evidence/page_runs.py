"""The runs of all pages and of all docstrings, each in a process of its own, once for everybody who asks.

The site shows what the cells showed, the evidence takes from the same runs what they called.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

from specctrl.evidence.run_pages import Failure, Ran, modules_of, run_docstrings, run_page
from specctrl.processes import end_with
from specctrl.rules import blocks

SECONDS = 300
"""So much processor time may a page take: its process's own, so that another's load changes nothing."""
Runs = dict[str, list[Ran]]
"""What ran, by the path of the page from the root of the project."""


def code_pages(root: Path) -> list[str]:
    """The pages that have code."""
    pages = [root / "index.md", *sorted((root / "spec").glob("*.md"))]
    with_code = [page for page in pages if page.is_file() and any(True for _ in blocks(page.read_text("utf-8")))]
    return [page.relative_to(root).as_posix() for page in with_code]


def run_all(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Run every page, each in a copy of this process; the runs as JSON."""
    pages = code_pages(root)
    answers = in_copies(lambda page: [asdict(ran) for ran in run_page(root / page)], pages)
    return dict(zip(pages, answers, strict=True))


def run_all_docstrings(package: str) -> list[Failure]:
    """Run the prompts of every docstring of a package, module by module; what fails.

    All modules are imported before: what each copy would import again takes longer than its prompts.
    """
    modules = modules_of(package)
    for module in modules:
        import_module(module)
    return [failure for found in in_copies(run_docstrings, modules) for failure in found]


def read_runs(record: dict[str, list[dict[str, Any]]]) -> Runs:
    """The runs of a record."""
    return {page: [Ran(**{**ran, "failures": [tuple(one) for one in ran["failures"]]}) for ran in done]
            for page, done in record.items()}


def in_copies(ask: Callable[[str], Any], asked: Sequence[str], jobs: int = cpu_count() or 1) -> list[Any]:
    """What a function answers to each question, every time in a copy of this process, which then ends.

    The answers are in the order of the questions. RuntimeError if a copy ends without an answer.
    """
    from multiprocessing import connection  # a browser has neither this nor resource

    fork = get_context("fork")
    answers: dict[str, Any] = {}
    running: dict[Any, tuple[str, Any]] = {}
    waiting = list(reversed(asked))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                question = waiting.pop()
                receiving, sending = fork.Pipe(duplex=False)
                copy = fork.Process(target=_answer, args=(ask, question, sending, os.getpid()))
                copy.start()
                sending.close()
                running[receiving] = question, copy
            ready: Any
            for ready in connection.wait(list(running)):
                question, copy = running.pop(ready)
                try:
                    answers[question] = ready.recv()
                except EOFError:
                    copy.join()
                    why = f"{question}: its process ended with {copy.exitcode}, without an answer"
                    raise RuntimeError(why) from None
                copy.join()
    finally:
        for _, copy in running.values():  # if all went well there are none
            copy.kill()
            copy.join()
    return [answers[question] for question in asked]


def _answer(ask: Callable[[str], Any], question: str, sending: Any, parent: int) -> None:
    import resource

    end_with(parent)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    sending.send(ask(question))
