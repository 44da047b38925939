import time
from dataclasses import dataclass, field
from typing import NamedTuple, Any, Literal, get_args
def best(f,n=30):
    b=9
    for _ in range(n):
        t=time.process_time(); f(); b=min(b,time.process_time()-t)
    return 1e3*b
def report():
    @dataclass
    class Report:
        replaced: dict[str, str] = field(default_factory=dict)
        skipped: dict[str, str] = field(default_factory=dict)
        pruned: dict[str, Any] = field(default_factory=dict)
def diff():
    @dataclass
    class D:
        name: str
        shape: tuple[int, ...]
        max_abs: float = 0.0
        largest: float = 0.0
        ious: list[float] = field(default_factory=list)
        cosines: list[float] = field(default_factory=list)
def frozen():
    @dataclass(frozen=True)
    class P:
        a: int
        b: int
        c: int = 3
def nt():
    class P(NamedTuple):
        a: int
        b: int
        c: int = 3
for f in (report,diff,frozen,nt): print(f.__name__, best(f))
import importlib, sys
def mod(m):
    def f():
        sys.modules.pop(m,None); importlib.import_module(m)
    return f
import fastprompt
for m in ('fastprompt._switches','fastprompt._drop_ins','fastprompt.models.hosts','fastprompt.models.swapping','fastprompt.models.comparison','fastprompt.models.pretrained','fastprompt._pruning','fastprompt._text'): print(m,best(mod(m)))
