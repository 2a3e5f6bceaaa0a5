# make demo | make test   do all the set-up on a fresh machine; see README.md.
#
# Two virtual environments: .venv with the compiled core, .venv-plain with the pure one.
# Both get what `pip install .` gives, so what is tested is what users install.

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
SOURCES := pyproject.toml setup.py $(shell find src -type f -not -name '*.pyc')
# The tests of the core and the proofs run on both builds, the rest on the compiled one.
CORE_TESTS := tests/core proofs

.PHONY: demo test lint bench images mutants mutants-all clean

demo: .venv/.installed
	.venv/bin/acs demo

test: lint test-compiled test-plain

.PHONY: test-compiled test-plain
test-compiled: .venv/.installed
	ACS_EXPECT=compiled .venv/bin/pytest -q tests proofs

test-plain: .venv-plain/.installed
	ACS_EXPECT=plain .venv-plain/bin/pytest -q $(CORE_TESTS)

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# build/ is removed first: setuptools would pack modules from it that are gone from src.
.venv/.installed: $(SOURCES)
	test -d .venv || $(PYTHON) -m venv .venv
	rm -rf build
	ACS_EXT=$${ACS_EXT:-auto} .venv/bin/pip wheel -q --no-deps -w build/wheel .
	.venv/bin/pip install -q --force-reinstall --no-deps build/wheel/*.whl
	.venv/bin/pip install -q "$$(echo build/wheel/*.whl)[node,test]"
	touch $@

.venv-plain/.installed: $(SOURCES)
	test -d .venv-plain || $(PYTHON) -m venv .venv-plain
	rm -rf build
	ACS_EXT=none .venv-plain/bin/pip wheel -q --no-deps -w build/wheel .
	.venv-plain/bin/pip install -q --force-reinstall --no-deps build/wheel/*.whl
	.venv-plain/bin/pip install -q sortedcontainers coverage hypothesis \
	    pytest pytest-asyncio pytest-benchmark
	touch $@

images: .venv/.installed
	.venv/bin/acs images build

bench: .venv/.installed
	.venv/bin/python bench/standalone.py

# Planted faults, and what finds them: the chosen ones after 200 of the generic ones, or all.
# Each is run on the plain build, in a copy.  The first takes some 10 minutes, the other hours.
mutants: .venv-plain/.installed
	.venv-plain/bin/python proofs/mutants --generic 200

mutants-all: .venv-plain/.installed
	.venv-plain/bin/python proofs/mutants --generic all

clean:
	rm -rf .venv .venv-plain build
