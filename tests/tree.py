"""The rules of the tree: `make lint` prints its size and fails where one is broken.

Files have a size, imports go downward and never in circles, and nobody but `Operator` compares the backend.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST = 400  # lines of a file; 300 is the aim
ROOT = Path(__file__).parent.parent
CODE = (".py", ".cpp", ".h", ".cu", ".cuh", ".txt", ".toml")

# From the ground up: a module may import those of its own line and of the lines above it here. What stands first here
# whose name a module's begins with counts; the longest of several.
LAYERS = (
    "fastprompt._C fastprompt._later fastprompt._text fastprompt._choices fastprompt._cores",
    "fastprompt._runtime fastprompt._gpu",
    "fastprompt.reference fastprompt.kernels",
    "fastprompt.ops._known",
    "fastprompt.ops._axes fastprompt.ops._derivatives fastprompt.ops._flops",
    "fastprompt.ops._torch",
    "fastprompt.ops._operator",
    "fastprompt.ops._arrays fastprompt.ops._checks fastprompt.ops._binary",
    "fastprompt.ops",
    "fastprompt.metrics fastprompt.compat fastprompt._switches fastprompt._pruning fastprompt._drop_ins",
    "fastprompt.evaluation fastprompt.segment fastprompt.video fastprompt.nn",
    "fastprompt.models",
    "fastprompt.export",
    "fastprompt",
    "fastprompt._selftest",
    "fastprompt.cli fastprompt.__main__",
)
# Of the families: those that know another one's tokens or maps. The rest know none.
FAMILIES = (
    "geodesic",
    "masks",
    "guidance",
    "attention",
    "encoder",
    "memory",
    "pooling",
    "pruning",
    "clicks",
    "decoder",
)
MAY_COMPARE_THE_BACKEND = {"fastprompt._runtime", "fastprompt.ops._operator", "fastprompt._switches"}


def modules() -> dict[str, Path]:
    """Names of the package's modules, as they are installed."""
    found = {}
    for folder, package in (("fastprompt", "fastprompt"), ("kernels", "fastprompt.kernels")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(p for p in parts if p != "__init__")))] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Modules of the package that this one imports, now or ``Later``, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.startswith("fastprompt"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastprompt"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known or inner == "fastprompt._C" else str(node.module), node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Later":
            parts = getattr(node.args[0], "values", node.args)  # of an f-string, what is fixed
            yield str(getattr(parts[0], "value", "")).rstrip("."), node.lineno


def layer(name: str) -> int:
    def fits(prefix: str) -> bool:
        return name == prefix or (name.startswith(prefix + ".") and (prefix != "fastprompt" or name.count(".") == 0))

    found = [(len(prefix), k) for k, line in enumerate(LAYERS) for prefix in line.split() if fits(prefix)]
    return max(found)[1] if found else len(LAYERS)


def family(name: str) -> str | None:
    parts = name.split(".")
    return parts[2] if parts[:2] == ["fastprompt", "ops"] and len(parts) > 2 and parts[2] in FAMILIES else None


def upward(arrows: dict[str, dict[str, int]]) -> list[str]:
    faults = []
    for name, targets in arrows.items():
        for target, line in targets.items():
            ours, theirs = family(name), family(target)
            if layer(target) > layer(name):
                faults.append(f"{name}:{line} imports {target}, which stands above it")
            elif ours and theirs and FAMILIES.index(theirs) > FAMILIES.index(ours):
                faults.append(f"{name}:{line} imports {target}: {theirs} stands above {ours}")
    return faults


def circles(arrows: dict[str, dict[str, int]]) -> list[str]:
    """Each set of modules that import each other, as one line (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in arrows.get(name, {}):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1 or name in arrows.get(name, {}):
                found.append("circle of imports: " + " <-> ".join(sorted(group)))

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def comparisons(name: str, path: Path) -> list[str]:
    """Who asks for the backend, to choose a path."""
    if name in MAY_COMPARE_THE_BACKEND:
        return []
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Compare)]
    asked = [n.lineno for n in calls if "current_backend" in ast.dump(n)]
    return [f"{name}:{line} compares the backend: that is Operator's" for line in asked]


def sizes() -> tuple[list[str], str]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    code = [ROOT / n for n in names if n.endswith(CODE) or n == "Makefile"]
    lines = {path: len(path.read_text().splitlines()) for path in code if path.exists()}
    faults = [f"{path.relative_to(ROOT)}: {n} lines, at most {LONGEST}" for path, n in lines.items() if n > LONGEST]
    if (ROOT / "kernels/__init__.py").exists():
        faults.append("kernels/__init__.py would shadow the package named kernels")

    def total(*folders: str) -> int:
        return sum(n for path, n in lines.items() if path.relative_to(ROOT).parts[0] in folders)

    product, tests = total("csrc", "fastprompt", "kernels"), total("tests", "benchmarks")
    return faults, f"product {product} lines, tests and benchmarks {tests} lines, {len(lines)} files"


def main() -> int:
    known = modules()
    arrows = {name: dict(imports(name, path, known)) for name, path in known.items()}
    faults, text = sizes()
    faults += upward(arrows) + circles(arrows)
    faults += [fault for name, path in known.items() for fault in comparisons(name, path)]
    print(text)
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
