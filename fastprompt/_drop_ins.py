"""Classes: which of them are drop-ins of ours, and whose they were."""

HOSTS = "fastprompt.nn.hosts"  # the drop-ins, and nothing else that a module of a model is of


def full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def is_drop_in(cls: type) -> bool:
    return cls.__module__.startswith(f"{HOSTS}.")


def host_of(cls: type) -> type:
    return cls.__bases__[-1]


def original(cls: type) -> type:
    return host_of(cls) if is_drop_in(cls) else cls


__all__ = ["HOSTS", "full_name", "host_of", "is_drop_in", "original"]
