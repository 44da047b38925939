"""The nodes of domain ``fastprompt``: a file for each family, whose records add themselves.

A new node is a record here, a row in csrc/export/<family>.cpp and cases in tests/support/export_cases.py."""

import importlib
import pkgutil

from fastprompt.export._nodes._record import DOMAIN, PLUGIN, RECORDS, VERSION, Record

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["DOMAIN", "PLUGIN", "RECORDS", "VERSION", "Record"]
