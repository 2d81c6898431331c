"""Which records count: those of a study, of one platform; your own; and those of committed code."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from .. import provenance, store
from ..experiments import load_step_records
from ..recipes import Experiment
from .study import Study


def select_records(study: Study, records: Mapping[str, dict]) -> dict[str, list[dict]]:
    """The records of a study on one platform, for each label in the order of the seeds.

    Of all `records`, by their keys, they are those of the platform with most runs of the study.
    """
    newest_first = reversed(records.values())
    platforms = dict.fromkeys(store.name_platform(record) for record in newest_first)
    best = {label: [] for label in study.experiments}
    for platform in platforms:  # of two with as many runs, the one that was used last
        candidate = {
            label: _find(records, experiment, study.seeds, platform)
            for label, experiment in study.experiments.items()
        }
        if _count(candidate.values()) > _count(best.values()):
            best = candidate
    return best


def load_study_records() -> dict[str, dict]:
    """The recorded runs of all studies, by their keys."""
    return store.load_records(store.EVIDENCE / "study.jsonl")


def load_valid_keys(file: str) -> set[str]:
    """The keys of your own records in a file that need not be made again.

    These are runs of committed code, which can be published, and runs at the commit that is
    checked out, whatever was edited since.
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


def _find(
    records: Mapping[str, dict], experiment: Experiment, seeds: int, platform: str
) -> list[dict]:
    recipe = asdict(experiment)
    keys = [store.make_key(recipe, seed, platform) for seed in range(1, seeds + 1)]
    return [records[key] for key in keys if key in records]


def _count(lists: Iterable[list]) -> int:
    return sum(map(len, lists))


def load_seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    records = load_step_records(store.EVIDENCE, step)
    if not records:
        raise RuntimeError(f"there is no record of {step} with seed 1: run its notebook")
    return records[-1]
