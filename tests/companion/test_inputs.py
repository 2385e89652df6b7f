"""What a chapter's number depends on: the files that its kernel reads, the versions, and nothing of the caller's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from companion import execution, recorder
from companion.chapters import Chapter, choose_chapters
from companion.execution import Outcome, executed_path, run_chapters, state_of, stored_metadata, why_stale

CODE = [
    "%%time\nfrom toy import first\nfirst.value()",
    "%%capture\nimport helper",
    "import importlib\nimportlib.import_module('toy.third')",
    "%run script.py",
    "exec(open('text.txt').read())",
    "from importlib import resources\nresources.files('toy').joinpath('table.csv').read_text()",
    "from pathlib import Path\ntry:\n    Path('absent.txt').read_text()\nexcept FileNotFoundError:\n    pass",
    "try:\n    import optional\nexcept ImportError:\n    pass",
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import toy.child'], check=True)",
    "import toy.bom\nfrom toy import lazy\nlazy",
    "Path('made.txt').write_text('1')\nPath('made.txt').read_text()",
    "Path('../data/a.csv').read_bytes()",
]
FILES = {
    "book/helper.py": "import os",
    "book/script.py": "print(1)",
    "book/text.txt": "x = 1",
    "src/toy/table.csv": "1",
    "src/toy/child.py": "",
    "src/toy/bom.py": "\ufeffVALUE = 1",
    "src/toy/lazy.py": "",
    "src/toy/__init__.py": "def __getattr__(name):\n    from importlib import import_module\n"
    "    if name != 'lazy':\n        raise AttributeError(name)\n    return import_module('toy.lazy')",
    "data/a.csv": "1",
    "book/data.md": "# no chapter",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A chapter that reads in every way, with a claim, and another one."""
    chapters = {
        "one": {"code": [*CODE, tiny.claim("D1-one")], "boxes": [tiny.box("D1-one")]},
        "two": {"code": [], "boxes": [tiny.box("D1-two")]},
    }
    root: Path = tiny.project(tmp_path_factory.mktemp("inputs"), chapters)
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (outcome,) = run_chapters(choose_chapters(root, ["one"]))
    assert (outcome.error, outcome.problems) == (None, ())
    return root


def one(root: Path) -> Chapter:
    return choose_chapters(root, ["one"])[0]


@pytest.mark.parametrize(
    "name",
    [
        *("src/toy/__init__.py", "src/toy/first.py", "src/toy/second.py", "src/toy/third.py", "src/toy/bom.py"),
        *("src/toy/lazy.py", "src/toy/child.py", "src/toy/table.csv", "book/helper.py", "book/script.py"),
        *("book/text.txt", "data/a.csv", "book/absent.txt"),
        *("book/optional.py", "src/optional/__init__.py", "book/toy.py", "src/toy/first/__init__.py"),
    ],
)
def test_a_change_of_what_the_kernel_read_or_did_not_find_makes_a_copy_stale(root: Path, name: str) -> None:
    path = root / name
    before = path.read_bytes() if path.is_file() else None
    assert state_of(one(root)) == "fresh"
    path.parent.mkdir(exist_ok=True)
    path.write_text("# changed")
    assert state_of(one(root)) == "stale"
    assert why_stale(one(root), executed_path(one(root))) == f"{name} changed since the execution"
    if before is None:
        path.unlink()
    else:
        path.write_bytes(before)
    assert state_of(one(root)) == "fresh"


@pytest.mark.parametrize(
    "name",
    [
        *("data/.DS_Store", "data/a.csv~", "src/toy/unused.py", "book/made.txt", "book/intro.md", "constraints.txt"),
        *("book/two.ipynb", "_build/anything.txt", "book/data.md"),
    ],
)
def test_a_change_of_anything_else_executes_nothing(root: Path, name: str) -> None:
    (root / name).write_text((root / name).read_text() + "\n" if (root / name).is_file() else "new")
    assert state_of(one(root)) == "fresh"


