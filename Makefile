# Set up, try, test. `make` alone lists what there is.
#
#   PYTHON      the interpreter that .venv is made from, 3.10 or newer
#   PIP_EXTRA   options for every pip install, such as --index-url ADDRESS of an index with PyTorch's CPU builds
#   PYTEST_ARGS what `make test` hands to pytest, such as '-k overlay'
#   PICTURES    a folder of pictures of your own for `make demo`

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test lint sanitize bench clean

PYTHON ?= python3
PIP_EXTRA ?=
PYTEST_ARGS ?=
PICTURES ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/python -m pip --disable-pip-version-check --quiet install $(PIP_EXTRA)

# What an installation is made from: when one of these is newer than the stamp, it is done again.
RECIPE := Makefile pyproject.toml setup.py constraints.txt $(wildcard kernels/*.pyx kernels/*.h kernels/cpu/*.[ch] kernels/cuda/*.cu kernels/cuda/*.h)

# The peers that tests and benchmarks compare with want builds of torch of their own, so they come without what they ask for; this is
# what they import beyond the product's own extras.
PEERS := torchvision timm grad-cam ttach captum
PEERS_NEED := pillow tqdm matplotlib scikit-learn PyYAML huggingface_hub safetensors

# Its builder needs no GPU. The wheels are for Linux on x86-64 and arm64; the last is Python alone, and has no wheel.
TENSORRT_WHEELS := tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings
TENSORRT := tensorrt-rtx-cu13

# Where there is nvcc, PyCUDA is built and driven against a libcuda of host memory; no GPU is needed.
CUDA_WHEELS := cuda-bindings nvidia-cuda-nvrtc

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 20

install: $(VENV)/installed  ## make .venv with the package, its command line and its exporter

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " \
	  + sys.version.split()[0] + ": make PYTHON=/path/to/python3")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python $(RECIPE)
	@echo "installing gcpp-edge and what it needs into $(VENV) (some minutes the first time)"
	@$(PIP) --editable '.[cli,onnxruntime,export,demo,web]'
	@touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	@echo "installing what the tests need into $(VENV)"
	@mkdir -p build
	@$(PIP) --editable '.[cli,onnxruntime,export,demo,web,test,lint]' $(PEERS_NEED)
	@$(PIP) --no-deps $(PEERS)
	@{ $(PIP) --no-deps --only-binary :all: $(TENSORRT_WHEELS) && \
	  $(PIP) --no-deps --no-build-isolation $(TENSORRT); } || \
	  echo "TensorRT for RTX has no wheels for this machine: the tests that build with it are skipped"
	@if command -v nvcc >/dev/null; then \
	  echo "building PyCUDA (two minutes)"; \
	  { $(PIP) --only-binary :all: $(CUDA_WHEELS) && bash benchmarks/install_pycuda.sh $(BIN)/python >build/pycuda.log 2>&1; } || \
	  echo "PyCUDA was not built (build/pycuda.log): the tests that drive it are skipped"; \
	fi
	@touch $@

demo: $(VENV)/installed  ## export EfficientNet-Lite0 and explain real pictures: panels in demo/
	@$(BIN)/gcpp-edge demo --output demo $(PICTURES)

test: $(VENV)/installed-for-tests  ## run the whole test suite
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# mypy takes the packages for one tree only where they lie in one, so it reads this tree of links to them.
lint: $(VENV)/installed-for-tests  ## style (ruff) and types (mypy)
	@$(BIN)/ruff check .
	@rm -rf build/types && mkdir -p build/types/gcpp_edge
	@ln -s $(CURDIR)/gcpp_edge/* build/types/gcpp_edge/
	@ln -s $(CURDIR)/export $(CURDIR)/kernels build/types/gcpp_edge/
	@cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p gcpp_edge

sanitize: $(VENV)/installed-for-tests  ## kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@PYTHON=$(BIN)/python bash tests/kernels/sanitize.sh

# Without what they share, the zoo, which takes hours, the GPU, which benchmarks/gpu.sh measures, the roofline, on paper, and
# what is counted under qemu-user.
NOT_HERE := benchmarks/common.py benchmarks/zoo.py benchmarks/gpu.py benchmarks/roofline.py benchmarks/arm_instructions.py
bench: $(VENV)/installed-for-tests  ## measure on this machine; results go to benchmarks/results/
	@for script in $(filter-out $(NOT_HERE),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## remove .venv and everything that was made
	rm -rf $(VENV) build dist demo *.egg-info kernels/*.so kernels/cuda/*.fatbin kernels/cuda/made_from.json .mypy_cache .pytest_cache .ruff_cache .hypothesis
