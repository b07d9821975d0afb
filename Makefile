# `make help` lists what there is. Every target makes .venv by itself, and again when the lock file changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

POCKETVL_CACHE ?= $(CURDIR)/.cache/pocketvl
export POCKETVL_CACHE

# Files in their order: the ones of few and long tests, which xdist would put last, leave no processor idle then.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

LOWER := build/lower-bounds
LOWER_UV := $(BIN)/uv pip install --quiet --python $(LOWER)/bin/python
locked = $(shell sed -n 's/^\($(1)==[^ ]*\).*/\1/p' requirements/export.txt)

# Where Python must not write bytecode as it runs, installing does: each of a hundred starts would compile torch.
# The stamps are written last and carry the checksum of what they stand for: an installation that was killed has none,
# and neither a checkout nor a touched file can make an old one look new.
sum = $(shell cat $(1) | cksum | cut -d ' ' -f 1)
LOCKED := $(VENV)/.locked-$(call sum,requirements/uv.txt requirements/export.txt)
READY := $(VENV)/.ready-$(call sum,pyproject.toml runtime/pocketvl_runtime/version.py)

.DEFAULT_GOAL := help
.PHONY: export compress profile results real-sizes test test-full test-lower-bounds fuzz check bench bench-peers devices schemas format lock clean distclean help
.DELETE_ON_ERROR:

export: $(READY) ## turn tabletop-clip and tabletop-vilt of checkpoints/ into bundles in build/, verified on unseen scenes, 4,000 and 2,000
	@mkdir -p build
	@$(BIN)/pocketvl data tabletop --seed 9001 --count 4000 -o build/tabletop-eval
	@$(BIN)/pocketvl export checkpoints/tabletop-clip -o build/tabletop-clip --data build/tabletop-eval
	@$(BIN)/pocketvl data tabletop --seed 9001 --count 2000 -o build/tabletop-questions
	@$(BIN)/pocketvl export checkpoints/tabletop-vilt -o build/tabletop-vilt --data build/tabletop-questions

compress: $(READY) ## make checkpoints/tabletop-clip-teacher smaller: build/tabletop-clip-student; hours without a GPU
	@mkdir -p build
	@$(BIN)/pocketvl data tabletop --seed 77 --count 48000 -o build/compress-data
	@$(BIN)/pocketvl compress checkpoints/tabletop-clip-teacher --recipe tabletop-balanced --data build/compress-data \
		-o build/tabletop-clip-student

profile: $(READY) ## how long both demo bundles' variants take here, and whether the engines alone say the same; needs `make export`
	@for bundle in build/tabletop-clip build/tabletop-vilt; do \
		$(BIN)/pocketvl profile $$bundle --all-variants --threads 1,2 --runs 100 || exit 1; done
	@for bundle in build/tabletop-clip build/tabletop-vilt; do \
		$(BIN)/python -m bench.profile_check $$bundle --threads 1,2 --runs 100 || exit 1; done

results: $(READY) ## measure every compression method, alone and combined: docs/RESULTS.md; many hours, goes on where stopped
	@mkdir -p build/results
	@$(BIN)/pocketvl data tabletop --seed 9001 --count 1000 -o build/results/judged
	@$(BIN)/pocketvl data tabletop --seed 77 --count 6000 -o build/results/data
	@$(BIN)/pocketvl data tabletop --seed 77 --count 48000 -o build/results/recipe-data
	@$(BIN)/python -m bench.results train --data build/results/data --recipe-data build/results/recipe-data --work build/results
	@$(BIN)/python -m bench.results measure --data build/results/data --recipe-data build/results/recipe-data \
		--judged build/results/judged --work build/results
	@$(BIN)/python -m bench.results render --work build/results

real-sizes: $(READY) ## export models of published sizes with random weights: docs/REAL_SIZES.md; hours, goes on where stopped
	@$(BIN)/python -m bench.real_sizes measure
	@$(BIN)/python -m bench.real_sizes render

test: $(READY) ## the tests: about 25 minutes on two cores
	@$(PYTEST) -m "not full"

test-full: $(READY) ## every test: those of `make test`, and longer ones of the same kinds
	@$(PYTEST)

fuzz: $(READY) ## N=10000 odd inputs, or as many as named; findings in build/fuzz (first number: FIRST=0)
	@$(BIN)/python -m tests.fuzz --cases $(or $(N),10000) --first $(or $(FIRST),0)

