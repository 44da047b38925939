"""A plugin of pytest that runs transformers' own model tests on accelerated models; ``run.py`` starts it.

``FASTPROMPT_HOSTS`` is a file to write, ``FASTPROMPT_HOSTS_ACCELERATE`` whether models are accelerated once they are
built, ``FASTPROMPT_HOSTS_SIZES`` whether the models have sizes that drop-ins take: those of transformers' testers are
too small, or no multiples of 16.
"""

import dataclasses
import inspect
import json
import os
from pathlib import Path

OUTCOMES: dict[str, str] = {}
# Of the testers, by the ends of their names: defaults that become others.
SIZES = {
    # Of 32 channels: 16 in an attention that halves them. The image encoder of SamHQ has as many as it reads.
    "MaskDecoderTester": {"num_attention_heads": {4: 1}, "vit_dim": {36: 32}},
    "VisionModelTester": {"hidden_size": {36: 32}},  # of Sam and SamHQ
    "ModelTester": {"hidden_size": {36: 32}},
}


def pytest_configure():
    configure_timm_without_the_hub()
    if os.environ.get("FASTPROMPT_HOSTS_ACCELERATE"):
        accelerate_models()


def configure_timm_without_the_hub():
    """EdgeTam's testers ask the hub for a file that names the trunk and nothing else."""
    from transformers import AutoConfig, TimmWrapperConfig

    asked = AutoConfig.from_pretrained

    def known(name, **options):
        if str(name).startswith("timm/"):
            return TimmWrapperConfig(architecture=name.removeprefix("timm/"), **options)
        return asked(name, **options)

    AutoConfig.from_pretrained = known


def accelerate_models():
    from compared import accelerate
    from transformers import PreTrainedModel

    post_init = PreTrainedModel.post_init

    def accelerated(self):
        post_init(self)
        accelerate(self)

    PreTrainedModel.post_init = accelerated


def pytest_collection_modifyitems(items):
    if os.environ.get("FASTPROMPT_HOSTS_WITHOUT_WEIGHTS"):
        import without_weights

        for module in {item.module for item in items}:
            without_weights.stand_in(module)
    if os.environ.get("FASTPROMPT_HOSTS_SIZES"):
        for module in {item.module for item in items}:
            for name, cls in vars(module).items():
                for end, sizes in SIZES.items():
                    if name.endswith(end):
                        cls.__init__.__defaults__ = other_defaults(cls.__init__, sizes)


def other_defaults(function, sizes):
    found = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
    return tuple(sizes[p.name].get(p.default, p.default) if p.name in sizes else p.default for p in found)


def pytest_runtest_setup(item):
    if os.environ.get("FASTPROMPT_HOSTS_WITHOUT_WEIGHTS"):
        import without_weights

        without_weights.note(item.name)


def pytest_runtest_logreport(report):
    """One outcome a test, though setup, call, teardown and each subtest report: what went wrong stays."""
    known = OUTCOMES.get(report.nodeid, "")
    if report.failed:
        OUTCOMES[report.nodeid] = f"failed: {report.longreprtext.strip().splitlines()[-1][:300]}"
    elif not known.startswith("failed") and (report.when == "call" or report.skipped):
        OUTCOMES[report.nodeid] = report.outcome


def pytest_sessionfinish():
    from compared import COUNTS

    found = {"outcomes": OUTCOMES, "counts": {name: dataclasses.asdict(count) for name, count in COUNTS.items()}}
    if os.environ.get("FASTPROMPT_HOSTS_WITHOUT_WEIGHTS"):
        import without_weights

        found["numbers"] = without_weights.NUMBERS
    Path(os.environ["FASTPROMPT_HOSTS"]).write_text(json.dumps(found))