def test_files_behind_links_from_elsewhere_belong_to_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root / "src")
    noted = recorder.Recorder(str(root), str(tmp_path / "record"))
    assert noted.name(tmp_path / "link/toy/first.py") == "src/toy/first.py"
    assert noted.name(tmp_path / "record") is None


def test_declarations_that_are_read_to_be_shown_are_no_inputs(root: Path) -> None:
    noted = stored_metadata(executed_path(one(root)))["files"]
    assert not [name for name in noted if name.endswith((".ipynb", "declarations.py"))]
    assert noted["src/companion/measuring.py"]


def test_another_version_of_what_the_kernel_loaded_makes_a_copy_stale(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version
    assert "ipykernel" in stored_metadata(executed_path(one(root)))["versions"]
    for name, version, state in [
        ("ipykernel", "0.1", "stale"),
        ("torch", "0.1", "stale"),
        ("torch", f"{installed('torch').partition('+')[0]}+other", "fresh"),
        ("seaborn", "0.1", "fresh"),
    ]:
        fake = {name: version}
        monkeypatch.setattr(importlib.metadata, "version", lambda name, fake=fake: fake.get(name) or installed(name))
        execution._differing_here.cache_clear()
        assert state_of(one(root)) == state, name
    monkeypatch.undo()
    execution._differing_here.cache_clear()


# The shell changes files without the kernel's knowledge, as an editor does.
SECOND = "../src/toy/second.py"
SHELL = "from toy import second\nimport os\nos.system('{}')"
CHANGES = {
    "edited": f"sleep 0.1; echo VALUE = 2 > {SECOND}",
    "undone": f"cp -p {SECOND} kept; sleep 0.1; echo VALUE = 2 > {SECOND}; cp kept {SECOND}; touch -r kept {SECOND}",
    "removed": f"rm {SECOND}",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_the_chapter_runs_is_an_error_in_words(
    tmp_path: Path, tiny: SimpleNamespace, change: str
) -> None:
    code = [SHELL.format(CHANGES[change]), "print(second.VALUE)"]
    (outcome,) = run_chapters(choose_chapters(tiny.project(tmp_path, {"one": {"code": code}}), []))
    assert "src/toy/second.py changed while the chapter ran; run it again" in (outcome.error or "")
    assert state_of(outcome.chapter) != "fresh"


def test_the_notebook_that_is_executed_is_the_one_whose_digest_is_kept(tmp_path: Path, tiny: SimpleNamespace) -> None:
    root = tiny.project(tmp_path, {"one": {"code": ["print('first')"]}})
    read_before = one(root)
    _ = read_before.notebook
    tiny.notebook(root / "book/one.ipynb", ["print('second')"])
    (outcome,) = run_chapters([read_before])
    assert printed(outcome) == "first\n"
    assert state_of(one(root)) == "stale"


def test_an_edit_that_keeps_size_and_time_is_executed(tmp_path: Path, tiny: SimpleNamespace) -> None:
    code = ["from toy import second\nprint(second.VALUE)"]
    root = tiny.project(tmp_path, {"one": {"code": code}})
    second = root / "src/toy/second.py"
    assert printed(next(run_chapters([one(root)]))) == "1\n"
    state = second.stat()
    second.write_text("VALUE = 2\n")
    os.utime(second, ns=(state.st_atime_ns, state.st_mtime_ns))
    outcome = next(run_chapters([one(root)]))
    assert (outcome.executed, printed(outcome)) == (True, "2\n")


def printed(outcome: Outcome) -> str:
    cells = nbformat.read(outcome.copy, as_version=4).cells
    return "".join(output.text for cell in cells for output in cell.get("outputs", []) if "text" in output)


SHOW = """
import json, os, sys, warnings
import matplotlib
names = %s
seen = {name: os.environ.get(name) for name in names}
seen |= {"startup": "STARTED" in globals(), "executable": sys.executable, "size": matplotlib.rcParams["font.size"]}
seen |= {"optimize": sys.flags.optimize, "isolated": "theirs" not in repr(sys.path)}
print(json.dumps(seen))
"""
OTHERS = {
    "EMBEDDING_PRINCIPLE_DATA": "caller",
    "PYTHONSTARTUP": "caller/start.py",
    "PYTHONPATH": "theirs",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "TORCH_LOGS": "all",
    "OMP_NUM_THREADS": "7",
    "PYTHONHASHSEED": "5",
}


def test_nothing_of_the_caller_s_environment_reaches_a_number(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = tmp_path / "theirs"
    spec = caller / "kernels/python3/kernel.json"
    files = {
        spec: json.dumps({"argv": ["false"], "display_name": "Other", "language": "python"}),
        caller / "ipython/profile_default/startup/0.py": "STARTED = 1",
        caller / "matplotlibrc": "font.size: 77",
        caller / "config/matplotlib/matplotlibrc": "font.size: 78",
        caller / "start.py": "STARTED = 1",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = {"JUPYTER_PATH": "", "IPYTHONDIR": "ipython", "MATPLOTLIBRC": "matplotlibrc", "XDG_CONFIG_HOME": "config"}
    variables = OTHERS | {name: str(caller / place) for name, place in places.items()}
    variables |= {"MPLBACKEND": "Agg", "JUPYTER_DEFAULT_PROVISIONER_NAME": "none-such"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    root = tiny.project(tmp_path / "project", {"one": {"code": [SHOW % [*OTHERS, "MPLBACKEND"]]}})
    add_figure(root / "book/one.ipynb", "from matplotlib import pyplot\npyplot.plot([1, 2]);")
    (outcome,) = run_chapters(choose_chapters(root, []))
    assert outcome.error is None
    seen = json.loads(printed(outcome))
    expected = dict.fromkeys(OTHERS, None)
    expected |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": seen["PYTHONPATH"]}
    expected |= {"startup": False, "executable": sys.executable, "size": 10.0, "optimize": 0, "isolated": True}
    assert {name: seen[name] for name in expected} == expected
    assert "theirs" not in seen["PYTHONPATH"]


def add_figure(path: Path, source: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    metadata = {"mystnb": {"image": {"alt": "a line"}}}
    notebook.cells.append(nbformat.v4.new_code_cell(source, id="figure", metadata=metadata))
    nbformat.write(notebook, path)


@pytest.mark.parametrize("source", ["1", "from matplotlib import pyplot\npyplot.plot([1, 2])\npyplot.close()"])
def test_a_cell_that_announces_a_figure_and_shows_none_fails_the_chapter(
    tmp_path: Path, tiny: SimpleNamespace, source: str
) -> None:
    root = tiny.project(tmp_path, {"one": {"code": []}})
    add_figure(root / "book/one.ipynb", source)
    (outcome,) = run_chapters(choose_chapters(root, []))
    assert outcome.error == "cell 'figure' has an alternative text (metadata mystnb.image.alt), but shows no figure"


def test_threads_and_instructions_are_varied_on_purpose_alone_and_such_a_copy_is_none_of_the_book_s(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    code = ["import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ.get('ATEN_CPU_CAPABILITY'))"]
    root = tiny.project(tmp_path, {"one": {"code": code}})
    varied = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default"}
    (outcome,) = run_chapters([one(root)], engine=execution.LocalKernels(environment=varied))
    assert printed(outcome) == "2 default\n"
    assert state_of(one(root)) == "stale"
    reason = "it was made with ATEN_CPU_CAPABILITY=default, OMP_NUM_THREADS=2"
    assert why_stale(one(root), outcome.copy) == reason
    (outcome,) = run_chapters([one(root)])
    assert (outcome.executed, printed(outcome), state_of(one(root))) == (True, "1 None\n", "fresh")


def test_nothing_but_threads_and_instructions_can_be_varied() -> None:
    with pytest.raises(ValueError, match=r"environment: PYTHONPATH cannot be varied; .*OMP_NUM_THREADS"):
        execution.LocalKernels(environment={"PYTHONPATH": "theirs", "OMP_NUM_THREADS": "2"})
