"""Every Python block of the README and of docs/ runs as it is pasted; the blocks of a page follow each other."""

import re
from pathlib import Path

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PAGES = [p for p in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))] if "```python" in p.read_text("utf-8")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Packages that a page is about; where one is missing, its page is skipped. All others come with `pip install ".[test]"`.
OPTIONAL = {"pruning_models.md": "timm", "tensorrt.md": "tensorrt"}


def blocks(page):
    """Each block as code whose line numbers are those of the page."""
    text = page.read_text("utf-8")
    return [
        compile("\n" * (text[: found.start()].count("\n") + 1) + found[1], str(page), "exec")
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture
def small_sam(monkeypatch):
    """SAM with two narrow layers in its image encoder, itself otherwise: else these tests would take many minutes."""
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "mlp_dim": 64,
        "num_hidden_layers": 2,
        "global_attn_indexes": [1],
    }
    whole = transformers.SamConfig
    monkeypatch.setattr(
        transformers, "SamConfig", lambda vision_config=small: whole(vision_config=small | vision_config)
    )


@pytest.mark.usefixtures("small_sam", "precision")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, tmp_path, monkeypatch):
    if page.name in OPTIONAL:
        pytest.importorskip(OPTIONAL[page.name])
    monkeypatch.chdir(tmp_path)
    state = {"__name__": "page"}
    threads = fp.get_num_threads()
    for code in blocks(page):
        exec(code, state)
    assert fp.get_num_threads() == threads
