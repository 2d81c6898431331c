"""The command line: python -m src --help."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

STEPS = [
    "basic",
    "regularization",
    "augmentation",
]  # as in experiments.py, whose import of torch would make --help slow


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def train(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from . import experiments

    experiment = experiments.STEPS[args.step]
    experiments.run(
        replace(experiment, epochs=args.epochs or experiment.epochs),
        args.seed,
        args.device,
        fresh=args.fresh,
    )


def study(args: argparse.Namespace) -> None:
    from .evidence.studies import STUDIES, run_studies, study_records

    names = args.name or list(STUDIES)
    if unknown := set(names) - set(STUDIES):
        raise ValueError(f"unknown study {unknown.pop()!r}: choose from {', '.join(STUDIES)}")
    if args.list:
        for name in names:
            done = sum(len(records) for records in study_records(name).values())
            total = sum(len(STUDIES[name].runs(label)) for label in STUDIES[name].experiments)
            print(f"{name:28} {done:3} of {total:3} runs recorded   {STUDIES[name].question}")
        return
    if (args.backend == "dask") != bool(args.scheduler):
        raise ValueError("--backend dask and --scheduler ADDRESS require each other")
    try:
        run_studies(names, args.seeds, args.jobs, args.device, args.scheduler)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted. Run the same command again to resume.") from None


def bench(args: argparse.Namespace) -> None:
    if unknown := set(args.step) - set(STEPS):
        raise ValueError(f"unknown step {unknown.pop()!r}: choose from {', '.join(STEPS)}")
    from .evidence.benchmark import benchmark, table

    print(table(benchmark(args.step or STEPS, args.turns, args.quick, args.device)))


def predict(args: argparse.Namespace) -> None:
    from .demo.digits import read_files, save_picture

    results, errors = read_files(args.image)
    lines = []
    for result in results:
        second = result["probabilities"][result["runner_up"]]
        line = f"{result['file']}  {result['digit']}  {result['confidence']:.1%}  "
        line += f"then {result['runner_up']} ({second:.1%})"
        if result["doubts"]:
            line += f"  doubtful: {', '.join(result['doubts'])}"
        lines.append(line)
    if results or args.json:
        print(json.dumps(results) if args.json else "\n".join(lines))
    if args.show and results:
        save_picture(results, args.show)
    if errors:
        raise RuntimeError("\n".join(errors))


def notebooks(args: argparse.Namespace) -> None:
    from .evidence.notebooks import execute_notebooks

    execute_notebooks()


def page(args: argparse.Namespace) -> None:
    from .evidence.report import write_page

    write_page()


def report(args: argparse.Namespace) -> None:
    from .evidence.report import check, write

    if not args.check:
        write()
    elif faults := check():
        raise RuntimeError("\n".join(faults))
    else:
        print("READMEs, pictures, notebooks and the page agree with the records.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; an error that a user can cause ends in one line on standard error, and exit status 1 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m src",
        description="The experiments behind the notebooks: MNIST to 99.4 % "
        "with fewer than 10,000 parameters in at most 15 epochs.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(call: Callable, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            call.__name__, help=help, description=help[0].upper() + help[1:] + "."
        )
        command.set_defaults(call=call)
        return command

    def add_device(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--device", help="cuda, mps or cpu (default: the first of these that is available)"
        )

    command = add(
        train,
        "train one step, as its notebook does, and record the run; resumes an interrupted run",
    )
    command.add_argument("step", choices=STEPS)
    command.add_argument(
        "--seed", type=int, default=1, help="seed of weights, batches and augmentation (default: 1)"
    )
    command.add_argument(
        "--epochs", type=positive, help="number of epochs (default: the recipe's, 15)"
    )
    command.add_argument(
        "--fresh", action="store_true", help="start over instead of resuming an interrupted run"
    )
    add_device(command)

    command = add(
        study,
        "run the missing runs of the studies over many seeds, several at a time; can be interrupted and resumed",
    )
    command.add_argument("name", nargs="*", help="studies to run (default: all; see --list)")
    command.add_argument(
        "--list",
        action="store_true",
        help="list the studies and how many of their runs are recorded",
    )
    command.add_argument(
        "--seeds",
        type=positive,
        help="run seeds 1 to SEEDS of every recipe (default: the study's own number)",
    )
    command.add_argument(
        "--jobs",
        type=positive,
        help="runs at a time (default: one per core, or one on an accelerator)",
    )
    command.add_argument(
        "--backend",
        choices=["local", "dask"],
        default="local",
        help="processes of this machine (default), or an existing Dask cluster",
    )
    command.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address of the Dask scheduler, for example tcp://127.0.0.1:8786",
    )
    add_device(command)

    command = add(
        bench,
        "measure an epoch of this package and of the usual pipelines; records a benchmark of all steps",
    )
    command.add_argument(
        "step", nargs="*", help=f"steps to measure, of {', '.join(STEPS)} (default: all)"
    )
    command.add_argument(
        "--turns", type=positive, default=3, help="epochs measured per variant (default: 3)"
    )
    command.add_argument(
        "--quick", action="store_true", help="use a tenth of the images, and record nothing"
    )
    add_device(command)

    command = add(
        predict,
        "classify the digit in each image file: prints digit, confidence and second most probable digit",
    )
    command.add_argument(
        "image",
        nargs="+",
        help="PNG, JPEG or any other image file with one digit, of any size and colours",
    )
    command.add_argument(
        "--json",
        action="store_true",
        help="print a list of objects instead, with all ten probabilities",
    )
    command.add_argument(
        "--show",
        metavar="PICTURE",
        type=Path,
        help="draw each picture with what was found in it, and the predictions",
    )

    add(notebooks, "execute the three notebooks in place with nbconvert")

    add(page, "write docs/index.html, the page for drawing a digit")

    command = add(
        report,
        "update the generated parts of the READMEs, the pictures and the page from the records",
    )
    command.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail if something does not agree with the records",
    )

    args = parser.parse_args(argv)
    try:
        args.call(args)
    except (KeyboardInterrupt, RuntimeError, ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        status = (
            130
            if isinstance(error, KeyboardInterrupt)
            else 2
            if isinstance(error, ValueError)
            else 1
        )
        print(f"{parser.prog}: {str(error) or 'Interrupted.'}", file=sys.stderr)
        sys.exit(status)


if __name__ == "__main__":
    main()
