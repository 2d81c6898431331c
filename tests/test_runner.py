"""Studies run what is missing, here or on a cluster, and never select on the test set."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest

from src.device import pick_device, pick_precision
from src.evidence import report, runner
from src.evidence.runner import missing, run_studies, study_records
from src.evidence.studies import SELECTION, STUDIES, Study
from src.evidence.tables import study_table
from src.experiments import BASIC, run
from src.store import load_records, save_records

pytestmark = pytest.mark.usefixtures("results")
HERE = "cpu", pick_precision(pick_device("cpu"))


@pytest.fixture
def study(monkeypatch):
    """Adds a study under a name."""

    def add(name, experiments, *args, **options):
        monkeypatch.setitem(STUDIES, name, Study("?", "x", experiments, *args, **options))

    return add


def test_a_smoke_test_of_a_study_saves_nothing(results, study, smoke):
    study("one", {"a": BASIC}, seeds=1)
    run_studies(["one"], jobs=1, device="cpu")
    assert not any(path.is_file() for path in results.rglob("*"))


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, study, cli):
    study("one", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=1, more_seeds={"a": 2})
    study("two", {"same as a": replace(tiny, name="other")}, seeds=1)
    assert len(missing(["one", "two"], *HERE)) == 3
    run_studies(["two"], jobs=1, device="cpu")
    assert len(missing(["one"], *HERE)) == 2
    run_studies(["one"], jobs=1, device="cpu")
    assert missing(["one", "two"], *HERE) == []
    assert cli("study", "--list", "one").out == f"{'one':28}   3 of   3 runs   ?\n"
    assert not any(study_records("one").values())  # they are the reader's
    report.publish()
    found = study_records("one").values()
    assert [[run["seed"] for run in runs] for runs in found] == [[1, 2], [1]]
    assert load_records("study", local=True) == {}
    assert all(record["threads"] == 1 for record in load_records("study").values())
    assert len(missing(["one"], *HERE, seeds=3)) == 3
    assert len(missing(["one"], "cuda", "bfloat16")) == 3  # another device: another run


def test_a_row_is_read_from_one_platform(tiny, study):
    record = run(tiny, 1, "cpu", progress=False, keep=False)[1]
    for seed, precision in [(1, "bfloat16"), (2, "bfloat16"), (3, "float32")]:
        recipe = {**record["recipe"], "precision": precision}
        save_records("study", [{**record, "recipe": recipe, "seed": seed}])
    study("one", {"a": tiny, "b": replace(tiny, precision="float32")}, seeds=3)
    report.publish()
    found = study_records("one")
    assert [[run["seed"] for run in runs] for runs in found.values()] == [[1, 2], [3]]
    made = [row.split(" | ")[-1] for row in study_table("one").splitlines()[2:]]
    name = record["device_name"]
    assert made == [f"bfloat16, {name} |", f"float32, {name} |"]


def test_a_study_continues_after_a_run_that_diverges(tiny, study):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    study("one", {"bad": diverging, "good": tiny}, "bad", seeds=1)
    run_studies(["one"], jobs=1, device="cpu")
    assert missing(["one"], *HERE) == []
    report.publish()
    bad, _ = study_table("one").splitlines()[2:]
    assert bad.startswith("| bad | – (0 of 1 seeds train) | – | 0 of 1 ")


def start_cluster(workers, threads):
    distributed = pytest.importorskip("distributed")
    gc.collect()  # a failed client that is collected while a cluster starts makes both hang
    options = {"threads_per_worker": threads, "host": "127.0.0.1", "dashboard_address": None}
    cluster = distributed.LocalCluster(n_workers=workers, **options)
    cluster.wait_for_workers(workers)
    return cluster


def test_a_study_on_a_dask_cluster_records_its_runs(results, study, monkeypatch):
    study("one", {"a": replace(BASIC, epochs=1)}, seeds=2)
    monkeypatch.setenv("MNIST_REDUCED", "1")  # in the workers
    monkeypatch.setenv("MNIST_RESULTS", str(results))
    with start_cluster(workers=2, threads=1) as cluster:  # with one, joblib stays here
        monkeypatch.setenv("MNIST_REDUCED", "0")
        run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)
        assert missing(["one"], *HERE) == []
        assert {run["test_size"] for run in load_records("study", local=True).values()} == {2_000}

        def die(*_):  # as distributed reports a worker that died
            killed = pytest.importorskip("distributed").KilledWorker
            raise killed("run", SimpleNamespace(address="here"), 3)

        monkeypatch.setattr(runner, "save_records", die)
        with pytest.raises(RuntimeError, match="^a Dask worker died; run the command again"):
            run_studies(["one"], seeds=3, device="cpu", scheduler=cluster.scheduler_address)


def test_a_cluster_that_does_not_answer_or_mixes_runs_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at 'abacus'"):
        run_studies([], scheduler="abacus")
    refused = pytest.raises(RuntimeError, match="--nthreads 1")
    with start_cluster(workers=1, threads=2) as cluster, refused:
        run_studies([], scheduler=cluster.scheduler_address)


def test_selection_uses_the_validation_split_alone():
    recipes = [recipe for study in SELECTION.values() for recipe in study.experiments.values()]
    assert {recipe.split for recipe in recipes} == {"validation"}
