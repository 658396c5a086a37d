"""A parser for README.md: its blocks, the commands in them, and the names in its text."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "README.md").read_text()

# Kinds of block by the language of their fence. A block without a language is the output of a command.
FENCES = {"toml": "toml", "json": "json", "": "output"}


@dataclass(frozen=True)
class Block:
    kind: str
    line: int
    text: str


def fenced():
    for fence in re.finditer(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.M | re.S):
        line = TEXT.count("\n", 0, fence.start()) + 1
        assert fence[1] in FENCES, f"README.md:{line}: a block of unknown kind {fence[1]}"
        yield Block(FENCES[fence[1]], line, fence[2])


def indented():
    """Yields blocks of commands. Each one follows a blank line."""
    without_fences = re.sub(r"^```.*?^```$", lambda fence: "\n" * fence[0].count("\n"), TEXT, flags=re.M | re.S)
    for block in re.finditer(r"(?<=\n\n)(?:    .*\n)+", without_fences):
        line = without_fences.count("\n", 0, block.start()) + 1
        yield Block("shell", line, re.sub(r"^    ", "", block[0], flags=re.M))


BLOCKS = sorted([*fenced(), *indented()], key=lambda block: block.line)

# Text outside fences, in which backticks mark names.
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
MARKED = set(re.findall(r"`([^`\n]+)`", PROSE))

PROGRAMS = ("promptkeep ", "target/", "cargo ", "just ", "docker ", "grpcurl ", "curl ", "./")


def blocks(kind):
    return [block for block in BLOCKS if block.kind == kind]


def commands():
    """Yields every command of the blocks, in order. Lines that end in a backslash are joined."""
    for block in blocks("shell"):
        for command in block.text.replace("\\\n", "").splitlines():
            if command.strip() and not command.startswith("#"):
                yield re.sub(r"\s+", " ", command)


def mentioned():
    """Returns the commands inside the text."""
    return sorted(name for name in MARKED if name.startswith(PROGRAMS))
