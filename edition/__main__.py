"""Make the edition: ``python -m edition SITE TARGET``, where ``make html`` wrote SITE."""

import sys
from pathlib import Path

from edition.book import make_html
from edition.chapters import EditionError
from edition.paper import NoPaper, print_pdf

NAME = "specctrl"


def main(site: Path, target: Path) -> int:
    """Write the HTML file and, where it can be printed, the PDF; say what was made, and what was left out and why."""
    html, pdf = target / f"{NAME}.html", target / f"{NAME}.pdf"
    try:
        text, facts, lines = make_html(site)
        target.mkdir(parents=True, exist_ok=True)
        html.write_text(text, "utf-8")
        print(f"{html}: {html.stat().st_size / 1e6:.1f} MB")
        pdf.unlink(missing_ok=True)  # an old one would be of another commit
        pages = print_pdf(text, facts, lines, pdf)
    except NoPaper as why:
        print(f"left out: {pdf}: {why}")
    except EditionError as error:
        print(error, file=sys.stderr)
        return 1
    else:
        print(f"{pdf}: {pdf.stat().st_size / 1e6:.1f} MB, {pages} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
