"""Studies run what is missing, here or on a cluster, and never select on the test set."""

from dataclasses import replace

import pytest

from src.evidence.analysis import study_table
from src.evidence.studies import SELECTION, STUDIES, Study, missing, run_studies, study_records
from src.experiments import AUGMENTATION, BASIC, STEPS, run
from src.training import pick_device, pick_precision

pytestmark = pytest.mark.usefixtures("results")
HERE = "cpu", pick_precision(pick_device("cpu"))


def test_a_smoke_test_of_a_study_saves_nothing(results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=1))
    run_studies(["one"], jobs=1, device="cpu")
    assert not any(path.is_file() for path in results.rglob("*"))


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, monkeypatch):
    monkeypatch.setitem(
        STUDIES,
        "one",
        Study(
            "?", "x", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=1, more_seeds={"a": 2}
        ),
    )
    monkeypatch.setitem(
        STUDIES, "two", Study("?", "x", {"same as a": replace(tiny, name="other")}, seeds=1)
    )
    assert len(missing(["one", "two"], *HERE)) == 3
    run_studies(["two"], jobs=1, device="cpu")
    assert len(missing(["one"], *HERE)) == 2
    run_studies(["one"], jobs=1, device="cpu")
    assert missing(["one", "two"], *HERE) == []
    assert [[record["seed"] for record in runs] for runs in study_records("one").values()] == [
        [1, 2],
        [1],
    ]
    assert len(missing(["one"], *HERE, seeds=3)) == 3
    assert (
        len(missing(["one"], "cuda", "bfloat16")) == 3
    )  # a run on another type of device is another run


def test_a_study_is_read_from_one_platform(tiny, monkeypatch):
    from src.records import save_record

    for seed, precision in [(1, "bfloat16"), (2, "bfloat16"), (3, "float32")]:
        save_record(
            "study",
            run(replace(tiny, precision=precision), seed, "cpu", progress=False, keep=False)[1],
        )
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": tiny}, seeds=3))
    assert [record["seed"] for record in study_records("one")["a"]] == [1, 2]


def test_a_study_on_a_dask_cluster_records_the_same_runs(results, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": replace(BASIC, epochs=1)}, seeds=3))
    monkeypatch.setenv("MNIST_REDUCED", "1")  # in the workers
    monkeypatch.setenv("MNIST_RESULTS", str(results))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        cluster.wait_for_workers(2)
        local = [run(BASIC, seed, "cpu", progress=False)[1] for seed in (1, 2, 3)]
        monkeypatch.setenv("MNIST_REDUCED", "0")
        run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)
    found = study_records("one")["a"]
    assert [record["seed"] for record in found] == [1, 2, 3]
    for record, expected in zip(found, local):  # another number of threads rounds differently
        assert record["history"][0]["train_loss"] == pytest.approx(
            expected["history"][0]["train_loss"], rel=0.01
        )


def test_a_cluster_that_does_not_answer_or_mixes_runs_is_refused():
    distributed = pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at 'abacus'"):
        run_studies([], scheduler="abacus")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        cluster.wait_for_workers(1)
        with pytest.raises(RuntimeError, match="--nthreads 1"):
            run_studies([], scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("name", SELECTION)
def test_selection_uses_the_validation_split_alone(name):
    assert all(
        experiment.split == "validation" for experiment in STUDIES[name].experiments.values()
    )


def test_the_reports_are_of_the_steps_as_they_are():
    assert STUDIES["steps"].experiments == STEPS
    assert [len(STUDIES["steps"].runs(step)) for step in STEPS] == [10, 10, 30]
    assert STUDIES["parameters"].experiments["7,946"] == AUGMENTATION
    assert all(
        replace(experiment, precision="auto") == AUGMENTATION
        for experiment in STUDIES["precision"].experiments.values()
    )


def test_every_neighbour_changes_the_recipe_of_step_3_and_differs_from_the_others():
    recipe, *neighbours = STUDIES["sensitivity"].experiments.values()
    assert (
        recipe == replace(AUGMENTATION, split="validation") == STUDIES["epochs"].experiments["15"]
    )
    assert all(neighbour != recipe and neighbours.count(neighbour) == 1 for neighbour in neighbours)
    assert all(
        neighbour.augmentation.keys() == recipe.augmentation.keys() for neighbour in neighbours
    )


def test_a_study_continues_after_a_run_that_diverges(tiny, monkeypatch):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    monkeypatch.setitem(
        STUDIES, "one", Study("?", "x", {"bad": diverging, "good": tiny}, "bad", seeds=1)
    )
    run_studies(["one"], jobs=1, device="cpu")
    assert missing(["one"], *HERE) == []
    bad, _ = study_table("one").splitlines()[2:]
    assert bad == "| bad | 1 | – (0\u00a0of\u00a01\u00a0seeds train) | – | 0.00 | – | – |"
