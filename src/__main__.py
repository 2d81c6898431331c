"""The command line: python -m src --help."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# As in experiments.py, whose import of torch would make --help slow.
STEPS = ["basic", "regularization", "augmentation"]


def parse_positive(text: str) -> int:
    """Parse a positive integer, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text}")
    return int(text)


def train(args: argparse.Namespace) -> None:
    """Train a step of the series."""
    from dataclasses import replace

    from . import experiments

    experiment = experiments.STEPS[args.step]
    experiment = replace(experiment, epochs=args.epochs or experiment.epochs)
    experiments.run(experiment, args.seed, args.device, fresh=args.fresh)


def study(args: argparse.Namespace) -> None:
    """Run what is missing of the studies, or list them."""
    from .device import pick_device
    from .evidence import runner

    names = args.name or list(runner.STUDIES)
    if unknown := set(names) - set(runner.STUDIES):
        known = ", ".join(runner.STUDIES)
        raise ValueError(f"unknown study {unknown.pop()!r}: choose from {known}")
    if args.list:
        print(runner.progress_table(names, pick_device(args.device), args.seeds))
        return
    try:
        runner.run_studies(names, args.seeds, args.jobs, args.device, args.scheduler)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted. Run the same command again to resume.") from None


def robustness(args: argparse.Namespace) -> None:
    """Train what the evidence compares on transformed images, and measure it."""
    from .evidence.compared import run_compared

    run_compared(args.device)


def bench(args: argparse.Namespace) -> None:
    """Print a benchmark."""
    if unknown := set(args.step) - set(STEPS):
        raise ValueError(f"unknown step {unknown.pop()!r}: choose from {', '.join(STEPS)}")
    from .evidence.benchmark import benchmark
    from .evidence.tables import speed_table

    print(speed_table(benchmark(args.step or STEPS, args.rounds, args.quick, args.device)))


def predict(args: argparse.Namespace) -> None:
    """Print the digit in each image file; RuntimeError names the files that cannot be read."""
    from .demo.digits import read_files, save_picture

    results, digits, errors = read_files(args.image)
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
        try:
            save_picture(results, digits, args.show)
        except OSError as error:
            errors.append(str(error))
    if errors:
        raise RuntimeError("\n".join(errors))


def report(args: argparse.Namespace) -> None:
    """Publish and write everything, or check it; RuntimeError names what does not agree."""
    from .evidence.report import check, write

    if not args.check:
        write()
    elif faults := check():
        raise RuntimeError("\n".join(faults))
    else:
        print("READMEs, pictures, notebooks and the page agree with the records.")


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m src",
        description="The experiments behind the notebooks: MNIST to 99.4 % with fewer than 10,000 "
        "parameters in at most 15 epochs.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_training_commands(commands)
    _add_other_commands(commands)
    return parser


def _add_training_commands(commands: argparse._SubParsersAction) -> None:
    train_parser = _add_command(
        commands, train, "train one step, as its notebook does; resumes an interrupted run"
    )
    train_parser.add_argument("step", choices=STEPS)
    train_parser.add_argument(
        "--seed", type=int, default=1, help="of weights, batches and augmentation (default: 1)"
    )
    train_parser.add_argument(
        "--epochs", type=parse_positive, help="number of epochs (default: the recipe's, 15)"
    )
    train_parser.add_argument(
        "--fresh", action="store_true", help="start over instead of resuming an interrupted run"
    )
    _add_device(train_parser)

    study_parser = _add_command(
        commands, study, "run the missing runs of the studies, several at a time; resumes"
    )
    study_parser.add_argument("name", nargs="*", help="studies to run (default: all; see --list)")
    study_parser.add_argument(
        "--list", action="store_true", help="list the studies and how many runs are recorded"
    )
    study_parser.add_argument(
        "--seeds",
        type=parse_positive,
        help="run seeds 1 to SEEDS of each recipe (default: the study's, "
        "which are those that `report` publishes)",
    )
    study_parser.add_argument(
        "--jobs", type=parse_positive, help="runs at a time (default: one per core; on a GPU, one)"
    )
    study_parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler, such as tcp://127.0.0.1:8786"
    )
    _add_device(study_parser)

    robustness_parser = _add_command(
        commands, robustness, "train four networks, and measure them on transformed test images"
    )
    _add_device(robustness_parser)


def _add_other_commands(commands: argparse._SubParsersAction) -> None:
    bench_parser = _add_command(
        commands, bench, "measure an epoch of this package and of the usual pipeline"
    )
    bench_parser.add_argument(
        "step", nargs="*", help=f"steps to measure, of {', '.join(STEPS)} (default: all)"
    )
    bench_parser.add_argument(
        "--rounds", type=parse_positive, default=3, help="epochs per pipeline (default: 3)"
    )
    bench_parser.add_argument(
        "--quick", action="store_true", help="use a tenth of the images, and record nothing"
    )
    _add_device(bench_parser)

    predict_parser = _add_command(commands, predict, "read the digit in each image file")
    predict_parser.add_argument(
        "image", nargs="+", help="PNG, JPEG or any other image file with one digit"
    )
    predict_parser.add_argument(
        "--json", action="store_true", help="print a list of objects, with all probabilities"
    )
    predict_parser.add_argument(
        "--show", metavar="PICTURE", type=Path, help="draw what was found, and the answers"
    )

    report_parser = _add_command(
        commands,
        report,
        "publish what was run here, and write the tables, numbers, pictures and the page",
    )
    report_parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if something does not agree"
    )


def _add_command(
    commands: argparse._SubParsersAction, call: Callable, help_text: str
) -> argparse.ArgumentParser:
    """Add the command that calls a function, under its name; returns its parser."""
    description = help_text[0].upper() + help_text[1:] + "."
    added = commands.add_parser(call.__name__, help=help_text, description=description)
    added.set_defaults(call=call)
    return added


def _add_device(parser: argparse.ArgumentParser) -> None:
    help_text = "cuda, mps or cpu (default: the first of these that is available)"
    parser.add_argument("--device", help=help_text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; an error that a user can cause is printed without a traceback.

    The exit status is then 1, 2 for a wrong value, or 130 for an interrupt.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal can encode
    args = make_parser().parse_args(argv)
    _treat_as_interrupt("SIGTERM", "SIGHUP")
    try:
        args.call(args)
        if sys.stdout:  # None if it is closed
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, RuntimeError, ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        message = str(error) or type(error).__name__
        status = 1
        if isinstance(error, ValueError):
            status = 2
        if isinstance(error, KeyboardInterrupt):
            message = str(error) or "Interrupted."
            status = 130
        print(f"python -m src: {message}", file=sys.stderr)
        sys.exit(status)


def _treat_as_interrupt(*names: str) -> None:
    """Let these signals end a command as Ctrl-C does, unless they are ignored, as under nohup."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


if __name__ == "__main__":
    main()
