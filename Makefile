# Two commands: `make book` executes and renders the book, `make test` runs every test.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: book test check pdf benchmark trust clean

book: .venv/installed-book
	$(BIN)/python -m companion build

# Executing takes all cores, rendering one: the linters run beside it.
test: .venv/installed-all
	$(BIN)/python -m companion run
	@$(MAKE) --no-print-directory --jobs 2 book check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# A stamp is written last, so an interrupted installation is taken up again.
.venv/installed-book: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make book PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[book]'
	@touch $@

.venv/installed-all: .venv/installed-book
	$(INSTALL) '.[book,cluster,compiled,test]'
	@touch $@

# Optional: it needs LaTeX, and says what to install where there is none.
pdf: book
	@$(INSTALL) '.[book,pdf]'
	$(BIN)/python -m companion pdf

# Each module measures one core against its peers and rewrites its table in benchmarks/results.
benchmark: .venv/installed-all
	for module in benchmarks/[a-z]*.py; do \
	  grep -q __main__ $$module || continue; \
	  $(BIN)/python -m benchmarks.$$(basename $$module .py) || exit 1; \
	done

# Tries to break the book; interrupted, it is taken up again. See book/appendix/trust.
trust: .venv/installed-all
	$(BIN)/python -m trust

clean:
	rm -rf _build .venv
