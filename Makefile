# SPDX-License-Identifier: Apache-2.0
# The door to klaw. Every target sets up what it needs (tools/setup.sh) and builds out of tree, below build/.
#
#   make demo      word count over the documentation on this machine, with a progress line and channel statistics;
#                  ARGS=--chaos: its workers fail, ARGS=--resume: goes on where Ctrl-C stopped it
#   make test      all tests, the long suites in slices; within ten minutes on two cores
#   make bench     ours and the peers', one table
#   make lint      every static check
#   make docs      the manual as HTML, with the reference of every public name
#   make fuzz      every parser of outside bytes under libFuzzer, ten minutes each (KLAW_FUZZ_SECONDS)
#   make packages  Debian packages, a wheel and the source archive, into build/dist
#   make soak      the long suites in full
#   make chaos     Ray channels while processes are killed, for half an hour (KLAW_CHAOS_SECONDS), and the account
# and  test-local (all but Ray), test-ray (Ray only), test-fast (unit tests only), test-python (the Python package
#   without Ray), pythons (it under other Pythons and installed), asan, tsan, det, valgrind, coverage, aarch64, format, clean.
#
# JOBS=n sets how many tests run at once. KLAW_SEED=n replays a seed (HACKING.md).

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test test-local test-ray test-python pythons test-fast bench lint docs soak chaos fuzz packages test-ui python-asan clean asan tsan det valgrind coverage aarch64 format

help:
	@sed -n 's/^#   //p; s/^# and/and/p' Makefile

demo:
	@tools/setup.sh build
	@tools/build.sh release
	@build/release/examples/wordcount $(ARGS)

test: export KLAW_TEST_SLICE ?= ci
test:
	@tools/test.sh

test-local: export KLAW_TEST_SLICE ?= ci
test-local:
	@tools/test.sh local

test-python:
	@tools/setup.sh test python
	@tools/build.sh python
	@tools/pytest.sh local

test-ray: export KLAW_TEST_SLICE ?= ci
test-ray:
	@tools/setup.sh test python ray
	@tools/build.sh python
	@tools/pytest.sh ray

pythons:
	@tools/setup.sh test python
	@tools/pythons.sh
	@tests/install/python.sh

test-fast: export KLAW_TEST_SLICE ?= ci
test-fast:
	@tools/setup.sh test
	@tools/build.sh debug
	@tools/ctest.sh debug -L '^(unit|headers)$$'

soak: export KLAW_TEST_SLICE ?= soak
soak:
	@tools/setup.sh test
	@tools/build.sh debug
	@tools/ctest.sh debug -LE '^(e2e|install)$$' --timeout 7200
	@tools/build.sh det
	@tools/ctest.sh det --timeout 14400
	@tools/build.sh release all klaw_tests
	@tools/ctest.sh release --timeout 7200

chaos:
	@tools/setup.sh test python ray
	@tools/build.sh python
	@tests/python/chaos/run.sh

asan: export KLAW_TEST_SLICE ?= ci
asan:
	@tools/setup.sh test
	@tools/build.sh asan
	@tools/ctest.sh asan -L '^(unit|oom|stress|model|fuzz)$$' --timeout 300

python-asan:
	@tools/setup.sh test python
	@tools/build.sh python-asan
	@tools/python_asan.sh

tsan: export KLAW_TEST_SLICE ?= ci
tsan:
	@tools/setup.sh test
	@tools/build.sh tsan
	@tools/ctest.sh tsan -L '^(unit|stress)$$' --timeout 300

det: export KLAW_TEST_SLICE ?= ci
det:
	@tools/setup.sh test
	@tools/build.sh det
	@tools/ctest.sh det

valgrind:
	@tools/setup.sh valgrind
	@tools/build.sh debug
	@tools/valgrind.sh

coverage: export KLAW_TEST_SLICE ?= ci
coverage:
	@tools/setup.sh coverage
	@tools/build.sh coverage
	@find build/coverage -name '*.gcda' -delete
	@tools/ctest.sh coverage -L '^(unit|oom|stress|model|examples)$$' --timeout 300
	@mkdir -p build/coverage/html
	@.venv/bin/gcovr --root . --filter src/ --object-directory build/coverage --exclude-throw-branches \
	    --txt-summary --html-details build/coverage/html/index.html -j $$(nproc)

aarch64:
	@tools/aarch64.sh

bench:
	@tools/setup.sh bench
	@tools/build.sh release
	@tools/build.sh python
	@.venv/bin/python -B bench/run.py

lint:
	@tools/setup.sh lint python ray
	@tools/build.sh debug
	@tools/build.sh python
	@tools/lint.sh

format:
	@tools/setup.sh lint
	@find include src cli tests examples bench/klaw -name '*.[ch]' 2>/dev/null | xargs clang-format -i
	@.venv/bin/ruff format --no-cache --quiet tools tests bench python examples

fuzz:
	@tools/setup.sh fuzz
	@tools/fuzz.sh

test-ui:
	@tools/setup.sh ui
	@tools/build.sh release
	@.venv/bin/python -m pytest -q -p no:cacheprovider tests/ui

packages:
	@tools/setup.sh python
	@tools/build.sh release
	@tools/packages.sh

docs:
	@tools/setup.sh python docs
	@tools/build.sh python
	@tools/docs.sh

clean:
	@rm -rf build
