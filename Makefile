# `make demo` and `make test` set up what they need. PIP_ARGS goes to pip, for people who want another index.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
MODELS ?= models
RUNS ?= runs
DEMO_MODEL := $(MODELS)/stdlib/1/model.onnx
PROTO := carousel/wire/carousel.proto

PEERS := mlserver torchserve kserve

.PHONY: help demo serve test soak compose-test interop peers cuda-test lint types imports fmt protos clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt 'torch==2.13.0'
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt --editable '.[cpu,train,export,bench,dev]'
	touch $@

demo: $(READY) ## train, export, serve and stream in one go, a stage at a time
	$(BIN)/python -m examples.demo --models $(MODELS) --runs $(RUNS)

$(DEMO_MODEL): | $(READY)
	rm -rf $(RUNS)/stdlib
	$(BIN)/carousel train characters-demo --out $(RUNS)/stdlib
	$(BIN)/carousel export $(RUNS)/stdlib --out $(MODELS)/stdlib

serve: $(DEMO_MODEL) ## serve the demo model on 127.0.0.1:8001 (gRPC) and :8002 (HTTP)
	$(BIN)/carousel serve --models $(MODELS)

test: $(READY) lint types imports ## lint, types, import rules and the default tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

soak: $(READY) ## a quarter of an hour of random histories, damaged frames and load; prints the seeds of what fails
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m 'soak or load'

compose-test: $(READY) ## build the images and bring everything up for real (needs a Docker engine)
	$(BIN)/python -m pytest tests/compose -m 'compose or not compose'

interop: $(READY) ## clients in other languages against a real server (needs Node.js 18 and npm)
	@for tool in node npm; do command -v $$tool >/dev/null || { echo "interop: $$tool is not installed" >&2; exit 1; }; done
	npm --prefix examples/node install --no-package-lock --no-audit --no-fund --silent
	$(BIN)/python -m pytest tests/interop -m interop

peers: $(PEERS:%=.peers/%/.ready) ## an environment for each server that `carousel bench peers` compares with

.peers/%/.ready: bench/peers/%/requirements.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --requirement $<
	touch $@

# Without the runtime that comes with the headers, which would be found before ours.
.cuda/.ready: tests/cuda/requirements.txt
	rm -rf .cuda
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --target .cuda/site --no-deps --requirement $<
	rm -r .cuda/site/nvidia/cu13/lib
	touch $@

.cuda/lib/.ready: .cuda/.ready $(wildcard tests/cuda/*.cpp tests/cuda/*.hpp) tests/cuda/build.py
	$(BIN)/python tests/cuda/build.py .cuda/site .cuda/lib
	touch $@

# The device says why it stops on a stream that pytest must leave alone.
cuda-test: $(READY) .cuda/lib/.ready ## the gpu tests on ONNX Runtime's CUDA provider, over a device of host memory (no GPU needed, needs g++)
	OMP_NUM_THREADS=1 CAROUSEL_TEST_CUDA=1 LD_LIBRARY_PATH="$(CURDIR)/.cuda/lib" PYTHONPATH="$(CURDIR)/.cuda/site" $(BIN)/python -m pytest --capture=sys -m gpu

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

fmt: $(READY) ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(READY) ## generate carousel/wire from protos/
	$(BIN)/python -m grpc_tools.protoc -Icarousel/wire=protos/carousel/v1 --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

clean: ## remove what was made, models and runs included
	rm -rf .venv .peers .cuda build *.egg-info $(RUNS) $(MODELS)
