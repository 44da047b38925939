"""docs/gpu_roofline.md: the floor of every GPU kernel on two machines, and what was measured where there is a results
file.

python benchmarks/gpu/roofline.py [--results docs/gpu_results.json] [--write]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpu.report import FAMILIES, all_cases

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/gpu_roofline.md"
# Memory in bytes/s, products of bfloat16 and others in FLOP/s, as the data sheets say, and a launch in a graph.
MACHINES = {"H100 SXM": (3.35e12, 990e12), "AGX Orin": (204e9, 85e12)}
LAUNCH = 1.5e-6
HEADER = """# The floor of the GPU kernels

Written by `make gpu-roofline` from `benchmarks/gpu/`. Bytes: every input once, every output once. The floor is the
largest of bytes over the memory's rate, FLOPs over the rate of the matrix units (data sheets), and 1.5 µs a launch.
The floors are arithmetic, *unmeasured*; the column "measured" is the CUDA graph of {gpu}, the call where there is none.

| operator | shape | launches | MB | MFLOP | {floors} | measured, µs |
| --- | --- | --- | --- | --- | {rules} | --- |
"""


def floor(bytes_: float, flops: float, launches: int, machine: str) -> float:
    """Microseconds."""
    memory, products = MACHINES[machine]
    return 1e6 * max(bytes_ / memory, flops / products, launches * LAUNCH)


def measured(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    done = {}
    for case in results.get("cases", []):
        if "median" in case:
            times = case["median"]
            done[case["operator"], case["shape"]] = times.get("ours, graph", times["ours"])
    return done


def page(results: dict[str, Any]) -> str:
    found = measured(results)
    gpu = results["about"]["gpu"] if results else "a GPU"
    floors = " | ".join(f"floor, {m}, µs" for m in MACHINES)
    lines = [HEADER.format(gpu=gpu, floors=floors, rules=" | ".join("---" for _ in MACHINES))]
    for _, case in all_cases(FAMILIES):
        floors = " | ".join(f"{floor(case.bytes, case.flops, case.launches, m):.1f}" for m in MACHINES)
        time = found.get((case.operator, case.shape))
        cells = f"{case.operator} | {case.shape} | {case.launches} | {case.bytes / 1e6:.2f} | {case.flops / 1e6:.0f}"
        lines.append(f"| {cells} | {floors} | {'*unmeasured*' if time is None else f'{time:.1f}'} |\n")
    return "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/gpu_results.json")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = page(json.loads(options.results.read_text()) if options.results.exists() else {})
    PAGE.write_text(text) if options.write else print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
