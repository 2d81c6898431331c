"""The networks whose robustness the evidence compares: how they are trained, and what is recorded.

`run_compared` appends to `robustness.jsonl` in `store.OUTPUT`; `report` publishes and draws it.
"""

from dataclasses import asdict, replace

from .. import store
from ..data import load_mnist
from ..device import pick_device
from ..experiments import AUGMENTATION, REGULARIZATION, find_reduction, run
from ..provenance import environment
from .original import ORIGINAL
from .records import load_valid_keys, select_records
from .robustness import Curves, mean_curves, measure_robustness
from .study import Study

COMPARED = Study(
    "How does accuracy fall on transformed images?",
    "network",
    {
        "step 2": REGULARIZATION,
        "step 3": AUGMENTATION,
        "step 3 without transforms": replace(AUGMENTATION, augmentation=None),
        "the original's step 3": ORIGINAL["augmentation"],
    },
    seeds=3,
)
ROBUSTNESS_FILE = "robustness.jsonl"


def run_compared(device: str | None = None) -> None:
    """Train each run of `COMPARED` that is not recorded, and record it with its `robustness`.

    With MNIST_REDUCED, nothing is recorded. A network whose measurement is interrupted is trained
    again.
    """
    torch_device = pick_device(device)
    platform = store.name_platform(environment(torch_device))
    published = store.load_records(store.EVIDENCE / ROBUSTNESS_FILE)
    recorded = load_valid_keys(ROBUSTNESS_FILE) | published.keys()
    _, (images, labels) = load_mnist(device=torch_device)
    names = {experiment: name for name, experiment in COMPARED.experiments.items()}
    for experiment, seed in COMPARED.runs():
        if store.make_key(asdict(experiment), seed, platform) in recorded:
            continue
        print(f"{names[experiment]}, seed {seed}:")
        model, record = run(experiment, seed, device, file=None)
        if not find_reduction():
            record["robustness"] = measure_robustness(model, images, labels)
            store.append_records(store.OUTPUT / ROBUSTNESS_FILE, [record])


def load_compared() -> dict[str, list[dict]]:
    """The records of `COMPARED` by the names of the networks, as far as there are any."""
    by_name = select_records(COMPARED, store.load_records(store.EVIDENCE / ROBUSTNESS_FILE))
    return {name: records for name, records in by_name.items() if records}


def load_curves() -> dict[str, list[Curves]]:
    """How the accuracy of each of these networks falls, for each seed."""
    compared = load_compared().items()
    return {name: [record["robustness"] for record in records] for name, records in compared}


def load_mean_curves() -> dict[str, Curves]:
    """The mean of these curves over the seeds."""
    return {name: mean_curves(seeds) for name, seeds in load_curves().items()}
