"""Studies run what is missing, here or on a cluster, and never select on the test set."""

import gc
import os
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from conftest import IMAGES, history

from src import provenance, store
from src.data import SPLITS
from src.evidence import runner
from src.evidence.publish import publish
from src.evidence.rows import load_rows, study_rows
from src.evidence.runner import find_missing_runs, run_studies
from src.evidence.studies import EXPLANATIONS, SELECTION, STUDIES
from src.evidence.study import Study, sweep, vary
from src.evidence.tables import study_table
from src.experiments import AUGMENTATION, BASIC
from src.provenance import environment
from src.store import load_records

pytestmark = pytest.mark.usefixtures("output", "evidence")
HERE = torch.device("cpu")


@pytest.fixture
def study(monkeypatch):
    """Adds a study under a name."""

    def add(name, experiments, *args, **options):
        monkeypatch.setitem(STUDIES, name, Study("?", "x", experiments, *args, **options))

    return add


def make_record(recipe):
    """A record of a run with seed 1 that was not made."""
    rest = {"history": history(*[99.0] * 5), "finished": "2026-11-28T00:00:00+00:00"}
    return {"recipe": asdict(recipe), "seed": 1, **environment(HERE), **rest}


def seeds(rows):
    return [[record["seed"] for record in row.records] for row in rows]


def test_a_smoke_test_of_a_study_saves_nothing_and_says_so(output, study, smoke, capsys):
    study("one", {"a": BASIC}, seeds=1)
    run_studies(["one"], jobs=1, device="cpu")
    assert not any(path.is_file() for path in output.rglob("*"))
    assert "none is recorded" in capsys.readouterr().err


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, study, cli, output):
    study("one", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=1)
    study("two", {"same as a": replace(tiny, name="other")}, seeds=2)
    assert len(find_missing_runs(["one", "two"], HERE)) == 3
    run_studies(["two"], jobs=1, device="cpu")
    assert find_missing_runs(["two"], HERE) == [] and len(find_missing_runs(["one"], HERE)) == 1
    run_studies(["one"], jobs=1, device="cpu")
    study("longer", {"a": tiny}, seeds=1)
    lines = "one      2 of   2 runs   ?\nlonger   1 of   1 runs   ?\n"
    assert cli("study", "--list", "one", "longer").out == lines
    assert cli("study", "--list", "one", "--seeds", "3").out == "one   3 of   6 runs   ?\n"
    assert seeds(study_rows("one")) == [[], []]  # what is run is the reader's
    for _ in range(2):  # the second time, nothing is new
        publish()
        assert seeds(study_rows("one")) == [[1], [1]] and seeds(study_rows("two")) == [[1, 2]]
        assert len((store.EVIDENCE / "study.jsonl").read_text("utf-8").splitlines()) == 3
    assert len((output / "study.jsonl").read_text("utf-8").splitlines()) == 3  # each once
    assert all(row["threads"] == 1 for row in load_records(output / "study.jsonl").values())
    assert len(find_missing_runs(["one"], HERE, seeds=3)) == 3


