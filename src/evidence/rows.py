"""What the records say of a study: one row for each recipe, computed once, then shown.

`tables` and `pictures` show rows.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from .. import device, store
from ..experiments import load_runs
from ..recipes import Experiment
from . import measures
from .measures import Estimate
from .studies import STUDIES
from .study import Study


@dataclass(frozen=True)
class Row:
    """The recorded runs of a recipe, and what follows from them.

    `histories`, `lowest` and `last` are of the runs that learn, in the order of their seeds.
    """

    label: str
    records: list[dict]
    histories: list[list[dict]]
    lowest: list[float]  # accuracy in % of each run: the lowest of the last five epochs
    last: list[float]  # and that of the last epoch
    consistent: int  # runs
    difference: Estimate | None = None  # of the lowest from the reference's, in percentage points
    survives_holm: bool = False  # the correction for the number of differences in the study

    @property
    def all_learn(self) -> bool:
        """Whether every recorded run learns."""
        return 0 < len(self.histories) == len(self.records)

    @property
    def is_comparable(self) -> bool:
        """Whether every recorded run learns, over five epochs or more."""
        return self.all_learn and not any(map(math.isnan, self.lowest))


def study_rows(name: str) -> list[Row]:
    """The rows of a study, all from one platform: the one on which most of its runs were made.

    Of two platforms with as many runs, it is the one on which a run was recorded last.
    """
    runs = recorded_runs(STUDIES[name], load_study_records())
    rows = {label: _summarize(label, records) for label, records in runs.items()}
    samples = {
        label: (rows[label].lowest, rows[reference].lowest)
        for label, reference in STUDIES[name].comparisons().items()
        if rows[label].is_comparable and rows[reference].is_comparable
    }
    compared = {label: measures.compare(*pair) for label, pair in samples.items()}
    survive = measures.survive_holm([p_value for _, p_value in compared.values()])
    for (label, (difference, _)), survives in zip(compared.items(), survive, strict=True):
        rows[label] = replace(rows[label], difference=difference, survives_holm=survives)
    return list(rows.values())


def load_rows(names: Iterable[str] = STUDIES) -> dict[str, dict[str, Row]]:
    """The rows of the named studies, by study and label."""
    return {name: {row.label: row for row in study_rows(name)} for name in names}


def first_ten_runs(rows: Mapping[str, Mapping[str, Row]]) -> list[dict]:
    """The records of step 3 whose misclassified test images are compared: ten seeds."""
    return rows["augmentation"]["augmentation"].records[:10]


def _summarize(label: str, records: list[dict]) -> Row:
    histories = measures.learned_histories(records)
    return Row(
        label,
        records,
        histories,
        lowest=[measures.lowest(history) for history in histories],
        last=[measures.last(history) for history in histories],
        consistent=sum(measures.is_consistent(record) for record in records),
    )


def recorded_runs(study: Study, records: Mapping[str, dict]) -> dict[str, list[dict]]:
    """The records of a study on one platform, for each label in the order of the seeds.

    Of all `records`, by their keys, they are those of the platform with most runs of the study.
    """
    newest_first = reversed(records.values())
    platforms = dict.fromkeys(store.platform(record) for record in newest_first)
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
    # Of earlier and of new records, `recorded_runs` chooses one platform for each study.
    earlier = store.load_records(store.EVIDENCE / "earlier_studies.jsonl")
    return earlier | store.load_records(store.EVIDENCE / "study.jsonl")


def load_valid_keys(file: str) -> set[str]:
    """The keys of your own records in a file that need not be made again.

    These are runs of committed code, which can be published, and runs at the commit that is
    checked out, whatever was edited since.
    """
    own = store.load_records(store.OUTPUT / file)
    return {
        key
        for key, record in own.items()
        if is_committed(record) or record.get("commit") == device.COMMIT
    }


def is_committed(record: Mapping) -> bool:
    """Whether the code that made a record was committed; only then does it become evidence."""
    commit = record.get("commit")  # None outside a clone; the first records do not have it
    return commit is not None and not commit.endswith("-dirty")


def _find(
    records: Mapping[str, dict], experiment: Experiment, seeds: int, platform: str
) -> list[dict]:
    recipe = asdict(experiment)
    keys = [store.make_key(recipe, seed, platform) for seed in range(1, seeds + 1)]
    return [records[key] for key in keys if key in records]


def _count(lists: Iterable[list]) -> int:
    return sum(map(len, lists))


def seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    runs = load_runs(store.EVIDENCE, step)
    if not runs:
        raise RuntimeError(f"there is no record of {step} with seed 1: run its notebook")
    return runs[-1]
