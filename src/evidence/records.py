"""Which records count: those of a study, of one platform; your own; and those of committed code."""

from collections.abc import Mapping
from dataclasses import asdict

from .. import provenance, store
from ..experiments import load_step_records
from .study import Study

STUDY_FILE = "study.jsonl"  # in `store.OUTPUT` and in `store.EVIDENCE`


def select_records(study: Study, records: Mapping[str, dict]) -> dict[str, list[dict]]:
    """The records of a study on one platform, for each label in the order of the seeds.

    Of all `records`, by their keys, they are those of the platform with most runs of the study.
    """
    newest_first = reversed(records.values())
    platforms = dict.fromkeys(map(store.name_platform, newest_first))
    candidates = [_select_platform(study, records, platform) for platform in platforms]
    nothing = {label: [] for label in study.experiments}
    # `max` keeps the first of equals: the platform that was used last.
    return max(candidates, key=_count_runs, default=nothing)


def load_study_records() -> dict[str, dict]:
    """The recorded runs of all studies, by their keys."""
    return store.load_records(store.EVIDENCE / STUDY_FILE)


def load_valid_keys(file: str) -> set[str]:
    """The keys of your own records in a file that need not be made again.

    These are runs of committed code, which can be published, and runs whose `commit` is that of the
    imported code: the same commit, in both cases with uncommitted changes, or none outside a clone.
    """
    own = store.load_records(store.OUTPUT / file)
    return {
        key
        for key, record in own.items()
        if is_committed(record) or record.get("commit") == provenance.COMMIT
    }


def is_committed(record: Mapping) -> bool:
    """Whether the code that made a record was committed; only then does it become evidence."""
    commit = record.get("commit")  # None outside a clone
    return commit is not None and not commit.endswith("-dirty")


def _select_platform(
    study: Study, records: Mapping[str, dict], platform: str
) -> dict[str, list[dict]]:
    """The records of a study on this platform, for each label in the order of the seeds."""
    selected = {}
    for label, experiment in study.experiments.items():
        recipe = asdict(experiment)
        keys = [store.make_key(recipe, seed, platform) for seed in range(1, study.seeds + 1)]
        selected[label] = [records[key] for key in keys if key in records]
    return selected


def _count_runs(selected: Mapping[str, list]) -> int:
    return sum(map(len, selected.values()))


def load_seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    records = load_step_records(store.EVIDENCE, step)
    if not records:
        raise RuntimeError(f"there is no record of {step} with seed 1: run its notebook")
    return records[-1]
