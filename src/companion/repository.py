"""The repository's address, when whoever builds the book gives it: what links and buttons are made of.

The variable ``BOOK_REPOSITORY_URL`` holds it, as ``https://github.com/OWNER/NAME``. Without it the book names no
repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from companion.chapters import ProjectError

VARIABLE = "BOOK_REPOSITORY_URL"
BRANCH = "main"
NOTEBOOKS = "notebooks"  # the branch to which the publish workflow puts the notebooks that readers download
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"
# What chapters load beside what Colab has, or may not have; the versions there are Colab's own.
ADDED = ("mdit-py-plugins", "PyYAML", "seaborn", "tabulate")


def repository() -> str | None:
    """The address, without a slash or ``.git`` at its end; ``None`` when none is given.

    Raises:
        ProjectError: when it has another form.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    found = re.fullmatch(r"https://github\.com/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?", text)
    if not found or found[2] in (".", ".."):
        raise ProjectError(f"{VARIABLE} must be as https://github.com/OWNER/NAME, not {text!r}; unset it for no links")
    return f"https://github.com/{found[1]}/{found[2]}"


def with_links(config: dict[str, Any], address: str) -> dict[str, Any]:
    """The settings of ``_config.yml`` with the buttons that lead to the repository, and to Binder."""
    buttons = dict.fromkeys(("use_repository_button", "use_issues_button", "use_edit_page_button"), True)
    sphinx = config.get("sphinx") or {}
    return {
        **config,
        "repository": {"url": address, "branch": BRANCH},
        "html": {**(config.get("html") or {}), **buttons},
        "launch_buttons": {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"},
        "sphinx": {**sphinx, "config": {**(sphinx.get("config") or {}), "companion_repository": address}},
    }


def colab_url(address: str, chapter: str) -> str:
    """Where Colab opens a chapter's notebook to run.

    Example:
        >>> colab_url("https://github.com/owner/name", "depth/lifting")
        'https://colab.research.google.com/github/owner/name/blob/notebooks/depth/lifting.ipynb'
    """
    owner_and_name = address.removeprefix("https://github.com/")
    return f"{COLAB}/github/{owner_and_name}/blob/{NOTEBOOKS}/{quote(chapter)}.ipynb"


def bootstrap(address: str) -> str:
    """The code that brings the book's packages and data to Colab, and does nothing elsewhere."""
    name = Path(address).name
    return (
        "# On Colab: fetch the book's packages and data. Elsewhere nothing is done here.\n"
        "import os\nimport sys\n\n"
        'if "google.colab" in sys.modules:\n'
        f"    !git clone --quiet --depth 1 {address} {name}\n"
        f"    %pip install --quiet {' '.join(ADDED)}\n"
        f"    %cd -q {name}\n"
        '    sys.path.insert(0, f"{os.getcwd()}/src")'
    )
