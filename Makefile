# The verbs of the project; .ci/run calls the same ones. Arguments go through: make demo ARGS="--pool soft --epochs 3"
PYTHON ?= python3
BIN := .venv/bin
# Two test processes: the suite is bound by torch, and each process runs it on one thread.
JOBS ?= 2

.PHONY: demo test check docs mutants clean

demo: .venv/installed
	$(BIN)/poolkit demo $(ARGS)

test: .venv/test-installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: .venv/installed
	$(BIN)/ruff check src tests docs
	$(BIN)/ruff format --check src tests docs
	$(BIN)/mypy

# The site, in site/: generated pages go to build/docs, never into docs/.
docs: .venv/docs
	$(BIN)/python docs/build.py

# Faults on purpose, some seconds each; results/mutation.json keeps what is known and the next call goes on from there.
mutants: .venv/installed
	$(BIN)/python tests/mutate.py $(ARGS)

clean:
	rm -rf .venv build dist site *.egg-info src/*.egg-info

# One lock pins what both commands install, dev extras included; poolkit itself is installed as a link to src/.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# TensorFlow and JAX for the tests of the Keras layers, and Ray for those of a study on a cluster.
.venv/test-installed: .venv/installed requirements-test.lock
	$(BIN)/python -m pip install --quiet -r requirements-test.lock
	touch $@

# Sphinx and its own are pinned apart, so that `make test` does not install them.
.venv/docs: .venv/installed requirements-docs.lock
	$(BIN)/python -m pip install --quiet -r requirements-docs.lock
	touch $@
