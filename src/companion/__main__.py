"""``python -m companion COMMAND``: what can happen before a command has begun ends in words, too."""

import sys

REMEDY = "`make book` installs what the book needs, or pip install '.[book]'"


def _start() -> int:
    try:
        from companion.commands import main

        return main()
    except KeyboardInterrupt:  # while packages are loaded, which takes a second
        print("companion: interrupted; nothing was begun", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        print(f"companion: the package {error.name} is missing; {REMEDY}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_start())
