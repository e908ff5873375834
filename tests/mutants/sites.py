"""Where the verifier's checks are.

A check is a `raise`, a fault that is noted, a call of another check, or one of several conditions
that lead to nothing but these.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

FILES = (
    "verify", "verify_bytes", "verify_log", "verify_completeness", "verify_officer",
    "verify_meaning", "verify_review", "verify_budget", "verify_release", "verify_mark",
    "verify_conduct", "verify_stamps", "verify_disclosures", "disclosures", "digests", "reading",
    "rotation", "blocks", "note", "dsse", "canonical", "merkle", "tiles", "bundle", "archive",
    "events", "fields", "stopping",
)  # fmt: skip
_NOTED = re.compile(r"^(found|collector)\.add\(|\.(bytes_|chain)\.append\(")
_CALLED = re.compile(r"^(\w+\.)*_?check\w*\(|^self\.(finish|_place|_keys)\(")
_NAME = re.compile(r"(?:(\w+)\.)?(\w+)\(")


@dataclass(frozen=True, slots=True)
class Check:
    """A place to mutate: bytes `start` to `end` of a file become `new`.

    Attributes:
        file: from the tree's root.
        line: of the statement, to place a mark before it.
        outer: qualified name of the outermost function around it.
        name: file, function and text; several of one text are numbered.
    """

    file: str
    line: int
    start: int
    end: int
    new: str
    text: str
    outer: str
    name: str

    def changed(self, source: bytes) -> bytes:
        """Return the file's bytes without this check."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    @property
    def fires(self) -> bool:
        """Whether only what is wrong comes by: a `raise` or a noted fault."""
        return self.text.startswith("raise") or bool(_NOTED.search(self.text))

    def guards(self, other: Check) -> bool:
        """Whether the other one is likely to be what this one is for."""
        called = _NAME.match(self.text)
        if self.fires or not other.fires:
            return False
        if called is None or self.new != "pass":  # a condition, and what follows from it
            return (self.file, self.outer) == (other.file, other.outer) and other.line > self.line
        module, name = called.groups()
        if module and module != "self":
            return other.file == f"audit/{module}.py"
        return other.file == self.file and other.outer.rpartition(".")[2] == name


def checks(name: str, source: str) -> Iterator[Check]:
    """Yield the checks of one file of `audit/`."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    raw = source.encode()
    seen: Counter[str] = Counter()
    for outer, node, new, mark in _places(ast.parse(source)):
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        text = " ".join(raw[start:end].decode().split())[:110]
        called = f"audit/{name}.py {outer}: {text}"
        seen[called] += 1
        number = f" ({seen[called]})" if seen[called] > 1 else ""
        yield Check(f"audit/{name}.py", mark, start, end, new, text, outer, called + number)


def _places(
    tree: ast.AST, outer: str = "", inside: bool = False
) -> Iterator[tuple[str, ast.stmt | ast.expr, str, int]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and _is_check(node):
            yield outer, node, "pass", node.lineno
        if isinstance(node, ast.If) and all(map(_leads_on, node.body)):
            test = node.test
            if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
                for value in test.values:
                    yield outer, value, "False", node.lineno
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not inside:
            path = f"{outer}.{node.name}" if outer else node.name
            yield from _places(node, path, isinstance(node, ast.FunctionDef))
        else:
            yield from _places(node, outer, inside)


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    text = ast.unparse(node)
    return bool(_NOTED.search(text) or _CALLED.match(text))


def _leads_on(node: ast.stmt) -> bool:
    """Whether a statement only prepares a check, or is one."""
    if isinstance(node, ast.Return) and ast.unparse(node) == "return True":
        return False  # it holds: nothing is refused
    return _is_check(node) or isinstance(node, ast.Assign | ast.Return | ast.Continue)
