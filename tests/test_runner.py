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
from src.experiments import AUGMENTATION, BASIC, STEPS, run
from src.store import load_records, save_records

pytestmark = pytest.mark.usefixtures("results")
HERE = "cpu", pick_precision(pick_device("cpu"))


@pytest.fixture
def study(monkeypatch):
    """Adds a study under a name."""

    def add(name, experiments, *args, **options):
        monkeypatch.setitem(STUDIES, name, Study("?", "x", experiments, *args, **options))

    return add


def test_a_smoke_test_of_a_study_saves_nothing(results, study, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    study("one", {"a": BASIC}, seeds=1)
    run_studies(["one"], jobs=1, device="cpu")
    assert not any(path.is_file() for path in results.rglob("*"))


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, study):
    study("one", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=1, more_seeds={"a": 2})
    study("two", {"same as a": replace(tiny, name="other")}, seeds=1)
    assert len(missing(["one", "two"], *HERE)) == 3
    run_studies(["two"], jobs=1, device="cpu")
    assert len(missing(["one"], *HERE)) == 2
    run_studies(["one"], jobs=1, device="cpu")
    assert missing(["one", "two"], *HERE) == []
    assert "one                            3 of   3 runs" in runner.progress_table(["one"])
    assert not any(study_records("one").values())  # they are the reader's
    report.publish()
    assert [[run["seed"] for run in runs] for runs in study_records("one").values()] == [
        [1, 2],
        [1],
    ]
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


def test_a_study_on_a_dask_cluster_records_the_same_runs(results, study, monkeypatch):
    distributed = pytest.importorskip("distributed")
    study("one", {"a": replace(BASIC, epochs=1)}, seeds=2)
    monkeypatch.setenv("MNIST_REDUCED", "1")  # in the workers
    monkeypatch.setenv("MNIST_RESULTS", str(results))
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:  # with one, joblib stays here
        cluster.wait_for_workers(2)
        local = [run(BASIC, seed, "cpu", progress=False)[1] for seed in (1, 2)]
        monkeypatch.setenv("MNIST_REDUCED", "0")
        run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)

        def die(*_):  # as distributed reports a worker that died
            raise distributed.KilledWorker("run", SimpleNamespace(address="here"), 3)

        study("two", {"a": replace(BASIC, epochs=1)}, seeds=3)
        with monkeypatch.context() as context, pytest.raises(RuntimeError) as raised:
            context.setattr(runner, "save_records", die)
            run_studies(["two"], device="cpu", scheduler=cluster.scheduler_address)
        assert str(raised.value).startswith("a Dask worker died; run the command again")
    found = sorted(load_records("study", local=True).values(), key=lambda record: record["seed"])
    assert [record["seed"] for record in found] == [1, 2]
    for record, expected in zip(found, local, strict=True):  # threads may differ, and so rounding
        loss, again = (run["history"][0]["train_loss"] for run in (record, expected))
        assert loss == pytest.approx(again, rel=0.01)


def test_a_cluster_that_does_not_answer_or_mixes_runs_is_refused():
    distributed = pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at 'abacus'"):
        run_studies([], scheduler="abacus")
    gc.collect()  # a failed client that is collected while a cluster starts makes both hang
    options = {"n_workers": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(threads_per_worker=2, **options) as cluster:
        cluster.wait_for_workers(1)
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            run_studies([], scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("name", SELECTION)
def test_selection_uses_the_validation_split_alone(name):
    assert {recipe.split for recipe in STUDIES[name].experiments.values()} == {"validation"}


def test_the_reports_are_of_the_steps_as_they_are():
    assert STUDIES["steps"].experiments == STEPS
    assert [len(STUDIES["steps"].runs(step)) for step in STEPS] == [10, 10, 30]
    assert STUDIES["parameters"].experiments["7,946"] == AUGMENTATION
    precisions = STUDIES["precision"].experiments.values()
    assert all(replace(recipe, precision="auto") == AUGMENTATION for recipe in precisions)


def test_every_neighbour_changes_the_recipe_of_step_3_and_differs_from_the_others():
    recipe, *neighbours = STUDIES["sensitivity"].experiments.values()
    assert recipe == replace(AUGMENTATION, split="validation")
    assert recipe == STUDIES["epochs"].experiments["15"]
    assert len({recipe, *neighbours}) == 1 + len(neighbours)
    assert all(other.augmentation.keys() == recipe.augmentation.keys() for other in neighbours)
