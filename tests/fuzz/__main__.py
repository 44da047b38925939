"""``python -m fuzz --seconds 60 raw public``; ``python -m fuzz --call raw:17`` makes one call again, in this process."""

import argparse
import importlib.util
import sys
from pathlib import Path


def load(build):
    """The compiled module of another build, with sanitizers say, before anyone imports the installed one."""
    (path,) = Path(build).glob("_C.*.so")
    spec = importlib.util.spec_from_file_location("fastprompt._C", path)
    sys.modules["fastprompt._C"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
parser.add_argument("doors", nargs="*")
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--first", type=int, default=0, help="the first seed")
parser.add_argument("--calls", type=int, default=1 << 60, help="seeds of each door")
parser.add_argument("--build", help="a folder with another build of the compiled module")
parser.add_argument("--workers", type=int, default=1, help="processes for each door")
parser.add_argument("--thorough", type=int, default=10, help="of ten calls, those that are compared, too")
parser.add_argument("--call", help="door:seed")
options = parser.parse_args()
if options.build:
    load(options.build)

from fuzz import doors, run  # noqa: E402

if options.call:
    name, _, number = options.call.partition(":")
    doors.prepare()
    print(doors.call(name, int(number)))
    sys.exit()
doors.THOROUGH = options.thorough
found = run.run(
    options.doors or list(doors.DOORS),
    seconds=options.seconds, first=options.first, calls=options.calls, each=options.workers,
)  # fmt: skip
run.report(*found)
sys.exit(bool(found[1]))
