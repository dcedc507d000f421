"""YAML 1.2 with the place (file, line, column) of every key and value: `Tree.mark`, from which load.py places mistakes.

PyYAML reads YAML 1.1, where `1e-6` is text, `on` is true and `1:30` is ninety. The loader below has the scalars of the
YAML 1.2 core schema instead (YAML 1.2.2, section 10.3.2). It builds plain values only and refuses what a spec never
needs: tags, keys given twice, merge keys, several documents, and files that would grow without bound.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lrsweep.errors import SpecError, SpecIssue, UsageError, on_one_line

Keys = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 50_000  # after the aliases are expanded
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_INT = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(~|null|Null|NULL|)$")
_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Characters in texts of YAML 1.2 that end a line for PyYAML, which reads 1.1."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What no UTF-8 file or no reader of CSV can hold: it would not come back from the tables."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place in a source, line and column from 1; `line` is 0 where a source has no lines (a dict, an option)."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something that no spec may contain, at `path`; `void` if its value is lost, so that it cannot be checked."""

    path: Keys
    issue: SpecIssue
    void: bool


@dataclass(kw_only=True)
class Tree:
    """Plain values and where each was written: `keys` has the place of a mapping's key, `values` that of its value.

    `texts` has the numbers, booleans and nulls as they were written: `1.10`, which is the number 1.1. What was refused
    while reading is in `refused`, to be reported together with what is wrong with the values.
    """

    file: str
    data: Any = None
    keys: dict[Keys, Mark] = field(default_factory=dict)
    values: dict[Keys, Mark] = field(default_factory=dict)
    texts: dict[Keys, str] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, path: Keys, mark: Mark, message: str, *, void: bool = False) -> None:
        issue = SpecIssue(file=mark.file, line=mark.line, column=mark.column, path=dotted(path), message=message)
        self.refused.append(Refusal(path=path, issue=issue, void=void))

    def is_void(self, path: Keys) -> bool:
        """Whether `path` contains, or lies in, a value that is lost."""
        lost = (refusal.path for refusal in self.refused if refusal.void)
        return any(path[: len(other)] == other[: len(path)] for other in lost)

    def mark(self, path: Keys, *, key: bool = False) -> Mark:
        """The place of `path`, or of its nearest parent that was written."""
        for end in range(len(path), -1, -1):
            if key and end == len(path) and path in self.keys:
                return self.keys[path]
            if path[:end] in self.values:
                return self.values[path[:end]]
        return Mark(file=self.file)

    def graft(self, path: Keys, branch: Tree) -> None:
        """Take over the places of `branch`, whose root is now at `path` (the values are set by the caller)."""
        self.refused = [refusal for refusal in self.refused if refusal.path[: len(path)] != path]
        tables: tuple[dict[Keys, Any], ...] = (self.keys, self.values, self.texts)
        for table in tables:
            for old in [old for old in table if old[: len(path)] == path]:
                del table[old]
        for refusal in branch.refused:
            moved = (*path, *refusal.path)
            self.refused.append(replace(refusal, path=moved, issue=replace(refusal.issue, path=dotted(moved))))
        self.values.update({path + below: mark for below, mark in branch.values.items()})
        self.keys.update({path + below: mark for below, mark in branch.keys.items()})
        self.texts.update({path + below: text for below, text in branch.texts.items()})
        self.keys[path] = branch.mark(())


