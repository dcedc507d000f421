"""Functions and classes that are given in Python, in place of names in a spec: they are known by their source text.

Each gets a name such as `<python 3f2a9c1d0b7e4a55>:make_task`, which is what specs and results hold. Its number is a
hash of the source text, of that of the functions and classes of the same module that it uses, and of the numbers,
texts, tensors and arrays among its globals that these use. So a change under the same name is another name.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import linecache
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from lrsweep.errors import UsageError

NAME = re.compile(r"<python [0-9a-f]{16}>:[^\W\d]\w*")
PLAIN = (bool, int, float, complex, str, bytes, type(None))

_objects: dict[str, Any] = {}


def is_name(text: object) -> bool:
    """Is this a name that `register` gave, in this process or another?"""
    return isinstance(text, str) and NAME.fullmatch(text) is not None


def short(name: str) -> str:
    """A name as it is shown: of given code that of the function or class."""
    return name.rpartition(":")[2] if is_name(name) else name


def is_known(name: str) -> bool:
    """Is the object of this name in this process?"""
    return name in _objects


def get(name: str) -> Any:
    """The object that was given this name. Raises UsageError in a process that does not have it."""
    if name not in _objects:
        raise UsageError(f"{short(name)} was given in Python, and this process does not have it")
    return _objects[name]


def register(value: Any) -> str:
    """The name of a function or class from now on. Raises UsageError, with what to give instead, for anything else."""
    if isinstance(value, type) and value.__module__.startswith("torch.optim."):
        return value.__name__.lower()
    if not isinstance(value, types.FunctionType | type):
        raise UsageError(_instead(value))
    if not value.__name__.isidentifier():
        raise UsageError("a lambda has no name; define a function with `def`")
    digest = hashlib.sha256()
    for part in _Walk(value.__module__).parts(value):
        digest.update(f"{len(part)} {part}\n".encode("utf-8", "surrogatepass"))
    name = f"<python {digest.hexdigest()[:16]}>:{value.__name__}"
    _objects[name] = value
    return name


def _instead(value: Any) -> str:
    kind = type(value).__name__
    if type(value).__module__.startswith("lrsweep.tasks"):
        return "a Task has no source text to know it by; give the function that makes it"
    if any(cls.__module__.startswith("torch.nn.") for cls in type(value).__mro__):
        return f"a module ({kind}) would be shared by all runs; give its class, or a function that builds it"
    if any(cls.__module__.startswith("torch.optim.") for cls in type(value).__mro__):
        return (
            f"an optimizer object ({kind}) holds the weights of one model; give its class (lrsweep makes the objects)"
        )
    return f"a {kind} has no source text to know it by; give a function or a class (arguments are keys beside `name`)"


class _Walk:
    """Through an object and what it uses of its own module."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._seen: set[int] = set()

    def parts(self, value: Any) -> Iterator[str]:
        """Texts that are equal as long as the code is; in an order that depends on it alone."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        yield _source(value)
        functions = [value] if isinstance(value, types.FunctionType) else list(_methods(value))
        used: dict[str, Any] = {}
        for function in functions:
            yield from (_plain(default) for default in _defaults(function))
            used |= _used(function)
        if isinstance(value, type):
            used |= {base.__name__: base for base in value.__bases__}
            used |= {f".{key}": item for key, item in vars(value).items() if not key.startswith("__")}
        for name in sorted(used):
            yield from self._part(name, used[name])

    def _part(self, name: str, value: Any) -> Iterator[str]:
        if isinstance(value, types.FunctionType | type):
            if value.__module__ == self._module and not name.startswith("."):
                yield name
                yield from self.parts(value)
        elif text := _plain(value):
            yield f"{name} = {text}"


def _plain(value: Any) -> str:
    """A value as text; empty for what is not looked at."""
    if type(value) in PLAIN or (type(value) is tuple and all(type(item) in PLAIN for item in value)):
        return repr(value)
    if type(value).__module__ not in ("torch", "numpy") or not hasattr(value, "dtype"):
        return ""
    try:
        array = (value.detach().cpu() if hasattr(value, "detach") else value).__array__()
        digest = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    except (AttributeError, RuntimeError, TypeError, ValueError):  # sparse ones, types that numpy does not have
        return ""
    return f"{array.dtype} {array.shape} {digest}"


def _methods(cls: type) -> Iterator[types.FunctionType]:
    for item in vars(cls).values():
        found = item.fget if isinstance(item, property) else getattr(item, "__func__", item)
        if isinstance(found, types.FunctionType):
            yield found


def _defaults(function: types.FunctionType) -> list[Any]:
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _used(function: types.FunctionType) -> dict[str, Any]:
    """Globals and values of surrounding functions that are read, by name; without those that are written, too."""
    found: dict[str, Any] = {}
    for each in {id(one): one for one in (function, inspect.unwrap(function))}.values():
        read, written = _names(each.__code__)
        found |= {name: each.__globals__[name] for name in read - written if name in each.__globals__}
        for name, cell in zip(each.__code__.co_freevars, each.__closure__ or (), strict=True):
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not yet filled
                continue
    return found


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The globals that are read, and those that are written."""
    read: set[str] = set()
    written: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(step.argval)
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            more = _names(constant)
            read, written = read | more[0], written | more[1]
    return read, written


def _source(value: Any) -> str:
    """Raises UsageError if there is none, as for what is typed at Python's prompt."""
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        if isinstance(value, type) and (found := _source_of_class(value)):
            return found
    text = f"the source text of {value.__name__} cannot be found; define it in a file or in a notebook cell"
    raise UsageError(text)


def _source_of_class(cls: type) -> str:
    """That of a class from a notebook cell, of which Python knows the file of its methods only; "" if it has none."""
    for method in _methods(cls):
        code = inspect.unwrap(method).__code__
        text = "".join(linecache.getlines(code.co_filename))
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except SyntaxError:
            continue
        for node in nodes:
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__ and _holds(node, code.co_firstlineno):
                return textwrap.dedent(ast.get_source_segment(text, node, padded=True) or "")
    return ""


def _holds(node: ast.ClassDef, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or 0)
