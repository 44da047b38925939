"""Geodesic distance, ours and the peers of ``fastprompt bench``: pytest benchmarks/bench_geodesic.py \
--benchmark-enable --benchmark-group-by=group --benchmark-columns=min,median,rounds --benchmark-sort=min"""

import pytest

import fastprompt as fp
from fastprompt.cli.bench import agreement, cases
from fastprompt.cli.peers import GROUPS

pytest.importorskip("PIL")
pytest.importorskip("skimage")

CASES = {case.name: case for case in cases(sizes=[256], volumes=[32])}
RUNS = [
    pytest.param(case, group, peer, id=f"{name}-{group.name}-{peer.name if peer else 'fastprompt'}")
    for name, case in CASES.items()
    for group in GROUPS
    for peer in (None, *group.peers)
    if group.family == "geodesic"
    if peer is None or case.dims in peer.dims
]


@pytest.fixture(autouse=True)
def one_thread():
    fp.set_num_threads(1)
    yield
    fp.set_num_threads(None)


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize(("case", "group", "peer"), RUNS)
@pytest.mark.benchmark(warmup=True, warmup_iterations=1, min_rounds=5, max_time=0.2)
def test_distance(benchmark, case, group, peer):
    if peer is not None and peer.version is None:
        pytest.skip(f"{peer.package} is not installed")
    thunk = peer.make(case, 1) if peer else lambda: group.ours(case)
    benchmark.group = f"{case.name}, {group.name}"
    name, version = (peer.name, peer.version) if peer else ("fastprompt", fp.__version__)
    benchmark.extra_info.update(impl=name, version=version, shape=list(case.image.shape), threads=1)
    out = benchmark(thunk)
    # A latency without a check is no result. Ours is checked against the reference in tests/, and here by the peers.
    assert not agreement(out, group.ours(case), peer.compare if peer else "bits").startswith("WRONG")
