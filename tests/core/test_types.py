"""What mypy says of a user's script: every public name is known, and so are the words that options take."""

import subprocess
import sys

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

RIGHT = """
import numpy as np
import fastprompt as fp

class Model:
    layers: int = 3

model: Model = fp.accelerate(Model())
print(fp.accelerate(model).layers, fp.restore(model).layers, fp.__version__)
fp.click_map(np.zeros((1, 2)), np.ones(1), size=(8, 8), encoding="tanh")
fp.geodesic_distance(np.zeros((8, 8)), np.eye(8), method="raster", metric="geodistk")
fp.masked_average_pool(np.zeros((4, 8, 8)), np.eye(8), preset="panet", empty="nan")
fp.prune_tokens(np.zeros((1, 4, 8)), np.zeros((1, 4)), keep=0.5)
print(fp.metrics.iou(np.eye(8) > 0, np.eye(8) > 0), fp.export.inspect, fp.next_click)
with fp.backend("reference"), fp.disabled():
    fp.set_num_threads(1)
"""
WRONG = {
    'fp.click_mapp(np.zeros((1, 2)), size=(8, 8))': 'has no attribute "click_mapp"',
    'fp.click_map(np.zeros((1, 2)), size=(8, 8), encoding="disc")': 'incompatible type "Literal[\'disc\']"',
    'fp.geodesic_distance(np.eye(8), np.eye(8), method="rastr")': 'incompatible type "Literal[\'rastr\']"',
    'fp.masked_average_pool(np.eye(8), np.eye(8), preset="pannet")': 'incompatible type "Literal[\'pannet\']"',
    'fp.resize_masks(np.zeros((4, 4)), (8, 8), output="bits")': 'incompatible type "Literal[\'bits\']"',
    'fp.metrics.iuo(np.eye(8), np.eye(8))': 'has no attribute "iuo"',
    'fp.backend("gpu").__enter__()': 'incompatible type "Literal[\'gpu\']"',
    'x: str = fp.accelerate(3)': 'Incompatible types in assignment',
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text("import numpy as np\nimport fastprompt as fp\n" + "\n".join(WRONG))
    # torch is typed, and large: a minute that tells nothing of ours.
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "right.py", "wrong.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.splitlines()


def test_right(found):
    assert [line for line in found if line.startswith("right.py")] == []
    assert found[-1].startswith(f"Found {len(WRONG)} error")


def test_wrong(found):
    for number, (line, error) in enumerate(WRONG.items(), 3):
        said = [text for text in found if text.startswith(f"wrong.py:{number}:")]
        assert any(error in text for text in said), (line, found)
