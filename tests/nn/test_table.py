"""The table of hosts against the files that it names, and the order of the layers; no host is imported."""

import ast
from pathlib import Path

import pytest

import fastprompt
from fastprompt.models.hosts import DROP_INS, HOSTS, PRUNABLE

FOLDER = Path(fastprompt.__file__).parent
FILES = {path.stem: path for path in (FOLDER / "nn/hosts").glob("*.py") if path.stem != "__init__"}


def drop_ins(path):
    """Classes whose host's, their last base, has their name."""
    found = [x for x in ast.parse(path.read_text()).body if isinstance(x, ast.ClassDef) and x.bases]
    return {x.name for x in found if ast.unparse(x.bases[-1]).endswith(f".{x.name}")}


def test_every_file_is_in_the_table():
    assert set(HOSTS) == set(FILES) - {"ritm"}  # of which only the name of a class is known
    assert drop_ins(FILES["ritm"]) == set()


@pytest.mark.parametrize("file", HOSTS)
def test_every_drop_in_is_in_the_table(file):
    named = [name.rsplit(".", 1)[-1] for name in (*HOSTS[file].classes, HOSTS[file].encoder or "")]
    assert sorted(filter(None, named)) == sorted(drop_ins(FILES[file]))


def test_no_class_is_named_twice():
    assert len(DROP_INS) == sum(len(host.classes) for host in HOSTS.values())
    assert not set(DROP_INS) & set(PRUNABLE)


def imported(path):
    for x in ast.walk(ast.parse(path.read_text())):
        if isinstance(x, ast.Import | ast.ImportFrom):
            before = f"{x.module}." if isinstance(x, ast.ImportFrom) else ""
            yield from (f"{before}{name.name}" for name in x.names)


@pytest.mark.parametrize(
    ("layer", "above"),
    [
        ("nn", "models"),
        ("nn", "export"),
        ("nn/parts", "nn.hosts"),
        ("ops", "nn"),
        ("ops", "models"),
        ("reference", "ops"),
    ],
)
def test_imports_go_downward(layer, above):
    for path in (FOLDER / layer).rglob("*.py"):
        assert not [name for name in imported(path) if f"{name}.".startswith(f"fastprompt.{above}.")], path
