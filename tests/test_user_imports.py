"""Import paths: what is found, what is run once, and messages that point into the user's file."""

from __future__ import annotations

import pickle
import sys

import pytest

from lrsweep.errors import UsageError
from lrsweep.user_imports import check_unchanged, fingerprint, one_version, resolve, user_place


@pytest.fixture(autouse=True)
def clean_imports():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_relative_to_the_folder_or_absolute(tmp_path):
    path = write(tmp_path, "sub dir/my-task.py", "def make(n=3):\n    return n\n")
    assert resolve("sub dir/my-task.py:make", tmp_path)() == 3
    assert resolve(f"{path}:make", "/nowhere") is resolve("sub dir/my-task.py:make", tmp_path)


def test_a_file_runs_once_per_content(tmp_path):
    write(tmp_path, "count.py", "import sys\nsys.ran = getattr(sys, 'ran', 0) + 1\na, b = 1, 2\n")
    try:
        assert (resolve("count.py:a", tmp_path), resolve("count.py:b", tmp_path), sys.ran) == (1, 2, 1)
        write(tmp_path, "count.py", "import sys\nsys.ran = getattr(sys, 'ran', 0) + 1\na, b = 3, 4\n")
        assert (resolve("count.py:a", tmp_path), sys.ran) == (3, 2)
    finally:
        del sys.ran


def test_two_files_of_one_name_do_not_meet(tmp_path):
    write(tmp_path, "one/task.py", "value = 1\n")
    write(tmp_path, "two/task.py", "value = 2\n")
    assert [resolve("task.py:value", tmp_path / folder) for folder in ("one", "two", "one")] == [1, 2, 1]
    assert "task" not in sys.modules


def test_neighbours_of_one_name_in_two_folders_do_not_meet(tmp_path):
    for version in ("v1", "v2"):
        folder = tmp_path / version
        (folder / "parts_of").mkdir(parents=True)
        (folder / "parts_of" / "__init__.py").write_text("")
        (folder / "parts_of" / "layers.py").write_text(f"NAME = {version!r}\n")
        (folder / "network_of.py").write_text(f"NAME = {version!r}\n")
        (folder / "later_of.py").write_text(f"NAME = {version!r}\n")
        (folder / "task.py").write_text(
            "import network_of\nfrom parts_of.layers import NAME\n\n"
            "def make():\n    import later_of\n    return network_of.NAME, NAME, later_of.NAME\n"
        )
    for version in ("v1", "v2", "v1"):
        assert resolve("task.py:make", tmp_path / version)() == (version,) * 3


def test_neighbours_can_be_imported_also_later_and_hide_nothing(tmp_path):
    write(tmp_path, "helper_a.py", "value = 5\n")
    write(tmp_path, "helper_b.py", "value = 6\n")
    write(
        tmp_path,
        "task.py",
        "import helper_a\ndef make():\n    import helper_b\n    return helper_a.value + helper_b.value\n",
    )
    assert resolve("task.py:make", tmp_path)() == 11
    assert sys.path[0] != str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_classes_and_dataclasses_of_a_file_can_be_pickled(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\n"
    )
    write(tmp_path, "data.py", text)
    kind = resolve("data.py:P", tmp_path)
    assert pickle.loads(pickle.dumps(kind(x=4))) == kind(x=4)


def test_packages_installed_or_in_the_folder_and_dotted_names(tmp_path):
    write(tmp_path, "own_pkg/__init__.py", "")
    write(tmp_path, "own_pkg/inner.py", "class Box:\n    @staticmethod\n    def make():\n        return 9\n")
    assert resolve("own_pkg.inner:Box.make", tmp_path)() == 9
    assert resolve("collections:OrderedDict.fromkeys", tmp_path)("a") == {"a": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef make(:\n", r"task\.py:2: cannot be loaded: SyntaxError: invalid syntax"),
        ("x = 1\n\ny = undefined\n", r"task\.py:3: cannot be loaded: NameError: name 'undefined'"),
        ("def f():\n    raise ValueError('a\\n b')\nf()\n", r"task\.py:2: cannot be loaded: ValueError: a b"),
        ("import not_there_at_all\n", r"task\.py:1: cannot be loaded: ModuleNotFoundError"),
        ("import json\njson.loads('{')\n", r"task\.py:2: cannot be loaded: JSONDecodeError"),
        ("import sys\nsys.exit('bye')\n", r"task\.py:2: cannot be loaded: SystemExit: bye"),
        ("import broken_helper\n", r"task\.py:1: cannot be loaded: ZeroDivisionError"),
        ("\n\ndef make_task():\n    pass\n", r"task\.py:3: it does not define 'make' \(did you mean make_task\?\)"),
        ("def other():\n    pass\n", r"task\.py: it does not define 'make'$"),
        ("x = '\0'\n", r"task\.py.*cannot be loaded: SyntaxError"),
    ],
)
def test_errors_point_into_the_users_file(tmp_path, text, message):
    write(tmp_path, "broken_helper.py", "1 / 0\n")
    write(tmp_path, "task.py", text)
    for _ in range(2):  # the second time is no better: nothing half-run stays behind
        with pytest.raises(UsageError, match=message):
            resolve("task.py:make", tmp_path)


def test_files_and_packages_that_are_not_there(tmp_path):
    write(tmp_path, "mytask.py", "")
    with pytest.raises(UsageError, match=r"mytsk\.py: cannot be read: No such file .*\(did you mean mytask\.py\?\)"):
        resolve("mytsk.py:make", tmp_path)
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        resolve("folder/:make", (tmp_path / "folder").mkdir() or tmp_path)
    with pytest.raises(UsageError, match="no_such_package: cannot be loaded: ModuleNotFoundError"):
        resolve("no_such_package:f", tmp_path)
    write(tmp_path, "bad_pkg/__init__.py", "\nraise RuntimeError('no')\n")
    with pytest.raises(UsageError, match=r"bad_pkg/__init__\.py:2: cannot be loaded: RuntimeError: no"):
        resolve("bad_pkg:f", tmp_path)
    for wrong in ("file.py:", ":name", "file.py"):
        with pytest.raises(UsageError, match="is not an import path"):
            resolve(wrong, tmp_path)


def test_the_place_is_the_last_line_of_the_file_itself(tmp_path):
    write(
        tmp_path, "deep.py", "import json\ndef outer():\n    return inner()\ndef inner():\n    return json.loads('{')\n"
    )
    function = resolve("deep.py:outer", tmp_path)
    with pytest.raises(ValueError, match="Expecting") as caught:
        function()
    assert user_place(caught.value) == "deep.py:5 in inner"


def test_a_file_that_is_edited_stays_what_it_was_for_one_command(tmp_path):
    path = write(tmp_path, "task.py", "answer = 1")
    with one_version() as versions:
        before = fingerprint(path)
        path.write_text("answer = 2")
        assert resolve("task.py:answer", tmp_path) == 1
        assert fingerprint(path) == before
        with one_version(pickle.loads(pickle.dumps(versions))):  # as a process that is started later gets it
            assert resolve("task.py:answer", tmp_path) == 1
    assert resolve("task.py:answer", tmp_path) == 2


def test_data_that_change_while_a_command_runs_are_refused(tmp_path):
    path = write(tmp_path, "data.csv", "a,b\n1,2\n")
    with one_version():
        fingerprint(path)
        check_unchanged(path)
        path.write_text("a,b\n1,3\n")
        with pytest.raises(UsageError, match=r"data.csv: changed while the sweep was running"):
            check_unchanged(path)
    check_unchanged(path)
