"""Drop-in modules: subclasses of their hosts, with the same parameters. Used by :func:`fastprompt.accelerate`."""
