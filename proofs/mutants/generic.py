"""Every small alteration of a module that the generic mutator knows, in the order of the text.

An alteration is spliced into the source, so that its difference is a line or two.  Altered are
operators, comparisons, conditions, numbers, flags and ``min``/``max``; statements are deleted.

Left out, because nothing that the core does would change: texts, annotations, imports,
docstrings, asserts and whole ``check`` methods (they are nets below the proofs).  Left out as
well is the deletion of what is only made known there, a local name or a field in ``__init__``:
the next line would fail for any test that comes by, and only flatter the rate.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

_COMPARISONS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
_OPERATORS = {
    "+": "-",
    "-": "+",
    "*": "+",
    "/": "*",
    "//": "*",
    "%": "//",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
}
# The longest first, so that "<" is not found in "<<" and "is" not in "is not".
_TOKEN = re.compile(r"is\s+not|not\s+in|<<|>>|//|<=|>=|==|!=|\bis\b|\bin\b|[-+*/%&|<>]")


@dataclass(frozen=True)
class Mutant:
    """One alteration.

    ``key`` names it by the lines that differ, so that it survives changes elsewhere; where a
    function has the same lines twice, it is followed by the number of the occurrence.
    """

    module: str
    source: str
    key: str


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return every mutant of the module with this source."""
    tree = ast.parse(source)
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    whole = b"".join(lines)

    def at(line: int, column: int) -> int:
        return starts[line - 1] + column

    mutants: dict[str, Mutant] = {}
    seen = {source}
    old = source.splitlines()
    for where, begin, end, text in _Walk(whole, at).module(tree):
        altered = (whole[:begin] + text.encode() + whole[end:]).decode()
        if altered in seen:
            continue
        seen.add(altered)
        new = altered.splitlines()
        head = 0
        while old[head] == new[head]:
            head += 1
        tail = 0
        while old[-1 - tail] == new[-1 - tail] and tail < min(len(old), len(new)) - head - 1:
            tail += 1
        was = _joined(old[head : len(old) - tail])
        becomes = _joined(new[head : len(new) - tail])
        key = name = f"{module}.{where}: {was} => {becomes}"
        occurrence = 1
        while key in mutants:
            occurrence += 1
            key = f"{name} #{occurrence}"
        mutants[key] = Mutant(module, altered, key)
    return list(mutants.values())


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


_Splice = tuple[str, int, int, str]


