# Two commands are all a fresh machine needs: `make demo` and `make test`.
# Both make .venv themselves, and use whatever package index pip is configured with.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := graphflow models benchmarks tests

# The first interpreter that really runs, is new enough and can make environments.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c "$(SUITABLE)" >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: demo test test-browser test-distributed lint types unit test-cudasim test-ptx test-arm gpu conformance bench clean help

help:
	@echo "make demo    train an MLP on handwritten digits, static and eager, and show the graph"
	@echo "make test    ruff, mypy --strict and the whole test suite"
	@echo "make test-browser  the HTML report in headless Chromium (Debian: apt install chromium)"
	@echo "make test-distributed  jobs of 1, 2 and 4 processes on MPI (installs mpi4py and mpich)"
	@echo "make test-cudasim  every operation's CUDA kernels in the simulator"
	@echo "make test-ptx   every CUDA kernel as machine code for sm_80 and sm_90: registers, spills (no GPU)"
	@echo "make test-arm   kernels for 64-bit ARM, compiled and run in an emulator (installs unicorn)"
	@echo "make gpu     on a machine with a GPU: builds, checks and times what only it can show"
	@echo "make conformance  PyTorch's own samples through GraphFlow (installs PyTorch)"
	@echo "make bench   GraphFlow beside PyTorch, JAX, PyTensor and ONNX Runtime (installs them);"
	@echo "             BENCH=--quick only tries, BENCH='--folder benchmarks/results' keeps figures"
	@echo "make clean   remove .venv and what the targets wrote"

demo: $(VENV)/run.stamp
	$(BIN)/python models/mlp.py --mode both --seeds 5 --inspect out/mlp

test: lint types unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/dev.stamp
	$(BIN)/mypy --strict graphflow

unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

test-browser: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q tests/browser

test-distributed: $(VENV)/distributed.stamp
	$(BIN)/python -m pytest -q tests/distributed

test-cudasim: $(VENV)/dev.stamp
	$(BIN)/python -m tests.cudasim --seconds 180
	$(BIN)/python -m tests.cudasim.models
	$(BIN)/python -m tests.cudasim.models --library
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/python -m pytest -q -p no:cacheprovider tests/cudasim/simulated_vectors.py \
		tests/cudasim/simulated_convolutions.py -k "residual_network or rows_in_several_passes"
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/python -m pytest -q -p no:cacheprovider tests/cudasim/simulated_attention.py \
		tests/cudasim/simulated_columns.py

# An environment of its own: numba-cuda takes the place of Numba's own CUDA target.
test-ptx: $(VENV)-cuda/stamp
	$(VENV)-cuda/bin/python -m tests.cudasim.ptx --seconds 200
	$(VENV)-cuda/bin/python -m pytest -q -p no:cacheprovider tests/cudasim/stored_kernels.py tests/cudasim/native_functions.py
	$(VENV)-cuda/bin/python -m pytest -q -p no:cacheprovider tests/cudasim/vector_kernels.py
	$(VENV)-cuda/bin/python -m pytest -q -p no:cacheprovider tests/cudasim/cublas_binding.py

# Ordinary tests, whose kernels are ARM's.
ARM := $(addprefix tests/test_,vector_math.py contraction.py products.py winograd.py depthwise.py)

test-arm: $(VENV)/arm.stamp
	$(BIN)/python -m tests.arm.kernels --quick --seconds 80
	$(BIN)/python -m tests.arm --quick --seconds 60
	GRAPHFLOW_CPU_FEATURES=arm64-apple-macosx11.0:apple-m1 $(BIN)/python -m tests.arm --quick --seconds 40
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 -p no:cacheprovider -p tests.arm.plugin \
		tests/arm/emulated_models.py $(ARM) -k "not one_program_serves and not any_number_of_threads"

gpu: $(VENV)-cuda/stamp
	$(VENV)-cuda/bin/python -m pytest -q tests/gpu
	$(VENV)-cuda/bin/python -m benchmarks.gpu
	$(VENV)-cuda/bin/python -m benchmarks.gpu_peers  # where PyTorch is installed

# Tests whose graphs are written in every form and read again.
FORMS := $(addprefix tests/test_,programs.py control_flow.py recurrent.py transformer.py)

conformance: $(VENV)/conformance.stamp $(VENV)/dev.stamp
	$(BIN)/python -m tests.conformance --table
	$(BIN)/python -m tests.cudasim.samples
	$(BIN)/python -m tests.conformance.onnx_nodes
	$(BIN)/python -m tests.conformance.onnx_models
	$(BIN)/python -m tests.conformance.quantised
	$(BIN)/python -m pytest -q -p tests.round_trips $(FORMS)

bench: $(VENV)/peers.stamp
	$(BIN)/python -m benchmarks.suite --pytensor-python $(VENV)-pytensor/bin/python $(BENCH)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "GraphFlow needs Python 3.11 or newer with the venv module" \
		"(Debian, Ubuntu: apt install python3-venv); none was found."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m compileall -q graphflow
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m compileall -q graphflow
	@touch $@ $(VENV)/run.stamp

$(VENV)/distributed.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev,distributed]"
	@touch $@ $(VENV)/run.stamp $(VENV)/dev.stamp

$(VENV)/arm.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev,arm]"
	@touch $@ $(VENV)/run.stamp $(VENV)/dev.stamp

$(VENV)/conformance.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[conformance]"
	@touch $@ $(VENV)/run.stamp

$(VENV)-cuda/stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)-cuda
	$(VENV)-cuda/bin/python -m pip install --quiet --editable ".[cuda,dev]"
	@touch $@

$(VENV)/peers.stamp: pyproject.toml benchmarks/pytensor.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[peers]"
	$(PYTHON) -m venv $(VENV)-pytensor  # PyTensor wants another Numba than ours
	$(VENV)-pytensor/bin/python -m pip install --quiet -r benchmarks/pytensor.txt
	@touch $@ $(VENV)/run.stamp

clean:
	rm -rf $(VENV) $(VENV)-cuda $(VENV)-pytensor out build *.egg-info .mypy_cache .ruff_cache .pytest_cache
