"""Drop-ins: one file for a host's module, or package, whose classes are subclasses of that host's with the same names.
Importing one imports the host."""
