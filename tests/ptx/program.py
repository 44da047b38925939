"""One kernel and the functions it calls as instructions with resolved operands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from .source import SPACES, number, parse_variable, split_operands
from .values import Fault


class Register(NamedTuple):
    slot: int
    kind: str


class Immediate(NamedTuple):
    bits: int


class Special(NamedTuple):
    """A read-only register such as %tid.x; `_` is the bit bucket."""

    name: str


class Symbol(NamedTuple):
    """A variable whose address is known at launch, or the name of a label or function."""

    name: str


class Address(NamedTuple):
    """[base + offset]"""

    base: Any
    offset: int


class Group(NamedTuple):
    """{a, b} or (a, b)"""

    parts: tuple


class Pair(NamedTuple):
    """a|b: two results of one instruction"""

    first: Any
    second: Any


class Not(NamedTuple):
    """!p"""

    operand: Any


def parts(operand):
    """The members of {a, b}, or the operand alone."""
    return operand.parts if isinstance(operand, Group) else (operand,)


@dataclass
class CallSite:
    """Where a call goes, and which frame bytes are copied in and out: (source, target, size)."""

    pc: int
    copy_in: list
    copy_out: list


@dataclass
class Instruction:
    text: str
    op: tuple  # ('ld', 'global', 'v4', 'f32')
    args: tuple
    guard: Register | None = None
    wanted: bool = True  # value of the guard that executes the instruction
    problem: str = ""  # why it cannot be executed here
    target: Any = None  # bra: pc; brx: list of pcs; call: CallSite
    run: Any = None  # handler, see instructions/table.py
    schedules: bool = False  # it reads or changes who runs next
    yields: bool = False  # a look at a flag that another thread sets, perhaps in a loop
    space: str = ""  # state space of a memory instruction; '' is generic addressing

    def __post_init__(self):
        self.space = next((part for part in self.op if part in SPACES), "")


class Program:
    """One kernel with the functions it calls.

    A called function lies before its callers in `code`: the threads with the smallest pc run
    first, so a call is finished by all its threads before any of them goes on.
    Parameters and local arrays have fixed places in one frame per thread (no recursion).
    """

    def __init__(self, module, entry):
        self.module = module
        self.code = []
        self.slots = 0  # registers
        self.frame_bytes = self.shared_bytes = 0
        self.dynamic_shared = set()
        self._shared, self._loaded = {}, {}
        self.function = module.functions[entry]
        self.start, self.parameters, _ = self.load(entry, ())
        self.shared_bytes = -(-self.shared_bytes // 16) * 16

    def load(self, name, callers):
        """(first pc, [(variable, frame offset)] of the parameters, the same of the results)"""
        if name in callers:
            raise Fault(f"recursive call of {name}")
        if name not in self._loaded:
            loader = FunctionLoader(self, self.module.functions[name], callers + (name,))
            self._loaded[name] = loader.load()
        return self._loaded[name]

    def place_in_frame(self, variable):
        self.frame_bytes = -(-self.frame_bytes // variable.align) * variable.align
        self.frame_bytes += variable.nbytes
        return self.frame_bytes - variable.nbytes

    def place_in_shared(self, variable, owner=""):
        """Operand for a shared variable; the dynamic array starts after all static ones."""
        if variable.extern and not variable.nbytes:
            self.dynamic_shared.add(variable.name)
            return Symbol(variable.name)
        key = owner, variable.name
        if key not in self._shared:
            self.shared_bytes = -(-self.shared_bytes // variable.align) * variable.align
            self._shared[key] = Immediate(self.shared_bytes)
            self.shared_bytes += variable.nbytes
        return self._shared[key]


class FunctionLoader:
    """Turns the statements of one function into instructions with resolved operands."""

    def __init__(self, program, function, callers):
        self.program, self.function, self.callers = program, function, callers
        self.code = []
        self.scopes = [(0, {})]  # (number, name -> operand), innermost last
        self.scope_count = 0
        self.variables = {}  # name -> Variable of .param and .local names, for calls
        self.labels, self.tables, self.branches = {}, {}, []
        self.last_label = None

    def load(self):
        places = [[], []]
        for found, declared in zip(places, (self.function.parameters, self.function.results), strict=False):
            found.extend((v, self._declare_in_frame(v)) for v in declared)
        for statement in self.function.body:
            self._statement(statement)
        self._add(Instruction("ret", ("ret",), ()))
        start = len(self.program.code)
        for instruction, scopes in self.branches:
            instruction.target = self._resolve(instruction, scopes, start)
        self.program.code += self.code
        return start, *places

    def _statement(self, text):
        if text == "{":
            self.scope_count += 1
            self.scopes.append((self.scope_count, {}))
        elif text == "}":
            self.scopes.pop()
        elif text.endswith(":"):
            self.last_label = self.scopes[-1][0], text[:-1]
            self.labels[self.last_label] = len(self.code)
        elif text.startswith(".reg"):
            self._declare_registers(text)
        elif text.startswith(".branchtargets"):
            self.tables[self.last_label] = split_operands(text[len(".branchtargets") :])
        elif re.match(r"\.(param|local)\b", text):
            self._declare_in_frame(parse_variable(text))
        elif re.match(r"(\.\w+\s+)*\.shared\b", text):
            variable = parse_variable(text)
            place = self.program.place_in_shared(variable, self.function.name)
            self.scopes[-1][1][variable.name] = place
        elif not text.startswith("."):
            self._instruction(text)

    def _declare_registers(self, text):
        kind, names = re.match(r"\.reg\s+(?:\.v\d\s+)?\.(\w+)\s+(.*)", text, re.DOTALL).groups()
        for item in names.split(","):
            base, count = re.match(r"\s*([%\w$]+)\s*(?:<(\d+)>)?", item).groups()
            for name in [base] if count is None else [f"{base}{i}" for i in range(int(count))]:
                self.scopes[-1][1][name] = Register(self.program.slots, kind)
                self.program.slots += 1

    def _declare_in_frame(self, variable):
        offset = self.program.place_in_frame(variable)
        self.scopes[-1][1][variable.name] = Immediate(offset)
        self.variables[offset] = variable
        return offset

    def _add(self, instruction):
        self.code.append(instruction)
        return instruction

    def _instruction(self, text):
        found = re.match(r"(?:@(!?)\s*([%\w$]+)\s+)?([\w.:]+)\s*(.*)", text, re.DOTALL)
        negated, guard, mnemonic, operands = found.groups()
        op = tuple(mnemonic.replace("::cta", "").split("."))
        instruction = self._add(Instruction(" ".join(text.split()), op, ()))
        if guard:
            instruction.guard, instruction.wanted = self._name(guard), not negated
        try:
            if op[0] == "call":
                self._call(instruction, split_operands(operands))
            else:
                instruction.args = tuple(self._operand(s) for s in split_operands(operands))
        except Fault as fault:
            instruction.problem = str(fault)
        if op[0] in ("bra", "brx"):
            self.branches.append((instruction, [number for number, _ in self.scopes]))

    def _operand(self, text):
        if text[0] in "{(":
            return Group(tuple(self._operand(s) for s in split_operands(text[1:-1])))
        if text[0] == "[":
            found = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:\+\s*)?(-?\w+)?\s*\]", text)
            if not found:
                raise Fault(f"address {text} is not supported")
            return Address(self._name(found[1]), int(found[2] or "0", 0))
        if text[0] == "!":
            return Not(self._operand(text[1:].strip()))
        if "|" in text:
            return Pair(*(self._name(s.strip()) for s in text.split("|")))
        return self._name(text)

    def _name(self, name):
        for _, names in reversed(self.scopes):
            if name in names:
                return names[name]
        bits = number(name)
        if bits is not None:
            return Immediate(bits)
        if name == "WARP_SZ":
            return Immediate(32)
        if name[0] == "%" or name == "_":
            return Special(name)
        variable = self.program.module.variables.get(name)
        if variable and variable.space == "shared":
            return self.program.place_in_shared(variable)
        return Symbol(name)

    def _call(self, instruction, operands):
        """call (result), name, (argument, ...): all are .param variables in the frame"""
        position = next(i for i, text in enumerate(operands) if text[0] != "(")
        results = self._operand(operands[0]).parts if position else ()
        name = self._name(operands[position])
        arguments = operands[position + 1 : position + 2]
        arguments = self._operand(arguments[0]).parts if arguments else ()
        instruction.args = name, Group(results), Group(arguments)
        if not isinstance(name, Symbol):
            raise Fault("indirect calls are not supported")
        if name.name not in self.program.module.functions:
            return  # a system call, see instructions.py
        pc, parameters, outputs = self.program.load(name.name, self.callers)
        size = self.variables
        copy_in = [(a.bits, to, size[a.bits].nbytes) for a, (_, to) in zip(arguments, parameters, strict=False)]
        copy_out = [(at, r.bits, size[r.bits].nbytes) for r, (_, at) in zip(results, outputs, strict=False)]
        instruction.target = CallSite(pc, copy_in, copy_out)

    def _resolve(self, instruction, scopes, start):
        def find(table, name):
            return next(table[s, name] for s in reversed(scopes) if (s, name) in table)

        if instruction.op[0] == "bra":
            return start + find(self.labels, instruction.args[0].name)
        names = find(self.tables, instruction.args[1].name)
        return [start + find(self.labels, name) for name in names]
