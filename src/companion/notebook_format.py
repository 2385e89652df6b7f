"""Reading a committed notebook: of the one format in which its cells have names that stay, and for Python."""

from __future__ import annotations

import json
from typing import Any

import nbformat

UNREADABLE = "not a readable notebook"
UPGRADE = (
    'bring it to format 4.5: python -c "import nbformat, sys; n = nbformat.read(sys.argv[1], 4); '
    'nbformat.write(nbformat.v4.upgrade(n), sys.argv[1])" NOTEBOOK'
)
DEFAULT_TIMEOUT = 600


def parse_notebook(content: bytes) -> nbformat.NotebookNode:
    """The notebook that a file holds.

    Raises:
        ValueError: in one sentence with the remedy, when it is no notebook of format 4.5 or newer, has cells without
            ids or with equal ones, is not for Python, or has a ``companion.timeout`` that is no positive integer.
    """
    text = _text(content)
    data = _json(text)
    if not isinstance(data, dict):
        raise ValueError(f"{UNREADABLE}: it is no mapping; restore the file")
    _require_format(data)
    try:
        _require_ids(data["cells"])
        notebook: nbformat.NotebookNode = nbformat.v4.reads(text)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
        problem = str(getattr(error, "message", error)).partition("\n")[0][:200]
        raise ValueError(f"{UNREADABLE}: {problem}; restore the file, or save it in JupyterLab") from error
    _require_python(notebook.metadata)
    timeout_of(notebook)
    return notebook


def timeout_of(notebook: nbformat.NotebookNode) -> int:
    """Seconds that one cell may take, from the setting ``companion.timeout`` of the metadata.

    Raises:
        ValueError: when the setting is no positive integer.
    """
    settings = notebook.metadata.get("companion", {})
    if not isinstance(settings, dict):
        raise ValueError(f"metadata companion must be a mapping, as {{'timeout': 900}}, not {settings!r}")
    timeout = settings.get("timeout", DEFAULT_TIMEOUT)
    if type(timeout) is not int or timeout < 1:
        raise ValueError(f"metadata companion.timeout must be a positive number of whole seconds, not {timeout!r}")
    return timeout


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{UNREADABLE}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _json(text: str) -> Any:
    if not text.strip():
        raise ValueError(f"{UNREADABLE}: it is empty; restore the file")
    if any(line.startswith(("<<<<<<<", ">>>>>>>")) for line in text.splitlines()):
        raise ValueError(f"{UNREADABLE}: it holds the marks of a merge; resolve the conflict")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{UNREADABLE}: not JSON ({error}); restore the file") from error


def _require_format(data: dict[str, Any]) -> None:
    major, minor = data.get("nbformat"), data.get("nbformat_minor")
    if type(major) is not int or type(minor) is not int:
        raise ValueError(f"{UNREADABLE}: its format is {major!r}.{minor!r}; restore the file")
    if major > 4:
        raise ValueError(f"format {major}.{minor} is newer than what can be read; save it as format 4.5")
    if (major, minor) < (4, 5):
        raise ValueError(f"format {major}.{minor} has no ids of cells, by which outputs are found; {UPGRADE}")


def _require_ids(cells: Any) -> None:
    ids = [cell.get("id") for cell in cells]
    for i, name in enumerate(ids, 1):
        if not isinstance(name, str) or not name:
            raise ValueError(f"cell {i} has no id, by which its outputs are found; {UPGRADE}")
        if ids.count(name) > 1:
            raise ValueError(f"the id {name!r} stands in {ids.count(name)} cells; give each an id of its own")


def _require_python(metadata: nbformat.NotebookNode) -> None:
    kernel, info = metadata.get("kernelspec"), metadata.get("language_info", {})
    if not isinstance(kernel, dict):
        raise ValueError("the metadata have no kernelspec; open and save it in JupyterLab")
    language = kernel.get("language") or info.get("name")
    if str(language).lower() != "python":
        raise ValueError(f"kernelspec.language is {language!r}, but chapters are in Python; choose a Python kernel")