class _Refused(yaml.YAMLError):
    """The text is YAML, but not of the kind a spec may be."""

    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """Composes nodes with the core schema's scalars; counts them so that a hostile file stops early."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.count = 0
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.count += 1
        self.depth += 1
        if self.count > MAX_NODES or self.depth > MAX_DEPTH:
            what = (
                f"more than {MAX_NODES} values" if self.count > MAX_NODES else f"nested deeper than {MAX_DEPTH} levels"
            )
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _Refused(f"too large for a spec: {what}", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
_Loader.add_implicit_resolver(_TAG + "bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))


class _Builder:
    """Turns composed nodes into plain values and notes places and what it refuses on the way."""

    def __init__(self, file: str, lines: bool = True) -> None:
        self.tree = Tree(file=file)
        self.open: set[int] = set()
        self.count = 0
        self.lines = lines

    def place(self, mark: yaml.Mark | None) -> Mark:
        if not self.lines:
            return Mark(file=self.tree.file)
        return Mark(file=self.tree.file, line=mark.line + 1 if mark else 1, column=mark.column + 1 if mark else 1)

    def refuse(self, path: Keys, mark: yaml.Mark, message: str, *, void: bool = False) -> None:
        self.tree.refuse(path, self.place(mark), message, void=void)

    def value(self, node: yaml.Node, path: Keys) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise _Refused(
                f"too large for a spec: more than {MAX_NODES} values once aliases are expanded", node.start_mark
            )
        if id(node) in self.open:
            raise _Refused("an alias that refers to itself; write the value out", node.start_mark)
        self.tree.values[path] = self.place(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self.refuse(path, node.start_mark, _tag_text(node.tag), void=True)
            return None
        self.open.add(id(node))
        built = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open.discard(id(node))
        return built

    def sequence(self, node: yaml.Node, path: Keys) -> list[Any]:
        return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, path: Keys) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                what = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "this key"
                self.refuse(path, key_node.start_mark, f"{what} is not text; put the key in quotes")
                continue
            key = key_node.value
            if wrong := _wrong_key(key):
                self.refuse(path, key_node.start_mark, wrong)
                continue
            place = (*path, key)
            if key in built:
                first = f" (first in line {self.tree.keys[place].line})" if self.lines else ""
                self.refuse(place, key_node.start_mark, f"given twice{first}; remove one of them")
                continue
            if key == "<<" and key_node.style is None:
                merge = "merge keys are not part of YAML 1.2; write the keys out"
                self.refuse(place, key_node.start_mark, merge, void=True)
                continue
            self.tree.keys[place] = self.place(key_node.start_mark)
            built[key] = self.value(value_node, place)
        return built

    def scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if tag == "str":
            if wrong := _wrong_text(text):
                self.refuse(path, node.start_mark, wrong, void=True)
            return text
        self.tree.texts[path] = text
        if tag == "null" and _NULL.match(text):
            return None
        if tag == "bool" and _BOOL.match(text):
            return text.lower() == "true"
        if tag in ("int", "float") and (_INT.match(text) or (tag == "float" and _FLOAT.match(text))):
            try:
                return _number(text, tag)
            except (ValueError, OverflowError):
                self.refuse(path, node.start_mark, f"a number with {len(text)} digits is too long", void=True)
                return None
        named = node.tag in {_TAG + kind for kind in ("null", "bool", "int", "float")}
        self.refuse(path, node.start_mark, f"{text!r} is no {tag}" if named else _tag_text(node.tag), void=True)
        return None


def _wrong_text(text: str) -> str:
    """What no text of a spec may contain; "" if there is none of it."""
    found = _UNSTORABLE.search(text)
    return f"the character U+{ord(found[0]):04X} cannot be stored in a table; remove it" if found else ""


def _wrong_key(key: str) -> str:
    shown = on_one_line(key)
    return "" if shown == key else f"the key '{shown}' has control characters; remove them"


def _number(text: str, tag: str) -> int | float:
    if text[:2] in ("0o", "0x"):
        return int(text, 0)
    if tag == "int":
        return int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _tag_text(tag: str) -> str:
    return f"the tag {tag.replace(_TAG, '!!')[:60]!r} is not allowed in a spec; remove it"


def dotted(path: Sequence[str | int]) -> str:
    """`('optimizers', 1, 'momentum')` as `optimizers[1].momentum`; the root is called `spec`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "spec"


