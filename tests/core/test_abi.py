"""The layout that extensions are built against: pinned, numbered, and checked when one is imported.

``abi.txt`` holds every extension class of the ``.pxd`` files with its members in their order.  A
change that an extension built before would not survive needs another ABI number; after it, and
after one that it does survive, ``--rewrite`` writes the file anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from requirements import needs_build

import acs_core
from acs_core import abi

FOLDER = Path(acs_core.__file__).parent
PINNED = Path(__file__).with_name("abi.txt")

Layout = dict[str, list[str]]
"""Members of each class, in order; the first line is the class itself with its decorators."""


def layout_of(module: str, text: str) -> Layout:
    """Return the classes that a .pxd declares."""
    text = re.sub(r"#.*", "", text)
    # A declaration may go over several lines; what is in brackets belongs to one.
    text = re.sub(r"\([^()]*\)", lambda found: " ".join(found[0].split()), text)
    found: Layout = {}
    members: list[str] | None = None
    final = False
    for line in text.splitlines():
        words = " ".join(line.split())
        if not words:
            continue
        if not line.startswith(" "):
            members = None
            if words.startswith("cdef class "):
                name = words.removeprefix("cdef class ").rstrip(":")
                members = [f"{'final ' if final else ''}class {name}"]
                found[f"{module}.{name.partition('(')[0]}"] = members
            final = words == "@cython.final"
        # Types of local variables and "pass" are no part of a layout.
        elif members is not None and not words.startswith(("@", "pass")):
            members.append(words)
    return found


def layout() -> Layout:
    found: Layout = {}
    for path in sorted(FOLDER.glob("*.pxd")):
        found |= layout_of(path.stem, path.read_text())
    return found


def written(number: int, classes: Layout) -> str:
    lines = [f"ABI {number}"]
    for name, (head, *members) in classes.items():
        lines += ["", f"{name.partition('.')[0]}: {head}", *[f"    {each}" for each in members]]
    return "\n".join(lines) + "\n"


def read(text: str) -> tuple[int, Layout]:
    head, *blocks = text.strip().split("\n\n")
    classes: Layout = {}
    for block in blocks:
        first, *members = block.splitlines()
        module, declared = first.split(": ")
        name = declared.split("class ")[1].partition("(")[0]
        classes[f"{module}.{name}"] = [declared, *[each.strip() for each in members]]
    return int(head.removeprefix("ABI ")), classes


def broken_by(before: Layout, after: Layout) -> list[str]:
    """Name the classes that an extension built against ``before`` would not survive.

    It survives a new class, and a method at the end of a class that nobody extends.  A new
    attribute it does not: Cython compares sizes and refuses the import.
    """
    broken = []
    for name, members in before.items():
        now = after.get(name, [])
        added = now[len(members) :]
        appended = members == now[: len(members)] and (
            not added or (members[0].startswith("final ") and all("(" in each for each in added))
        )
        if not appended:
            broken.append(name)
    return broken


def test_the_layout_is_the_pinned_one(request: pytest.FixtureRequest) -> None:
    now = layout()
    if not PINNED.exists() and request.config.getoption("rewrite"):
        PINNED.write_text(written(acs_core.ABI, now))
    number, before = read(PINNED.read_text())
    broken = broken_by(before, now)
    if number == acs_core.ABI and broken:
        pytest.fail(f"{', '.join(broken)}: bump ABI (abi.py, abi.pxd) and rewrite abi.txt")
    if request.config.getoption("rewrite"):
        PINNED.write_text(written(acs_core.ABI, now))
        number, before = acs_core.ABI, now
    assert number == acs_core.ABI, "the ABI has another number: rewrite abi.txt (--rewrite)"
    assert before == now, "what was built before still works: rewrite abi.txt (--rewrite)"


BEFORE = {"m.A": ["final class A", "cdef int x", "cpdef f(self)"], "m.B": ["class B", "cdef int x"]}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("m.A", ["final class A", "cdef int y", "cdef int x", "cpdef f(self)"]),
        ("m.A", ["final class A", "cdef int x", "cpdef f(self)", "cdef int y"]),
        ("m.A", ["final class A", "cdef int x", "cpdef g(self)", "cpdef f(self)"]),
        ("m.A", ["final class A", "cdef long long x", "cpdef f(self)"]),
        ("m.A", ["class A", "cdef int x", "cpdef f(self)"]),
        ("m.A", ["final class A", "cdef int x"]),
        ("m.A", []),
        ("m.B", ["class B", "cdef int x", "cpdef f(self)"]),
    ],
)
def test_what_breaks_an_extension(name: str, members: list[str]) -> None:
    assert broken_by(BEFORE, {**BEFORE, name: members}) == [name]


def test_what_an_extension_survives() -> None:
    longer = [*BEFORE["m.A"], "cpdef g(self)"]
    assert broken_by(BEFORE, {**BEFORE, "m.A": longer, "m.C": ["final class C"]}) == []


def test_declarations_are_read_whole() -> None:
    text = (
        "cimport cython\n\n\n@cython.final\ncdef class A(B):\n    cdef int x  # why\n"
        "    @cython.locals(\n        y=int,\n    )\n"
        "    cdef object f(\n        self, int y,\n    )\n"
        "\n\ncdef int z\ncdef class C:\n    pass\n"
    )
    assert layout_of("m", text) == {
        "m.A": ["final class A(B)", "cdef int x", "cdef object f( self, int y, )"],
        "m.C": ["class C"],
    }
    assert read(written(3, layout_of("m", text))) == (3, layout_of("m", text))


def test_every_declaration_leads_to_the_abi() -> None:
    assert f"cdef class Abi{acs_core.ABI}:" in (FOLDER / "abi.pxd").read_text()
    for path in FOLDER.glob("*.pxd"):
        if path.stem not in ("__init__", "abi"):
            # The graph has no cycle, and abi alone leads nowhere: each path ends there.
            assert re.search(r"^from acs_core\.\w+ cimport ", path.read_text(), re.M), path.name


@pytest.mark.parametrize("number", [acs_core.ABI + 1, acs_core.ABI + 10])
def test_another_abi_is_an_import_error_with_both_numbers(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "COMPILED", True)
    expected = f"ABI {number} of acs_core, but the one installed has ABI {acs_core.ABI}:"
    with pytest.raises(ImportError, match=expected):
        getattr(abi, f"Abi{number}")


def test_the_plain_build_serves_no_extension() -> None:
    needs_build("plain")
    number = acs_core.ABI
    with pytest.raises(ImportError, match=rf"ABI {number} of the compiled acs_core.*plain"):
        getattr(abi, f"Abi{number}")


@pytest.mark.parametrize("name", ["Abi", "Abi1x", "other"])
def test_what_is_no_abi_is_no_attribute(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(abi, name)
