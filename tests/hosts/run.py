"""``make hosts TRANSFORMERS=folder``: transformers' own model tests, plain and on accelerated models.

The folder is a checkout of the version that is installed (its tests are in no wheel)::

    git clone --depth 1 --branch v5.24.0 https://github.com/huggingface/transformers
    pip install parameterized requests httpx datasets timm torchvision

Every suite runs four times: with the sizes of its own models, which most drop-ins refuse, and with sizes that they take;
plain, and accelerated. Those of video models run twice, with random weights: the numbers that they look at must be equal. A test that passes plain must pass accelerated, and every call of a drop-in must give its host's
numbers. The exit status says whether that is so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SUITES = (
    "sam sam_hq sam2 sam3_tracker edgetam sam2_video sam3_tracker_video edgetam_video clipseg seggpt vitdet got_ocr2 "
    "slanext pp_formulanet deepseek_ocr2 unlimited_ocr"
)
HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"  # whose models of random weights the video tests take


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transformers", nargs="?", type=Path, help="a checkout of transformers")
    parser.add_argument("--suites", default=SUITES, help="names of folders in tests/models")
    parser.add_argument("-k", default="", help="as pytest's")
    options = parser.parse_args()
    if options.transformers is None or not (options.transformers / "tests/models").is_dir():
        parser.error("TRANSFORMERS must be a checkout of transformers, with its folder tests/models\n" + __doc__)
    check_version(options.transformers)
    wanted = [(name, sizes) for name in options.suites.split() for sizes in ([""] if is_video(name) else ["", "1"])]
    good = [suite_is_good(options, name, sizes) for name, sizes in wanted]
    return not all(good)


def unequal(plain, ours, allowed=1e-3):
    """Tests whose numbers differ by more than so much of the largest, or are not there."""
    found = {}
    for test, lists in plain.items():
        mine = ours.get(test, [])
        if [len(x) for x in lists] != [len(x) for x in mine]:
            found[test] = "other numbers of the whole call"
            continue
        pairs = [
            (max(map(abs, x)), max(abs(a - b) for a, b in zip(x, y, strict=True)))
            for x, y in zip(lists, mine, strict=True)
        ]
        if error := max((d / (most or 1) for most, d in pairs if not d <= allowed * most), default=0):
            found[test] = f"the numbers of the whole call differ by {error:.1g}"
    return found


def is_video(suite):
    """All tests of these are slow ones, for weights of the hub: ``without_weights.py`` stands in."""
    return suite.endswith("_video")


def check_version(checkout):
    import transformers

    file = checkout / "src/transformers/__init__.py"
    if file.exists() and f'__version__ = "{transformers.__version__}"' not in file.read_text():
        print(f"note: {checkout} is not the version {transformers.__version__} that is installed")


def suite_is_good(options, suite, sizes):
    file = options.transformers / f"tests/models/{suite}/test_modeling_{suite}.py"
    if not file.exists():
        print(f"{suite}: no tests in the checkout")
        return True
    plain, ours = (run(options, file, sizes, mode, is_video(suite)) for mode in ("", "1"))
    lost = {
        name: ours["outcomes"].get(name, "not run")
        for name, outcome in plain["outcomes"].items()
        if outcome == "passed" and ours["outcomes"].get(name) != "passed"
    }
    lost |= unequal(plain.get("numbers", {}), ours.get("numbers", {}))
    passed = [sum(x == "passed" for x in found["outcomes"].values()) for found in (plain, ours)]
    print(
        f"{suite}, {'sizes of drop-ins' if sizes else 'its own sizes'}: {passed[0]} passed plain, {passed[1]} accelerated"
    )
    for name, outcome in lost.items():
        print(f"  {name.split('::', 1)[-1]}: {outcome}")
    for name, count in ours["counts"].items():
        calls = f"{count['accelerated']} calls accelerated, {count['host']} of the host, {count['traced']} traced"
        print(f"  {name.rsplit('.', 1)[-1]}: {calls}, worst difference {count['worst']:.1e}")
    if not plain["outcomes"]:
        print(f"  nothing ran: {plain['said']}")
    return bool(plain["outcomes"]) and not lost and not any(c["wrong"] for c in ours["counts"].values())


def run(options, file, sizes, accelerate, without_weights):
    """What ``plugin.py`` wrote, and the last lines of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        environment = {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HF_HUB_OFFLINE": "1",
            "FASTPROMPT_HOSTS": str(results),
            "FASTPROMPT_HOSTS_SIZES": sizes,
            "FASTPROMPT_HOSTS_ACCELERATE": accelerate,
            "FASTPROMPT_HOSTS_WITHOUT_WEIGHTS": "1" if without_weights else "",
            "RUN_SLOW": "yes" if without_weights else "no",
        }
        # Without the conftest, which would put the checkout's package before the installed one.
        arguments = ["-q", "-p", "plugin", "-p", "no:cacheprovider", "-W", "ignore", "--noconftest", "-c", os.devnull]
        chosen = ["-k", options.k] if options.k else []
        command = [sys.executable, "-m", "pytest", *arguments, "--rootdir", ".", *chosen, file.resolve()]
        done = subprocess.run(
            command, cwd=options.transformers, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        said = " ".join(done.stdout.strip().splitlines()[-3:])
        found = json.loads(results.read_text()) if results.exists() else {"outcomes": {}, "counts": {}}
        return found | {"said": said}


if __name__ == "__main__":
    sys.exit(main())