def read_text(path: Path) -> str:
    """The text of a spec file. Raises UsageError if it cannot be read, SpecError if it is not UTF-8 text."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; give a spec file{_example(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the spec {path}: {reason}{_instead(path)}") from None
    if len(raw) > MAX_BYTES:
        raise SpecError([_issue(str(path), 1, 1, f"larger than {MAX_BYTES} bytes; a spec is a short text file")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        text = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8 text"
        raise SpecError([_issue(str(path), line, column, text)]) from None


def _example(folder: Path) -> str:
    """A spec file in a folder, in words; empty where there is none."""
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda path: (path.name != "spec.yaml", path))
    return f", for example {found[0]}" if found else ""


def _instead(path: Path) -> str:
    """What to do about a spec that cannot be read."""
    for near in (f"{stem}{suffix}" for stem in (path, os.path.splitext(path)[0]) for suffix in (".yaml", ".yml")):
        if near != str(path) and os.path.isfile(near):
            return f"; did you mean {near}?"
    return "; `lrsweep init` writes one to start from"


def refuse_other_breaks(text: str, file: str, *, lines: bool = True) -> None:
    """Raises SpecError for a character that YAML 1.2 has as text and PyYAML would read as the end of a line."""
    if found := _OTHER_BREAKS.search(text):
        shown = on_one_line(found[0])
        what = f'the character U+{ord(found[0]):04X} would end the line; write "{shown}" in double quotes, or remove it'
        raise SpecError([_issue(file, *(_line_and_column(text, found.start()) if lines else (0, 0)), what)])


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def parse(text: str, file: str, *, lines: bool = True) -> Tree:
    """Read one YAML document; without `lines` its places are the whole of `file`, the option that it was given in.

    Forbidden tags, characters and repeated keys are in its `refused`. Raises SpecError if the text is not YAML.
    """
    builder = _Builder(file, lines)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            builder.tree.data = builder.value(node, ())
    except _Refused as error:
        at = builder.place(error.mark)
        raise SpecError([_issue(file, at.line, at.column, error.message)]) from None
    except yaml.MarkedYAMLError as error:
        at = builder.place(error.problem_mark or error.context_mark)
        raise SpecError([_issue(file, at.line, at.column, _syntax(error, lines))]) from None
    except yaml.reader.ReaderError as error:
        at_line, at_column = _line_and_column(text, error.position) if lines else (0, 0)
        what = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML; remove it"
        raise SpecError([_issue(file, at_line, at_column, what)]) from None
    finally:
        if loader is not None:
            loader.dispose()
    builder.tree.values.setdefault((), builder.place(None))  # the text may be empty
    return builder.tree


def _syntax(error: yaml.MarkedYAMLError, lines: bool) -> str:
    issue = error.problem or "syntax error"
    if r"'\t'" in issue:
        return "not valid YAML: a tab; indent with spaces"
    if "expected a single document" in (error.context or ""):
        return "a second document (`---`); a spec is one document"
    where = f", {error.context}" if error.context else ""
    since = error.context_mark
    begun = f" that began in line {since.line + 1}" if since and error.context and lines else ""
    return f"not valid YAML: {issue}{where}{begun} (check brackets, quotes, `: ` and indentation)"


def _issue(file: str, line: int, column: int, message: str) -> SpecIssue:
    return SpecIssue(file=file, line=line, column=column, path="spec", message=message)


DICT = "<dict>"


def from_dict(data: Mapping[str, Any]) -> Tree:
    """A dict as a tree without lines. Tuples become lists, numpy scalars numbers, paths text."""
    tree = Tree(file=DICT, values={(): Mark(file=DICT)})
    tree.data = _plain(data, (), tree)
    return tree


def _plain(value: Any, path: Keys, tree: Tree) -> Any:
    if isinstance(value, str) and (wrong := _wrong_text(value)):
        tree.refuse(path, Mark(file=DICT), wrong, void=True)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if len(path) <= MAX_DEPTH:
        if isinstance(value, Mapping):
            for key in value:
                if wrong := _wrong_key(key) if isinstance(key, str) else f"the key {key!r} is not text":
                    tree.refuse(path, Mark(file=DICT), wrong)
            return {key: _plain(item, (*path, key), tree) for key, item in value.items() if isinstance(key, str)}
        if isinstance(value, list | tuple | range):
            return [_plain(item, (*path, i), tree) for i, item in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        for kind in (bool, int, float, str):  # numpy's numbers and text, str enums
            if isinstance(value, kind):
                return kind(value)
        if hasattr(value, "tolist"):
            return _plain(value.tolist(), (*path, 0), tree)
    kind_name = type(value).__name__
    message = f"a value of type {kind_name} is not allowed in a spec; use numbers, strings, lists and dicts"
    tree.refuse(path, Mark(file=DICT), message, void=True)
    return None


class _Dumper(yaml.SafeDumper):
    """Writes floats as Python's repr, and quotes what either YAML 1.1 or 1.2 would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float_node(dumper: _Dumper, value: float) -> yaml.Node:
    text = repr(value)
    return dumper.represent_scalar(_TAG + "float", {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(text, text))


def _text_node(dumper: _Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar(_TAG + "str", value, style='"' if _OTHER_BREAKS.search(value) else None)


_Dumper.add_representer(float, _float_node)
_Dumper.add_representer(str, _text_node)
_Dumper.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_TAG + "int", _INT, list("0"))


def dump(data: Any) -> str:
    """Plain values as YAML that `parse` reads back the same: order kept, floats as repr, leaf lists on one line."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return str(text)
