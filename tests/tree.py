"""Size budget and layout of the tree: `make lint` prints it and fails where a rule is broken."""

import subprocess
import sys
from pathlib import Path

LONGEST = 400  # lines of a file; 300 is the aim
ROOT = Path(__file__).parent.parent


def main() -> int:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    code = [
        ROOT / n for n in names if n.endswith((".py", ".cpp", ".h", ".cu", ".cuh", ".txt", ".toml")) or n == "Makefile"
    ]
    lines = {path: len(path.read_text().splitlines()) for path in code if path.exists()}
    faults = [f"{path.relative_to(ROOT)}: {n} lines, at most {LONGEST}" for path, n in lines.items() if n > LONGEST]
    if (ROOT / "kernels/__init__.py").exists():
        faults.append("kernels/__init__.py would shadow the package named kernels")
    product = sum(
        n for path, n in lines.items() if path.relative_to(ROOT).parts[0] in ("csrc", "fastprompt", "kernels")
    )
    tests = sum(n for path, n in lines.items() if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks"))
    print(f"product {product} lines, tests and benchmarks {tests} lines, {len(lines)} files")
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
