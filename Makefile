.PHONY: build test bench lint docs stubs wheel peers format ci gpu-table
PYTHON ?= python

build:    ; $(PYTHON) -m pip install --no-build-isolation -e .
test:     ; $(PYTHON) -m pytest
bench:    ; $(PYTHON) -m pytest benchmarks --benchmark-enable --benchmark-autosave --benchmark-columns=min,median,rounds --benchmark-sort=min
lint:     ; ruff check . && ruff format --check . && clang-format --dry-run -Werror $$(git ls-files 'csrc/*') && mypy && codespell README.md CHANGELOG.md CONTRIBUTING.md docs csrc fastprompt tests benchmarks examples && $(PYTHON) tests/tree.py
format:   ; ruff check --fix . ; ruff format . ; clang-format -i $$(git ls-files 'csrc/*')
docs:     ; pdoc --math --docformat google -o site fastprompt
stubs:    ; pybind11-stubgen fastprompt._C -o build/stubs
wheel:    ; $(PYTHON) -m pip wheel --no-deps -w dist .
peers:    ; $(PYTHON) -m pip install "setuptools<81" wheel scikit-fmm SimpleITK dijkstra3d edt opencv-python-headless && CUDA_HOME= FORCE_CUDA=0 MAX_JOBS=2 $(PYTHON) -m pip install --no-deps --no-build-isolation --no-binary :all: fastgeodis==1.0.5
gpu-table: ; $(PYTHON) tests/gpu_resources.py --write
ci:       ; bash .ci/run