def test_one_job_leaves_the_callers_threads(tiny, study):
    study("one", {"a": tiny}, seeds=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run_studies(["one"], jobs=1, device="cpu")
        (record,) = load_records(store.OUTPUT / "study.jsonl").values()
        assert record["threads"] == 1 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_study_is_shown_from_the_platform_with_most_of_its_runs(study):
    record = make_record(BASIC)
    other = {**record, "recipe": {**record["recipe"], "batch_size": 256}}
    lines = [
        {**record, "seed": 1, "torch": "2.9.1+cpu"},
        {**record, "seed": 2, "torch": "2.9.1+cu130"},  # the same version
        {**other, "seed": 1, "torch": "2.9.1+cpu"},
        {**record, "seed": 3, "torch": "2.10.0"},
        {**other, "seed": 2, "device": "cuda", "torch": "2.9.1"},
    ]
    store.append_records(store.EVIDENCE / "study.jsonl", lines)
    study("one", {"a": BASIC, "b": replace(BASIC, batch_size=256)}, seeds=3)
    assert seeds(study_rows("one")) == [[1, 2], [1]]
    assert len(find_missing_runs(["one"], HERE)) == 6  # none was made here


@pytest.mark.parametrize("versions", [("2.9.1", "2.10.0"), ("2.10.0", "2.9.1")])
def test_of_two_platforms_with_as_many_runs_the_last_one_is_shown(versions, study):
    record = make_record(BASIC)
    lines = [{**record, "torch": version} for version in versions]
    store.append_records(store.EVIDENCE / "study.jsonl", lines)
    study("one", {"a": BASIC}, seeds=1)
    (row,) = study_rows("one")
    assert [shown["torch"] for shown in row.records] == [versions[-1]]


def test_a_study_continues_after_a_run_that_diverges(tiny, study):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    study("one", {"bad": diverging, "good": tiny}, "bad", seeds=1)
    run_studies(["one"], jobs=1, device="cpu")
    assert find_missing_runs(["one"], HERE) == []
    publish()
    bad, _ = study_table("one", load_rows(["one"])).splitlines()[2:]
    assert bad.startswith("| bad | – (0 of 1 seeds learn) | – | 0 of 1 ")


def test_runs_of_uncommitted_code_that_has_changed_are_made_again(
    tiny, study, evidence, monkeypatch, capsys
):
    study("one", {"a": tiny}, seeds=2)
    monkeypatch.setattr(provenance, "COMMIT", "0123456789-dirty")
    run_studies(["one"], jobs=1, device="cpu")
    assert find_missing_runs(["one"], HERE) == []  # while this code is there
    monkeypatch.setattr(provenance, "COMMIT", "9876543210")
    assert len(find_missing_runs(["one"], HERE)) == 2
    run_studies(["one"], seeds=1, jobs=1, device="cpu")
    publish()
    assert "not published: 1 of 2 runs for study.jsonl, made with" in capsys.readouterr().err
    (record,) = load_records(evidence / "study.jsonl").values()
    assert record["seed"] == 1 and record["commit"] == "9876543210"


def test_the_run_of_another_machine_counts_beside_an_older_one_of_uncommitted_code(
    study, monkeypatch
):
    study("one", {"a": BASIC}, seeds=1)
    record = make_record(BASIC)
    older = {"commit": "9876543210-dirty", "finished": "2026-01-01T00:00:00+00:00"}
    store.append_records(store.OUTPUT / "study.jsonl", [record | older])
    assert len(find_missing_runs(["one"], HERE)) == 1
    monkeypatch.setattr(runner, "_run", lambda *_: record)  # it is recorded where it was made
    run_studies(["one"], jobs=1, device="cpu")
    assert find_missing_runs(["one"], HERE) == []


def test_variations_change_what_they_name():
    varied = vary(AUGMENTATION, {"ema_decay": None, "augmentation.degrees": 3})
    assert varied.ema_decay is None and varied.augmentation["degrees"] == 3
    assert varied.augmentation["shear"] == AUGMENTATION.augmentation["shear"]
    swept = sweep(BASIC, "optimizer_args.lr", (0.5, 1e-3))
    assert {label: recipe.optimizer_args["lr"] for label, recipe in swept.items()} == {
        "0.5": 0.5,
        "0.001": 0.001,
    }


def start_cluster(workers, threads):
    distributed = pytest.importorskip("distributed")
    gc.collect()  # a failed client that is collected while a cluster starts makes both hang
    options = {"threads_per_worker": threads, "host": "127.0.0.1", "dashboard_address": None}
    cluster = distributed.LocalCluster(n_workers=workers, **options)
    if workers:
        cluster.wait_for_workers(workers)
    return cluster


def test_a_study_on_a_dask_cluster_records_its_runs(output, study, monkeypatch):
    def shorten():
        """Give the runs of a worker few images, and the commit of these tests."""
        from src import experiments, provenance

        provenance.COMMIT = "0123456789"
        load = experiments.load_mnist
        experiments.load_mnist = lambda split, device, _limit: load(split, device, IMAGES)

    study("one", {"a": replace(BASIC, epochs=1)}, seeds=2)
    monkeypatch.setenv("MNIST_RESULTS", str(output / "of the workers"))
    with start_cluster(workers=2, threads=1) as cluster:
        with cluster.get_client() as client:
            client.run(lambda: os.environ.update(MNIST_REDUCED="classroom"))
            with pytest.raises(RuntimeError, match="a worker has MNIST_REDUCED set"):
                run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)
            client.run(lambda: os.environ.pop("MNIST_REDUCED"))
            client.run(shorten)
        run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)
        assert find_missing_runs(["one"], HERE) == []
        records = load_records(output / "study.jsonl").values()
        assert {record["test_size"] for record in records} == {IMAGES}

        with monkeypatch.context() as context:
            context.setattr(provenance, "COMMIT", "abcdef")
            with pytest.raises(RuntimeError, match="commit 0123456789, this machine of abcdef: "):
                run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)
        with monkeypatch.context() as context:
            context.setattr(torch, "__version__", "2.4.0+cpu")
            refused = pytest.raises(RuntimeError, match="a worker has PyTorch .* has 2.4.0: ")
            with refused:  # else their runs would be missing for ever
                run_studies(["one"], device="cpu", scheduler=cluster.scheduler_address)

        def die(*_):  # as distributed reports a worker that died
            killed = pytest.importorskip("distributed").KilledWorker
            raise killed("run", SimpleNamespace(address="here"), 3)

        monkeypatch.setattr(store, "append_records", die)
        with pytest.raises(RuntimeError, match="^a Dask worker died; run the command again"):
            run_studies(["one"], seeds=3, device="cpu", scheduler=cluster.scheduler_address)


def test_a_cluster_that_does_not_answer_or_mixes_runs_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at 'abacus'"):
        run_studies([], scheduler="abacus")
    refused = pytest.raises(RuntimeError, match="--nthreads 1")
    with start_cluster(workers=1, threads=2) as cluster, refused:
        run_studies([], scheduler=cluster.scheduler_address)
    for workers in (0, 1):
        refused = pytest.raises(RuntimeError, match=f"the cluster has {workers} worker")
        with start_cluster(workers, threads=1) as cluster, refused:
            run_studies([], scheduler=cluster.scheduler_address)


def test_all_but_reports_use_the_validation_split_alone():
    studies = [*EXPLANATIONS.values(), *SELECTION.values()]
    recipes = [recipe for study in studies for recipe in study.experiments.values()]
    images = {SPLITS[recipe.split].evaluate for recipe in recipes}
    assert images == {SPLITS["validation"].evaluate}


def test_a_reference_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match="no recipe has the label of the reference, 'c': .* a, b"):
        Study("?", "x", {"a": BASIC, "b": AUGMENTATION}, "c")
