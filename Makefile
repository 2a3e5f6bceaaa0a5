# make demo | make test   do all the set-up on a fresh machine; see README.md.
#
# Two virtual environments: .venv with the compiled core, .venv-plain with the pure one.
# Both get what `pip install .` gives, so what is tested is what users install.

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
SOURCES := pyproject.toml setup.py $(shell find src -type f -not -name '*.pyc')
# The tests of the core and of the examples and the proofs run on both builds, the rest on the compiled one.
CORE_TESTS := tests/core tests/examples proofs

.PHONY: demo test lint bench bench-core images mutants mutants-all clean

demo: .venv/.installed
	.venv/bin/acs demo

test: lint test-compiled test-plain

.PHONY: test-compiled test-plain
test-compiled: .venv/.installed
	ACS_EXPECT=compiled .venv/bin/pytest -q tests proofs

# Fails below 100 % of the core's lines and branches.
test-plain: .venv-plain/.installed
	ACS_EXPECT=plain .venv-plain/bin/coverage run -m pytest -q $(CORE_TESTS) \
	    --ignore=proofs/protocol
	.venv-plain/bin/coverage report

# Time on each target, in seconds.  What breaks is kept in build/fuzz, new inputs as well.
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: .venv-plain/.installed
	.venv-plain/bin/pip install -q "acs-scheduler[fuzz]"
	for target in scheduler pool trace; do \
	  mkdir -p build/fuzz/$$target && .venv-plain/bin/python proofs/fuzz/run.py $$target \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/ build/fuzz/$$target proofs/fuzz/corpus/$$target || exit 1; \
	done

# Each proof on so many new examples; docs/proofs.md has the last result.
DEEP_EXAMPLES ?= 20000
DEEP_SEED ?= 0
.PHONY: proofs-deep
proofs-deep: .venv/.installed
	HYPOTHESIS_PROFILE=deep DEEP_EXAMPLES=$(DEEP_EXAMPLES) .venv/bin/pytest -q --durations=0 \
	    --hypothesis-seed=$(DEEP_SEED) --ignore=proofs/protocol proofs

# Every fault of tests/cluster/faults on real processes, as root, some 40 minutes; docs/faults.md has
# the last table.  FAULTS="kill -9" runs those with these words in their names.
FAULTS ?=
.PHONY: faults
faults: .venv/.installed
	PYTHONPATH=tests .venv/bin/python -m cluster.faults $(FAULTS)

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

# The talk's experiment: build/report.html and build/experiment.json; docs/experiment.md says what
# is in them.  The second simulates alone, and is over in two minutes.
.PHONY: experiment experiment-quick
experiment: .venv/.installed
	.venv/bin/pip install -q "acs-scheduler[report]"
	.venv/bin/python bench/experiment.py

experiment-quick: .venv/.installed
	.venv/bin/pip install -q "acs-scheduler[report]"
	.venv/bin/python bench/experiment.py --quick

# Both builds of the core, side by side.  --benchmark-json makes no folder of its own.
bench-core: .venv/.installed .venv-plain/.installed
	mkdir -p build/bench
	.venv-plain/bin/pytest -q bench/core --benchmark-json=build/bench/plain.json
	.venv/bin/pytest -q bench/core --benchmark-json=build/bench/compiled.json
	.venv/bin/pytest-benchmark compare build/bench/plain.json build/bench/compiled.json \
	    --group-by=group --columns=min,median,ops --sort=min

# Planted faults, and what finds them: the chosen ones after 200 of the generic ones, or all.
# Each is run on the plain build, in a copy.  The first takes some 10 minutes, the other hours.
mutants: .venv-plain/.installed
	.venv-plain/bin/python proofs/mutants --generic 200

mutants-all: .venv-plain/.installed
	.venv-plain/bin/python proofs/mutants --generic all

clean:
	rm -rf .venv .venv-plain build
