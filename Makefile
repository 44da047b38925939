.PHONY: setup build test hosts fuzz tsan bench lint docs stubs wheel peers format ci gpu-table gpu-roofline gpu-report
PYTHON ?= python
SECONDS ?= 600

# Says what is missing, instead of a traceback.
has-%: ; @command -v $* >/dev/null || $(PYTHON) -c "import $*" 2>/dev/null || { echo "$* is not installed: run \`make setup\`, or pip install $*" >&2; exit 1; }

setup:    ; $(PYTHON) -m pip install "scikit-build-core>=0.11" "pybind11>=3.0" ninja && $(PYTHON) -m pip install --no-build-isolation -e ".[test,lint,docs]"
build: has-scikit_build_core has-pybind11 ; $(PYTHON) -m pip install --no-build-isolation -e .
test: has-pytest ; $(PYTHON) -m pytest
bench: has-pytest_benchmark ; $(PYTHON) -m pytest benchmarks --benchmark-enable --benchmark-autosave --benchmark-columns=min,median,rounds --benchmark-sort=min
lint: has-ruff has-clang-format has-mypy has-codespell ; ruff check . && ruff format --check . && clang-format --dry-run -Werror $$(git ls-files 'csrc/*') && mypy && codespell README.md CHANGELOG.md CONTRIBUTING.md docs csrc fastprompt tests benchmarks examples && $(PYTHON) tests/tree.py
format: has-ruff has-clang-format ; ruff check --fix . ; ruff format . ; clang-format -i $$(git ls-files 'csrc/*')
# pdoc does not ask for names that a module finds when they are asked for.
docs: has-pdoc ; $(PYTHON) -c "import fastprompt as fp; [setattr(fp, n, getattr(fp, n)) for n in fp.__all__]; from pdoc.__main__ import cli; cli()" --math --docformat google -o site fastprompt
stubs: has-pybind11-stubgen ; pybind11-stubgen fastprompt._C -o build/stubs
# Every door under AddressSanitizer and UBSan, in a build of its own; a find is told with its seed.
fuzz: has-cmake has-pybind11
	cmake -S . -B build/sanitized -G Ninja -DCMAKE_BUILD_TYPE=None -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir) -DPython_EXECUTABLE=$$(command -v $(PYTHON)) -DCMAKE_CXX_FLAGS="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
	cmake --build build/sanitized
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=1000 PYTHONPATH=tests:tests/support $(PYTHON) -m fuzz --build build/sanitized --thorough 1 --seconds $(SECONDS)
# The predictors, adapters and quantisers of packages that are installed; then the own tests of transformers, which tests/hosts/run.py says how to get.
hosts: has-pytest has-transformers ; $(PYTHON) -m pytest tests/nn/test_predictors.py tests/nn/test_adapters.py && $(PYTHON) tests/hosts/run.py $(TRANSFORMERS)
# Races between calls: kernels, pool and memory under ThreadSanitizer; needs cmake and a g++ or clang with libtsan.
tsan: has-cmake ; cmake -S tests/fuzz/tsan -B build/tsan -DCMAKE_BUILD_TYPE=None && cmake --build build/tsan && build/tsan/tsan
wheel:    ; $(PYTHON) -m pip wheel --no-deps -w dist .
peers: has-torch ; $(PYTHON) -m pip install "setuptools<81" wheel scikit-fmm SimpleITK dijkstra3d edt opencv-python-headless && CUDA_HOME= FORCE_CUDA=0 MAX_JOBS=2 $(PYTHON) -m pip install --no-deps --no-build-isolation --no-binary :all: fastgeodis==1.0.5
gpu-table: has-torch has-triton ; $(PYTHON) tests/support/gpu_resources.py --write
gpu-roofline: has-numpy ; $(PYTHON) benchmarks/gpu/roofline.py --write
# On a machine with a GPU and nvcc: builds, runs every GPU test, then the latency suite; commit docs/gpu_*.
gpu-report: has-scikit_build_core has-pybind11 has-torch
	$(PYTHON) -m pip install --no-build-isolation --no-deps -e . -C cmake.define.FASTPROMPT_CUDA=ON
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) benchmarks/gpu/report.py --json docs/gpu_results.json && $(PYTHON) benchmarks/gpu/roofline.py --write
ci:       ; bash .ci/run
