"""Our extension of OpenVINO, compiled against the OpenVINO of this machine and kept for the next time."""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fastprompt.export.onnxruntime import folders, library_path

NAME = "fastprompt_openvino.so"


class CannotBuild(RuntimeError):
    """Why there is no extension in C++."""


def extension_path() -> str:
    """The extension, built now if it is not there.

    Raises:
        CannotBuild: no OpenVINO, compiler or CMake, or what they say.
    """
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise CannotBuild("OpenVINO is not installed: pip install openvino")
    cmake = Path(spec.submodule_search_locations[0]) / "cmake"
    if not (cmake / "OpenVINOConfig.cmake").exists():
        raise CannotBuild(f"this OpenVINO has no headers ({cmake} is missing): install its package of PyPI")
    sources, library = folder_of_sources(), library_path()
    kept = cache() / key(sources, library) / NAME
    if not kept.exists():
        build(sources, library, cmake, kept)
    return str(kept)


def folder_of_sources() -> Path:
    for folder in folders():
        if (folder / "openvino" / "extension.cpp").exists():
            return folder / "openvino"
    raise CannotBuild("this build of fastprompt has no sources of the extension: reinstall it")


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastprompt"


def key(sources: Path, library: str) -> str:
    """An extension is bound to one version of OpenVINO, and knows the path of our library."""
    found = hashlib.sha256(library.encode())
    for file in sorted(sources.iterdir()):
        found.update(file.read_bytes())
    return f"openvino-{importlib.metadata.version('openvino')}-{found.hexdigest()[:16]}"


def build(sources: Path, library: str, cmake: Path, kept: Path) -> None:
    program = shutil.which("cmake")
    if program is None:
        raise CannotBuild("there is no CMake: pip install cmake")
    if not any(shutil.which(c) for c in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if c):
        raise CannotBuild("there is no C++ compiler: install g++ or clang++, or name one in the variable CXX")
    with tempfile.TemporaryDirectory() as folder:
        options = [f"-DOpenVINO_DIR={cmake}", f"-DFASTPROMPT_LIBRARY={library}", "-DCMAKE_BUILD_TYPE=Release"]
        for command in (["-S", str(sources), "-B", folder, *options], ["--build", folder]):
            done = subprocess.run([program, *command], capture_output=True, text=True)
            if done.returncode:
                said = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
                raise CannotBuild("CMake says: " + " ".join(said[:3]))
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            shutil.copyfile(Path(folder) / NAME, file.name)
        os.replace(file.name, kept)  # two processes may build at a time
