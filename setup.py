"""Puts the tables of data/ into a wheel, beside the modules that read them; all else is in pyproject.toml.

The repository holds each table once. An editable installation reads them where they are.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# README.md names their sources and licences, checksums.txt has their digests.
TABLES = ("iris.csv", "wine.csv", "checksums.txt", "README.md")


class BuildWithTables(build_py):
    """Builds the packages, and copies the tables unless the installation is editable."""

    def run(self) -> None:
        """Run the command."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "embedding_principle", "data")
            self.mkpath(str(folder))
            for name in TABLES:
                self.copy_file(str(Path("data", name)), str(folder / name))


setup(cmdclass={"build_py": BuildWithTables})
