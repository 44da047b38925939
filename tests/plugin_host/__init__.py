"""Builds the plugin library, a host for it and a stand-in for the CUDA driver; a missing tool skips the test by name."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = tempfile.TemporaryDirectory()
WARNINGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]


def folder_of(package):
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package.replace('_libs', '-cu13-libs').replace('_', '-')} is not installed")
    return Path(found.origin).parent


def headers():
    """Of TensorRT: those that TENSORRT_INCLUDE_DIR names, or those in the wheel."""
    given = os.environ.get("TENSORRT_INCLUDE_DIR")
    return Path(given) if given else folder_of("kernel_lens") / "include/tensorrt"


def includes():
    """Headers of TensorRT and of CUDA."""
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    said = subprocess.run(
        ["nvcc", "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, check=True
    )
    cuda = re.findall(r'INCLUDES="-I(.*?)"', said.stderr)
    return [f"-isystem{folder}" for folder in (headers(), *cuda)]


def command(*arguments, **options):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@functools.cache
def library():
    """libfastprompt_tensorrt.so, as cmake/tensorrt.cmake builds it."""
    includes()
    import pybind11

    build = Path(FOLDER.name) / "build"
    generator = ["-GNinja"] if shutil.which("ninja") else []
    settings = ["FASTPROMPT_TENSORRT=ON", f"TENSORRT_INCLUDE_DIR={headers()}", f"Python_EXECUTABLE={sys.executable}"]
    settings.append(f"pybind11_DIR={pybind11.get_cmake_dir()}")
    command("cmake", "-S", ROOT, "-B", build, *generator, *(f"-D{s}" for s in settings))
    said = command("cmake", "--build", build, "--target", "fastprompt_tensorrt")
    assert "warning" not in said, said
    return build / "libfastprompt_tensorrt.so"


@functools.cache
def host():
    """Headers of one major version with a library of another crash."""
    major = re.search(r"define \w+_MAJOR\w* (\d+)", (headers() / "NvInferVersion.h").read_text()).group(1)
    lean = next(folder_of("tensorrt_lean_libs").glob(f"libnvinfer_lean.so.{major}*"), None)
    if lean is None:
        pytest.skip(f"tensorrt-lean-cu13-libs of version {major} is not installed")
    program = Path(FOLDER.name) / "host"
    source = Path(__file__).with_name("host.cpp")
    command("g++", *WARNINGS, *includes(), source, "-o", program, lean, f"-Wl,-rpath,{lean.parent}")
    return program


@functools.cache
def driver():
    """The folder of the stand-in for libcuda.so.1."""
    target = Path(FOLDER.name) / "driver/libcuda.so.1"
    target.parent.mkdir()
    command("g++", *WARNINGS, "-shared", "-fPIC", Path(__file__).with_name("driver.cpp"), "-o", target)
    return target.parent
