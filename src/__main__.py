"""The command line: python -m src --help."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

STEPS = ["basic", "regularization", "augmentation"]  # as in experiments.py, whose import of torch would make --help slow


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def train(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from . import experiments
    experiment = experiments.STEPS[args.step]
    experiments.run(replace(experiment, epochs=args.epochs or experiment.epochs), args.seed, args.device, fresh=args.fresh)


def study(args: argparse.Namespace) -> None:
    from .studies import STUDIES, missing, run_studies
    names = args.name or list(STUDIES)
    for name in names:
        if name not in STUDIES:
            raise ValueError(f"unknown study {name!r}: there are {', '.join(STUDIES)}")
    if not args.list:
        if (args.backend == "dask") != bool(args.scheduler):
            raise ValueError("--backend dask and --scheduler ADDRESS go together")
        try:
            return run_studies(names, args.seeds, args.jobs, args.device, args.scheduler)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted. The same command goes on with what is missing.") from None
    for name in names:
        total = len(STUDIES[name].experiments) * (args.seeds or STUDIES[name].seeds)
        done = total - len(missing([name], args.seeds))
        print(f"{name:28} {done:3} of {total:3} runs recorded   {STUDIES[name].question}")


def bench(args: argparse.Namespace) -> None:
    for step in args.step:
        if step not in STEPS:
            raise ValueError(f"unknown step {step!r}: there are {', '.join(STEPS)}")
    from .bench import bench, table
    print(table(bench(args.step or STEPS, args.turns, args.quick, args.device)))


def predict(args: argparse.Namespace) -> None:
    import json

    from .inference import predict
    results, faults = predict(args.image, args.show)
    if args.json:
        print(json.dumps(results))
    else:
        for result in results:
            digit, other = result["digit"], result["runner_up"]
            print(f"{result['file']}  {digit}  {result['confidence']:.1%}  then {other} ({result['probabilities'][other]:.1%})")
    if faults:
        raise RuntimeError("\n".join(faults))


def export(args: argparse.Namespace) -> None:
    from .inference import export
    print(f"{args.file}: within {export(args.file):.1g} of PyTorch's log-probabilities")


def notebooks(args: argparse.Namespace) -> None:
    from .notebooks import execute_all
    execute_all()


def report(args: argparse.Namespace) -> None:
    from .report import check, write
    if args.check:
        faults = check()
        if faults:
            sys.exit("\n".join(faults))
        print("README, pictures and notebooks agree with the records.")
    else:
        write()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m src",
        description="MNIST to 99.4 % with fewer than 10,000 parameters in at most 15 epochs: the experiments behind the notebooks.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(call: Callable, help: str, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(call.__name__, help=help, description=description)
        command.set_defaults(call=call)
        return command

    command = add(train, "train one step, as its notebook does",
                  "Train one step, exactly as the training cell of its notebook does, and record the run.")
    command.add_argument("step", choices=STEPS)
    command.add_argument("--seed", type=int, default=1, help="seed of weights, batches and augmentation (default: 1)")
    command.add_argument("--epochs", type=positive, help="number of epochs (default: the recipe's, 15)")
    command.add_argument("--device", help="cuda, mps or cpu (default: the first of these that is there)")
    command.add_argument("--fresh", action="store_true", help="start over where an interrupted run would go on")

    command = add(study, "run what is not yet recorded of the sweeps over many seeds",
                  "Run whatever of the named studies is not yet recorded, several runs at a time. It can "
                  "be stopped and started again: a finished run is never repeated.")
    command.add_argument("name", nargs="*", help="studies to run (default: all; see --list)")
    command.add_argument("--list", action="store_true", help="show the studies and what is recorded of each")
    command.add_argument("--seeds", type=positive, help="seeds per point: 1 to SEEDS (default: the study's own number)")
    command.add_argument("--jobs", type=int, default=-1, help="runs at a time (default: one per core)")
    command.add_argument("--backend", choices=["local", "dask"], default="local",
                         help="processes of this machine (default), or an existing Dask cluster")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of the Dask cluster, as in tcp://127.0.0.1:8786")
    command.add_argument("--device", help="cuda, mps or cpu (default: the first of these that is there)")

    command = add(bench, "measure this package against the usual pipelines, side by side",
                  "Measure an epoch, training and testing, of this package, of the usual pipelines and "
                  "of this package with one switch changed, in turns. The record, where it is of all steps, goes to results/bench.json.")
    command.add_argument("step", nargs="*", help=f"steps to measure, of {', '.join(STEPS)} (default: all)")
    command.add_argument("--turns", type=positive, default=3, help="epochs measured of each variant (default: 3)")
    command.add_argument("--quick", action="store_true", help="a tenth of the images, and no record")
    command.add_argument("--device", help="cuda, mps or cpu (default: the first of these that is there)")

    command = add(predict, "read digits from image files with the trained network",
                  "Read the digit in each image file, whatever its size and colours, with the trained network of step 3. One line "
                  "each: file, digit, confidence, and the runner-up.")
    command.add_argument("image", nargs="+", help="PNG, JPEG or any other kind of image file, with one digit")
    command.add_argument("--json", action="store_true", help="print a list of objects instead, with all ten probabilities")
    command.add_argument("--show", metavar="PICTURE", type=Path, help="draw to this file what the network saw and its probabilities")

    command = add(export, "write the trained network as ONNX", "Write the trained network of step 3 as ONNX, with the "
                  "normalisation inside, and check it against PyTorch with onnxruntime.")
    command.add_argument("file", nargs="?", default=Path("mnist.onnx"), type=Path, help="to write (default: mnist.onnx)")

    command = add(notebooks, "execute the three notebooks in place",
                  "Execute the three notebooks in place with nbconvert, with a progress bar.")

    command = add(report, "write the README's generated parts and the pictures from the records",
                  "Write the README's generated parts and the pictures in images/ from the records.")
    command.add_argument("--check", action="store_true",
                         help="write nothing; fail, naming what does not agree with the records: part, picture or notebook")

    args = parser.parse_args()
    try:
        args.call(args)
    except KeyboardInterrupt as error:
        if args.debug:
            raise
        status, message = 130, str(error) or "Interrupted."
    except (RuntimeError, ValueError, OSError) as error:
        if args.debug:
            raise
        status, message = 2 if isinstance(error, ValueError) else 1, str(error)
    else:
        return
    print(f"{parser.prog}: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