test-lower-bounds: $(LOCKED) ## the runtime's tests with the oldest versions that runtime/pyproject.toml allows
	@rm -rf $(LOWER)
	@$(BIN)/uv venv --quiet --python $(BIN)/python $(LOWER)
	@$(LOWER_UV) --only-binary :all: --resolution lowest-direct -r runtime/pyproject.toml --extra onnx --extra litert
	@$(LOWER_UV) --no-deps --editable runtime
	@$(LOWER_UV) $(foreach tool,pytest pytest-xdist hypothesis jsonschema onnx flatbuffers,$(call locked,$(tool)))
	@$(BIN)/uv pip freeze --quiet --python $(LOWER)/bin/python --exclude-editable
	@OMP_NUM_THREADS=1 $(LOWER)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		tests/runtime tests/hostile --ignore-glob 'tests/runtime/test_image*.py'

check: $(READY) ## ruff, mypy --strict and the import walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

bench: $(READY) ## the measurements in bench/: about an hour, results in build/bench
	@mkdir -p build/bench
	@$(BIN)/pocketvl data tabletop --seed 9005 --count 5000 -o build/bench/unseen
	@$(BIN)/pocketvl data tabletop --seed 77 --count 20000 -o build/bench/training
	$(BIN)/python -m bench.starts --work build/bench/starts
	$(BIN)/python -m bench.calibration_memory
	$(BIN)/python -m bench.clip_b32 --work build/bench/clip-b32
	$(BIN)/python -m bench.static_or_dynamic --work build/bench/clip-b32
	$(BIN)/python -m bench.static_parts
	$(BIN)/python -m bench.four_bit --data build/bench/unseen --train build/bench/training --work build/bench/four-bit

bench-peers: $(READY) ## pocketvl beside other tools on the same towers: docs/PEERS.md; installs 11 GB into build/peers, wants an idle machine
	@$(BIN)/python -m bench.peers prepare
	@$(BIN)/python -m bench.peers quantize
	@$(BIN)/python -m bench.peers measure
	@$(BIN)/python -m bench.peers render

devices: $(READY) ## write docs/DEVICES.md from the profiles in docs/devices/
	@$(BIN)/python -m bench.devices

schemas: $(READY) ## write the JSON Schemas in docs/ anew, from the runtime's types
	@$(BIN)/python -c 'from pocketvl_runtime.bench_result import bench_schema as s; print(s(), end="")' > docs/bench.schema.json
	@$(BIN)/python -c 'from pocketvl_runtime.bundle_schemas import manifest_schema as s; print(s(), end="")' > docs/bundle.schema.json
	@$(BIN)/python -c 'from pocketvl_runtime.bundle_schemas import golden_schema as s; print(s(), end="")' > docs/golden.schema.json

format: $(READY) ## let ruff sort imports and format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

lock: $(LOCKED) ## renew requirements/*.txt (LOCK_FLAGS=--upgrade takes newer versions)
	echo "uv==0.13.9" | $(COMPILE) --universal $(LOCK_FLAGS) -o requirements/uv.txt -
	$(COMPILE) --python-platform x86_64-manylinux_2_28 --extra onnx --extra litert --extra export --extra dev \
		$(LOCK_FLAGS) -o requirements/export.txt pyproject.toml
	$(COMPILE) --universal --constraint requirements/export.txt --extra onnx --extra litert \
		-o requirements/runtime.txt runtime/pyproject.toml
	echo "tensorflow-cpu==2.16.1" | $(COMPILE) --python-platform x86_64-manylinux_2_28 $(LOCK_FLAGS) \
		-o requirements/old_engine.txt runtime/pyproject.toml -

include android_demo/old_engine.mk android_demo/android.mk android_demo/app.mk android_demo/adb.mk tests/pi/pi.mk

clean: ## remove what was built and cached; .venv stays
	rm -rf build dist .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find exporter runtime tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and .venv too
	rm -rf $(VENV)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): $(LOCKED)
	@rm -f $(VENV)/.ready-*
	@$(UV) --no-deps --no-build-isolation --editable .
	@$(if $(PYTHONDONTWRITEBYTECODE),$(BIN)/python -m compileall -q exporter/pocketvl runtime/pocketvl_runtime)
	@touch $@

$(LOCKED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "pocketvl needs Python 3.11 or newer, which $(PYTHON) is not; name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "installing the locked packages into $(VENV); about a minute, once" >&2
	@if ls $(VENV)/.locked-* >/dev/null 2>&1; then rm -f $(VENV)/.locked-* $(VENV)/.ready-*; else \
		$(PYTHON) -m venv --clear $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt; fi
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) \
		--require-hashes requirements/uv.txt requirements/export.txt
	@touch $@
