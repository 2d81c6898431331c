"""The command line says what it does, does it, and refuses what it cannot do."""

import io
import os
import re
import sys

import pytest
from drawings import clean, save

import src
from src import __main__, experiments
from src.evidence import benchmark, report, runner, tables
from src.evidence.report import README


@pytest.mark.parametrize("command", ["train", "study", "robustness", "bench", "predict", "report"])
def test_every_command_has_a_help(command, cli):
    assert re.search(rf"^ +{command}\b", cli("--help").out, re.MULTILINE)
    done = cli(command, "--help")
    assert done.status == 0 and f"python -m src {command}" in done.out


def test_every_command_in_the_readme_is_accepted():
    shown = re.findall(r"python -m src ([a-z][^`\n]*)", README.read_text(encoding="utf-8"))
    assert len(shown) >= 6
    for words in shown:
        __main__.make_parser().parse_args(words.split())


def test_help_does_not_import_torch(python):
    done = python("-X", "importtime", "-m", "src", "--help")
    assert done.returncode == 0 and "argparse" in done.stderr and "torch" not in done.stderr


def test_debug_shows_the_traceback(cli):
    with pytest.raises(ValueError, match="unknown study"):
        cli("--debug", "study", "drop")


def test_train_passes_every_option_on(cli, monkeypatch):
    called = []
    monkeypatch.setattr(experiments, "run", lambda *args, **options: called.append((args, options)))
    cli("train", "basic", "--seed", "3", "--epochs", "2", "--device", "mps", "--fresh")
    (((experiment, *args), options),) = called
    assert (experiment.name, experiment.epochs, *args) == ("basic", 2, 3, "mps")
    assert options == {"fresh": True}


def test_train_has_the_defaults_that_its_help_names(cli, monkeypatch):
    called = []
    monkeypatch.setattr(experiments, "run", lambda *args, **options: called.append((args, options)))
    cli("train", "basic")
    assert called == [((experiments.BASIC, 1, None), {"fresh": False})]


def test_study_and_bench_pass_every_option_on(cli, monkeypatch):
    called = []
    monkeypatch.setattr(runner, "run_studies", lambda *args: called.append(args))
    monkeypatch.setattr(benchmark, "benchmark", lambda *args: called.append(args))
    monkeypatch.setattr(tables, "speed_table", lambda _: "")
    device = ("--device", "cpu")
    cli("study", "basic", "--seeds", 3, "--jobs", 2, *device, "--scheduler", "tcp://x")
    cli("bench", "basic", "--rounds", 4, "--quick", *device)
    assert called == [(["basic"], 3, 2, "cpu", "tcp://x"), (["basic"], 4, True, "cpu")]


def test_what_does_not_agree_is_an_exit_status(cli, monkeypatch):
    monkeypatch.setattr(report, "check", lambda: ["README.md does not agree"])
    done = cli("report", "--check")
    assert (done.status, done.err) == (1, "python -m src: README.md does not agree\n")


def test_a_terminal_that_cannot_encode_everything_shows_escapes(
    tmp_path, smoke, output, monkeypatch, same_signals
):
    path = save(clean(7), tmp_path, "😀")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    __main__.main(["train", "basic"])
    __main__.main(["predict", str(path)])
    printed = written.getvalue().decode("ascii")
    assert "Test set: " in printed and r"\U0001f600.png  7" in printed.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes behave differently there")
def test_a_reader_that_leaves_ends_the_command_quietly(capsys, monkeypatch, same_signals):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            __main__.main(["study", "--list", "basic"])
        monkeypatch.undo()
    assert ended.value.code == 1 and capsys.readouterr().err == ""


def test_a_closed_output_is_no_error(monkeypatch, same_signals):
    monkeypatch.setattr(sys, "stdout", None)
    __main__.main(["study", "--list", "basic"])


@pytest.mark.parametrize(
    "words, status, message",
    [
        ("", 2, "required: COMMAND"),
        ("train basics", 2, "invalid choice: 'basics'"),
        ("train basic --epochs 0", 2, "must be a positive integer, got 0"),
        ("train basic --seed -1", 2, "the seed must be a non-negative integer below 2**63, got -1"),
        ("train basic --device abacus", 2, "device 'abacus' is not available here: choose 'cuda'"),
        ("train basic --device cuda:99", 2, "device 'cuda:99' is not available here"),
        ("study drop", 2, "unknown study 'drop': choose from basic, regul"),
        ("bench basics", 2, "unknown step 'basics': choose from basic, regularization, "),
        ("predict nowhere.png", 1, "nowhere.png does not exist"),
    ],
)
def test_wrong_use_is_one_clear_line(words, status, message, cli):
    done = cli(*words.split())
    assert done.status == status and message in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_an_error_without_a_message_is_named(cli, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert cli("train", "basic").err == "python -m src: OSError\n"


def test_steps_are_those_of_the_experiments():
    assert list(experiments.STEPS) == __main__.STEPS


@pytest.mark.parametrize("installed", ["2.3.1+cu121", "1.13.0"])
def test_an_older_pytorch_is_one_line(installed):
    with pytest.raises(SystemExit, match=f"^PyTorch {re.escape(installed)} is too old: install "):
        src.check_torch(installed)


@pytest.mark.parametrize("installed", ["2.5.0", "2.10.0a0+git", "3.0"])
def test_a_newer_pytorch_is_accepted(installed):
    src.check_torch(installed)
