# Six words to learn: demo, demo-day, test, lint, types, bench. Each builds .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo demo-day screenshots test lint types bench bench-log lock clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

# Hashes are checked: what runs here is what was locked.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/ready  ## a broker, a backend that verifies its tokens, agents that call through them
	@$(BIN)/python examples/demo.py

demo-day: .venv/ready  ## a busy day's log with a misuse in it, for a reviewer to find
	@$(BIN)/python examples/day/demo_day.py

screenshots: .venv/ready  ## docs/images anew, from the log of a busy day, in Chromium
	@PICTURES=docs/images $(BIN)/python -m pytest -q tests/review/test_screenshots.py

test: .venv/ready  ## everything that is tested
	$(BIN)/python -m pytest

lint: .venv/ready  ## form and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready  ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright

bench: .venv/ready  ## against the same server that has no broker; prints ratios
	$(BIN)/python -m benchmarks

bench-log: .venv/ready  ## what a reviewer waits for, on a log of five million records; takes ten minutes, and 5 GB
	$(BIN)/python -m benchmarks.log_review

lock: .venv/ready  ## write requirements.lock anew, without any index address in it
	$(BIN)/python -m piptools compile --quiet --extra test --all-build-deps --allow-unsafe --generate-hashes \
	  --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file requirements.lock pyproject.toml

clean:  ## away with what was built
	rm -rf .venv build *.egg-info