class _Walk:
    """Yields (where, begin, end, text) for each alteration of a module."""

    def __init__(self, source: bytes, at: Callable[[int, int], int]) -> None:
        self._source = source
        self._at = at

    def module(self, tree: ast.Module) -> Iterator[_Splice]:
        for statement in tree.body:
            yield from self._statement(statement, [], top=True)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return self._at(node.lineno, node.col_offset), self._at(
            node.end_lineno or node.lineno, node.end_col_offset or 0
        )

    def _statement(self, node: ast.stmt, names: list[str], top: bool) -> Iterator[_Splice]:
        """Alter one statement; ``top`` tells that it stands right in a module, class or def."""
        where = ".".join(names) or "module"
        if isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom)):
            return
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if node.name == "check":
                return
            if isinstance(node, ast.FunctionDef):
                inside = ".".join([*names, node.name])
                for default in (*node.args.defaults, *node.args.kw_defaults):
                    if default is not None:
                        yield from self._expression(default, inside)
            for statement in node.body:
                yield from self._statement(statement, [*names, node.name], top=True)
            return
        if self._may_go(node, names, top):
            yield (where, *self._span(node), "pass")
        if (
            isinstance(node, ast.If)
            and not isinstance(node.test, ast.UnaryOp)
            and (not isinstance(node.test, ast.Compare) or len(node.test.ops) > 1)
        ):
            yield from self._negated(node.test, where)
        if isinstance(node, ast.AugAssign):
            begin, end = self._span(node.target)[1], self._span(node.value)[0]
            yield from self._operator(begin, end, where)
        for field, value in ast.iter_fields(node):
            if field == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    yield from self._statement(child, names, top=False)
                elif isinstance(child, ast.ExceptHandler):
                    for inner in child.body:
                        yield from self._statement(inner, names, top=False)
                elif isinstance(child, ast.withitem):
                    yield from self._expression(child.context_expr, where)
                elif isinstance(child, ast.expr):
                    yield from self._expression(child, where)

    def _may_go(self, node: ast.stmt, names: list[str], top: bool) -> bool:
        if isinstance(node, ast.Expr):
            return isinstance(node.value, ast.Call)
        if isinstance(node, ast.Assign):
            made = names[-1:] == ["__init__"] or not names
            return not made and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
        if isinstance(node, ast.Return):
            return not top
        return isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break))

    def _negated(self, test: ast.expr, where: str) -> Iterator[_Splice]:
        begin, end = self._span(test)
        yield where, begin, end, f"not ({self._source[begin:end].decode()})"

    def _operator(self, begin: int, end: int, where: str) -> Iterator[_Splice]:
        """Exchange the operator that stands between two operands, brackets beside it or not."""
        found = _TOKEN.search(self._source[begin:end].decode())
        if found is None:
            return
        old = " ".join(found[0].split())
        others = _COMPARISONS.get(old) or (_OPERATORS[old],)
        for new in others:
            yield where, begin + found.start(), begin + found.end(), new

    def _expression(self, e: ast.expr, where: str) -> Iterator[_Splice]:
        begin, end = self._span(e)
        if isinstance(e, ast.JoinedStr):
            return
        if isinstance(e, ast.Constant):
            number = e.value
            if isinstance(number, bool):
                yield where, begin, end, repr(not number)
            elif isinstance(number, int):
                yield where, begin, end, repr(number + 1 if number < 100 else 2 * number)
            elif isinstance(number, float):
                yield where, begin, end, repr(2.0 * number or 1.0)
            return
        if isinstance(e, ast.UnaryOp):
            inner, inner_end = self._span(e.operand)
            if isinstance(e.op, (ast.Not, ast.USub)):
                text = self._source[inner:inner_end].decode()
                yield where, begin, end, f"({text})"
            if isinstance(e.operand, ast.Constant):
                return
        if isinstance(e, ast.Compare):
            operands = [e.left, *e.comparators]
            for left, right in pairwise(operands):
                yield from self._operator(self._span(left)[1], self._span(right)[0], where)
        if isinstance(e, ast.BinOp) and not isinstance(e.op, ast.Pow):
            span = self._span(e.left)[1], self._span(e.right)[0]
            yield from self._operator(*span, where)
        if isinstance(e, ast.BoolOp):
            neutral = "True" if isinstance(e.op, ast.And) else "False"
            old, new = (b"and", b"or") if isinstance(e.op, ast.And) else (b"or", b"and")
            text = self._source[begin:end]
            for left, right in reversed(list(pairwise(e.values))):
                gap, gap_end = self._span(left)[1] - begin, self._span(right)[0] - begin
                text = text[:gap] + text[gap:gap_end].replace(old, new, 1) + text[gap_end:]
            yield where, begin, end, f"({text.decode()})"
            for value in e.values:
                yield (where, *self._span(value), neutral)
        if isinstance(e, ast.IfExp):
            yield from self._negated(e.test, where)
        if isinstance(e, ast.Call) and isinstance(e.func, ast.Name) and e.func.id in ("min", "max"):
            other = "max" if e.func.id == "min" else "min"
            yield (where, *self._span(e.func), other)
        for field, value in ast.iter_fields(e):
            if field == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.expr):
                    yield from self._expression(child, where)
                elif isinstance(child, ast.keyword):
                    yield from self._expression(child.value, where)
                elif isinstance(child, ast.comprehension):
                    yield from self._expression(child.iter, where)
                    for test in child.ifs:
                        yield from self._negated(test, where)
                        yield from self._expression(test, where)
