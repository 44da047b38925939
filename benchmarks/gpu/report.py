"""The latency suite on a GPU: ``make gpu-report`` builds, runs the GPU tests, then this file.

python benchmarks/gpu/report.py [FAMILY ...] [--json FILE]    prints the tables, writes the figures
python benchmarks/gpu/report.py --seconds 0.3 --without compile    quickly

A family is a module beside this file with ``cases()``. Every kernel is measured as it is called and, where it can be
captured, as the replay of a CUDA graph; the peers in turn with it. A case that fails is a line of the table.
"""

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpu.case import Case, error, graph_of, middle, times

HERE = Path(__file__).parent
FAMILIES = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("case", "report", "roofline", "__init__"))


def all_cases(families: list[str]) -> Iterator[tuple[str, Case]]:
    for family in families:
        for case in importlib.import_module(f"gpu.{family}").cases():
            yield family, case


def measure(case: Case, seconds: float, without: list[str]) -> dict[str, Any]:
    """The figures of one case, in microseconds."""
    import torch

    torch.set_float32_matmul_precision("highest")  # or what the case sets
    ours, peers, expected = case.make()
    peers = {name: peer for name, peer in peers.items() if not any(word in name for word in without)}
    got = ours()
    if expected is None:
        expected = next(iter(peers.values()))()
    wrong = error(got, expected)
    calls = {"ours": ours, **peers}
    try:
        calls = {"ours, graph": graph_of(ours), **calls}
    except Exception as problem:
        print(f"    no graph: {str(problem).splitlines()[0]}")
    spent = times(calls, seconds=seconds)
    return {
        "error": wrong,
        "tolerance": case.tolerance,
        "median": {name: middle(t) for name, t in spent.items()},
        "min": {name: min(t) for name, t in spent.items()},
    }


def show(case: Case, figures: dict[str, Any]) -> None:
    low, median = figures["min"], figures["median"]
    mark = "" if figures["error"] <= case.tolerance else "  WRONG"
    print(f"{case.operator}, {case.shape}: error {figures['error']:.1e}{mark}")
    for name in low:
        ratio = median[name] / median["ours"]
        print(f"    {name:24s} min {low[name]:10.1f} us  median {median[name]:10.1f} us  ratio {ratio:7.2f}")


def about() -> dict[str, Any]:
    import torch
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=FAMILIES, help="; ".join(FAMILIES))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--seconds", type=float, default=1.5, help="that a case may take; three rounds at least")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="WORD", help="leave out peers with it in their name"
    )
    options = parser.parse_args()
    results: dict[str, Any] = {"about": about(), "cases": []}
    print(results["about"])
    for family, case in all_cases(options.families or FAMILIES):
        try:
            figures = measure(case, options.seconds, options.without)
            show(case, figures)
        except Exception as problem:
            figures = {"failed": f"{type(problem).__name__}: {problem}"[:300]}
            print(f"{case.operator}, {case.shape}: {figures['failed']}")
        named = {"family": family, "operator": case.operator, "shape": case.shape, "bytes": case.bytes}
        results["cases"].append(named | {"flops": case.flops, "launches": case.launches} | figures)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
