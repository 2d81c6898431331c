"""The comparison of misclassified images: on small examples, and against predictions."""

from dataclasses import replace

import numpy as np
import pytest

from src.evidence import misclassified
from src.evidence.rows import first_ten_records, load_rows


@pytest.fixture
def step_3():
    """Step 3 with its runs."""
    row = load_rows(["augmentation"])["augmentation"]["augmentation"]
    assert row.records, "step 3 has no runs: python -m src study augmentation, and report"
    return row


def test_the_images_that_every_run_misclassifies_have_their_most_frequent_prediction():
    runs = [{1: 7, 5: 3, 9: 0}, {5: 8, 1: 7, 2: 2}, {9: 0, 1: 4, 5: 8}]
    assert list(misclassified.shared_by_all(runs).items()) == [(1, 7), (5, 8)]


def test_the_errors_that_two_runs_share_are_a_mean_over_the_pairs():
    runs = [{1: 7, 2: 2, 3: 3}, {1: 8, 2: 2}, {1: 7}]  # 2, 1 and 1 images
    assert misclassified.mean_shared_by_two(runs) == pytest.approx(4 / 3)


def test_a_vote_is_wrong_unless_the_digit_has_most_votes():
    one_of_three, two_alike, two_apart = 1, 2, 3
    runs = [{one_of_three: 7, two_alike: 4, two_apart: 5}, {two_alike: 4, two_apart: 6}, {}]
    assert misclassified.count_errors_of_vote(runs) == 2  # of three apart, none has most


def test_the_recorded_vote_is_that_of_the_predictions(mnist, step_3):
    records = first_ten_records({"augmentation": {"augmentation": step_3}})
    assert [record["seed"] for record in records] == list(range(1, 11))
    labels = mnist[1][1].numpy()
    predictions = np.tile(labels, (len(records), 1))
    for row, record in zip(predictions, records):
        indices, digits = np.array(record["errors"]).T
        row[indices] = digits
        accuracy = 100 * (row == labels).mean()
        assert accuracy == pytest.approx(record["history"][-1]["test_accuracy"], abs=1e-6)
    votes = (predictions[:, :, None] == np.arange(10)).sum(axis=0)
    own = votes[np.arange(len(labels)), labels]
    votes[np.arange(len(labels)), labels] = -1
    wrong = (own <= votes.max(axis=1)).sum()
    runs = [misclassified.read_errors(record) for record in records]
    assert misclassified.count_errors_of_vote(runs) == wrong > 0


def test_a_run_that_diverged_has_no_errors_to_compare(step_3):
    failed = {"seed": 1, "failed": "batch 3: the loss is not finite", "history": []}
    row = replace(step_3, records=[failed, *step_3.records[1:]])
    rows = {"augmentation": {"augmentation": row}}
    assert [record["seed"] for record in first_ten_records(rows)] == list(range(2, 12))


def test_mcnemar_counts_what_only_one_of_two_misclassifies():
    one, other = {1: 7, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}, {1: 8}
    assert misclassified.mcnemar(one, other) == (5, 0, pytest.approx(2 / 2**5))
    assert misclassified.mcnemar(other, one) == (0, 5, pytest.approx(2 / 2**5))
    assert misclassified.mcnemar(one, one) == (0, 0, 1.0)
