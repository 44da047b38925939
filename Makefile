.PHONY: setup build test hosts bench lint docs stubs wheel peers format ci gpu-table gpu-roofline gpu-report
PYTHON ?= python

setup:    ; $(PYTHON) -m pip install "scikit-build-core>=0.11" "pybind11>=3.0" ninja && $(PYTHON) -m pip install --no-build-isolation -e ".[test,lint,docs]"
build:    ; $(PYTHON) -m pip install --no-build-isolation -e .
test:     ; $(PYTHON) -m pytest
# The predictors of the packages that are installed; then the own tests of transformers, which tests/hosts/run.py says how to get.
hosts:    ; $(PYTHON) -m pytest tests/nn/test_predictors.py && $(PYTHON) tests/hosts/run.py $(TRANSFORMERS)
bench:    ; $(PYTHON) -m pytest benchmarks --benchmark-enable --benchmark-autosave --benchmark-columns=min,median,rounds --benchmark-sort=min
lint:     ; ruff check . && ruff format --check . && clang-format --dry-run -Werror $$(git ls-files 'csrc/*') && mypy && codespell README.md CHANGELOG.md CONTRIBUTING.md docs csrc fastprompt tests benchmarks examples && $(PYTHON) tests/tree.py
format:   ; ruff check --fix . ; ruff format . ; clang-format -i $$(git ls-files 'csrc/*')
docs:     ; pdoc --math --docformat google -o site fastprompt
stubs:    ; pybind11-stubgen fastprompt._C -o build/stubs
wheel:    ; $(PYTHON) -m pip wheel --no-deps -w dist .
peers:    ; $(PYTHON) -m pip install "setuptools<81" wheel scikit-fmm SimpleITK dijkstra3d edt opencv-python-headless && CUDA_HOME= FORCE_CUDA=0 MAX_JOBS=2 $(PYTHON) -m pip install --no-deps --no-build-isolation --no-binary :all: fastgeodis==1.0.5
gpu-table: ; $(PYTHON) tests/support/gpu_resources.py --write
gpu-roofline: ; $(PYTHON) benchmarks/gpu/roofline.py --write
# On a machine with a GPU and nvcc: builds, runs every GPU test, then the latency suite; commit docs/gpu_*.
gpu-report:
	$(PYTHON) -m pip install --no-build-isolation --no-deps -e . -C cmake.define.FASTPROMPT_CUDA=ON
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) benchmarks/gpu/report.py --json docs/gpu_results.json && $(PYTHON) benchmarks/gpu/roofline.py --write
ci:       ; bash .ci/run
