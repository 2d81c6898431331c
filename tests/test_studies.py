"""Studies run what is missing, here or on a cluster, and never select on the test set."""

from dataclasses import asdict, replace

import pytest

from src import records
from src.experiments import AUGMENTATION, BASIC, STEPS, run
from src.findings import sweep_table
from src.studies import SELECTION, STUDIES, Study, missing, run_studies, study_records


pytestmark = pytest.mark.usefixtures("results")


def test_a_reduced_study_keeps_nothing(results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=1))
    run_studies(["one"], jobs=1)
    assert not any(path.is_file() for path in results.rglob("*"))


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=2))
    monkeypatch.setitem(STUDIES, "two", Study("?", "x", {"same as a": replace(tiny, name="other")}, seeds=1))
    assert len(missing(["one", "two"])) == 4
    run_studies(["two"], jobs=1)
    assert len(missing(["one"])) == 3
    with pytest.raises(RuntimeError, match="'one' is not complete: python -m src study one"):
        study_records("one")
    run_studies(["one"], jobs=1)
    assert missing(["one", "two"]) == []
    assert [[record["seed"] for record in runs] for runs in study_records("one").values()] == [[1, 2], [1, 2]]
    assert len(missing(["two"], seeds=3)) == 1


def test_a_study_on_a_dask_cluster_records_the_same_runs(results, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": replace(BASIC, epochs=1)}, seeds=3))
    monkeypatch.setenv("MNIST_REDUCED", "1")  # in the workers
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        cluster.wait_for_workers(2)
        local = [run(BASIC, seed, progress=False)[1] for seed in (1, 2, 3)]
        monkeypatch.setenv("MNIST_REDUCED", "0")
        run_studies(["one"], scheduler=cluster.scheduler_address)
    found = study_records("one")["a"]
    assert [record["seed"] for record in found] == [1, 2, 3]
    for record, expected in zip(found, local):  # another number of threads rounds otherwise
        assert record["history"][0]["train_loss"] == pytest.approx(expected["history"][0]["train_loss"], rel=0.01)


def test_a_cluster_that_is_not_there_or_mixes_runs_is_refused():
    distributed = pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at 'abacus'"):
        run_studies([], scheduler="abacus")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as cluster:
        cluster.wait_for_workers(1)
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            run_studies([], scheduler=cluster.scheduler_address)


def test_a_record_from_before_a_field_was_added_still_counts(monkeypatch):
    old = {"version": 1, "recipe": asdict(BASIC), "seed": 1, "history": []}
    del old["recipe"]["precision"]
    records.save("study", old)
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=1))
    assert missing(["one"]) == []


@pytest.mark.parametrize("name", SELECTION)
def test_selection_never_looks_at_the_test_set(name):
    assert all(experiment.split == "validation" for experiment in STUDIES[name].experiments.values())


def test_reports_hold_nothing_but_the_steps_the_original_and_the_precision_of_step_3():
    assert set(STUDIES) - set(SELECTION) == {"steps", "original", "precision"}
    assert STUDIES["steps"].experiments == STEPS and STUDIES["steps"].seeds == STUDIES["original"].seeds == 10
    as_run, first, plain = STUDIES["precision"].experiments.values()
    assert as_run == AUGMENTATION == replace(first, channels_last=True) and plain == replace(first, precision="float32")


def test_a_study_goes_on_after_a_run_that_diverges(tiny, monkeypatch):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"bad": diverging, "good": tiny}, seeds=1))
    run_studies(["one"], jobs=1)
    assert missing(["one"]) == []
    bad, good = sweep_table("one").splitlines()[2:]
    assert bad == "| bad | – | – | – | – | 0; the others diverged |" and "diverged" not in good
