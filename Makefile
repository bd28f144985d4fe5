# Every target sets up what is missing; `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON312 ?= $(shell command -v python3.12 || echo python3.13)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RUNS   := runs
JOBS   ?= 2
MINUTES ?= 30
# Family and environment steps of the experts in datasets/experts.
EXPERTS ?= ant:1728000 push:704000 door:832000
# Rendering without a display; MuJoCo reads it.
export MUJOCO_GL ?= egl

.PHONY: help setup demo results pictures datasets experts test test-all peers fuzz wheel docs notebooks lint type bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv with the exact versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY)  ## record -> inspect -> meta-train four methods -> evaluate -> plot on Push
	$(BIN)/demokit compare docs/demo.toml --output-dir $(RUNS)/demo
	$(BIN)/demokit inspect $(RUNS)/demo/push.hdf5

results: $(READY)  ## docs/results.md: every comparison of docs/results.toml; continues where it stopped
	$(BIN)/demokit compare docs/results.toml --output-dir $(RUNS)/results --page docs/results.md \
	  --archive docs/results --jobs $(JOBS)

datasets: $(READY)  ## the datasets in datasets/: 20 tasks x 5 demonstrations, with their cards
	for name in push_state door_state push_vision; do \
	  $(BIN)/demokit record --env $${name%_*} --observation $${name#*_} --episodes-per-task 5 \
	    --noise 0.2 --license MIT --out datasets/$$name.hdf5 --overwrite && \
	  $(BIN)/demokit validate datasets/$$name.hdf5 --replay || exit 1; \
	done

experts: $(READY)  ## the experts in datasets/experts: SAC, 20 to 40 minutes each on two cores
	for each in $(EXPERTS); do \
	  $(BIN)/demokit train-expert --env $${each%:*} --total-steps $${each#*:} --resume \
	    --output-dir $(RUNS)/expert-$${each%:*} --out datasets/experts/$${each%:*}.safetensors || exit 1; \
	done
	$(BIN)/python docs/expert_curves.py datasets/experts docs/pictures/experts.png
	$(BIN)/python benchmarks/experts.py datasets/experts/*.safetensors

pictures: $(READY)  ## the pictures of docs/environments.md and, after make demo, of docs/evaluation.md
	BIN=$(BIN) RUNS=$(RUNS) sh docs/pictures.sh

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not realtime"
	$(BIN)/python -m pytest -m "realtime and not slow"

test-all: $(READY)  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not realtime"
	$(BIN)/python -m pytest -m realtime

docs: $(READY)  ## the docs as a site, in site/; a broken link or a missing picture is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(READY)  ## run docs/notebooks, a minute each, and keep what they print
	$(BIN)/python docs/notebooks.py

peers:  ## environments of LeRobot (needs Python 3.12) and robomimic in .peers, for tests/data/peers
	test -x .peers/robomimic/bin/python || $(PYTHON) -m venv .peers/robomimic
	.peers/robomimic/bin/python -m pip install --quiet -r tests/data/peers/robomimic.txt
	test -x .peers/lerobot/bin/python || $(PYTHON312) -m venv .peers/lerobot
	.peers/lerobot/bin/python -m pip install --quiet -r tests/data/peers/lerobot.txt

fuzz: $(READY)  ## change files of every kind that is read, for MINUTES; keeps what fails in fuzz/
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES) --keep fuzz

wheel: $(READY)  ## wheel and sdist in dist/, tested where nothing is but what they ask for
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m pytest tests/test_wheel.py

lint: $(READY)  ## ruff: lint and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(READY)  ## mypy --strict
	$(BIN)/mypy

bench: $(READY)  ## every benchmark
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the virtual environment, caches and runs
	rm -rf $(VENV) $(RUNS) dist site fuzz .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
