"""Checks that the documents point to what exists: relative links, anchors, and paths in `code`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {"target", ".git", "node_modules"}
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:src|tests|docs|benches|apiservice|certs|deploy|\.ci)/[^`\s*<>…]*)`")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def anchors(file):
    """The anchors that headings get where the documents are shown."""
    headings = HEADING.findall(FENCE.sub("", file.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(file):
    text = FENCE.sub("", file.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (file.parent / path).resolve() if path else file
        if not to.exists() or not to.is_relative_to(ROOT):
            yield f"links to {target}, which does not exist"
        elif anchor and (to.suffix != ".md" or anchor not in anchors(to)):
            yield f"links to {target}, where there is no such heading"
    for path in PATH.findall(text):
        if not (ROOT / path).exists():
            yield f"names {path}, which does not exist"


def main():
    files = [file for file in sorted(ROOT.rglob("*.md")) if not SKIPPED & set(file.relative_to(ROOT).parts)]
    found = [f"{file.relative_to(ROOT)} {problem}" for file in files for problem in broken(file)]
    print("\n".join(found) if found else f"{len(files)} documents: every link and path leads somewhere")
    return bool(found)


sys.exit(main())
