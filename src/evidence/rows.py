"""What the records say of a study: one row for each recipe, computed once, then shown.

`tables` and `pictures` show rows.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from . import measures
from .measures import Estimate
from .records import load_study_records, select_records
from .studies import STUDIES


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


Rows = Mapping[str, Mapping[str, Row]]  # of studies, by study and label


def study_rows(name: str) -> list[Row]:
    """The rows of a study, all from one platform: the one on which most of its runs were made.

    Of two platforms with as many runs, it is the one on which a run was recorded last.
    """
    by_label = select_records(STUDIES[name], load_study_records())
    rows = {label: summarize(label, records) for label, records in by_label.items()}
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


def load_rows(names: Iterable[str] = STUDIES) -> Rows:
    """The rows of the named studies, by study and label."""
    return {name: {row.label: row for row in study_rows(name)} for name in names}


def first_ten_records(rows: Rows) -> list[dict]:
    """The records of step 3 whose misclassified test images are compared: ten finished runs."""
    records = rows["augmentation"]["augmentation"].records
    return [record for record in records if "failed" not in record][:10]


def summarize(label: str, records: list[dict]) -> Row:
    """The row of these records, without a difference."""
    histories = measures.learned_histories(records)
    return Row(
        label,
        records,
        histories,
        lowest=[measures.lowest(history) for history in histories],
        last=[measures.last(history) for history in histories],
        consistent=sum(measures.is_consistent(record) for record in records),
    )
