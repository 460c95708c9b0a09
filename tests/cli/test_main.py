"""Bad input to every command: one line that starts with "error:", a non-zero exit code, and never a traceback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fl_common
import strategies
from fl_cli import options
from fl_cli.main import COMMANDS, main, register, wanted
from fl_cli.server import LOCK
from fl_common.settings.schema import Settings
from fl_server.store.disk.server_lock import alone
from fl_server.store.runs import Run, listing

ENTER = "from fl_cli.main import main; main()"
KEY = "FL_RUN_KEY"
QUICK = {"FLWR_TELEMETRY_ENABLED": "0"}


def fl(*arguments, directory, under="", **environment):
    """Run the command in a process of its own, away from this repository; `under` is what a shell does before."""
    known = {key: value for key, value in os.environ.items() if key == KEY or not key.startswith("FL_")}
    return subprocess.run(
        ["/bin/sh", "-c", f'{under}exec "$0" "$@"', sys.executable, "-c", ENTER, *map(str, arguments)],
        cwd=directory,
        env=known | QUICK | {"PYTHONPATH": str(Path(fl_common.__file__).parent.parent)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


NOWHERE = f"127.0.0.1:{unused_port()}"
UP = ("up", "--clients", "2", "--rounds", "1")
# what -> (arguments, exit code, what the message names)
BAD = {
    "an unknown setting": ((*UP, "--set", "local_epoch=2"), 2, "Did you mean local_epochs?"),
    "a setting that is no assignment": ((*UP, "--set", "rounds"), 2, "key=value"),
    "an ill-typed setting": ((*UP, "--set", "batch_size=many"), 2, "batch_size"),
    "a setting out of range": ((*UP, "--set", "fraction=1.5"), 2, "fraction"),
    "an infinite setting": ((*UP, "--set", "learning_rate=inf"), 2, "learning_rate"),
    "a seed out of range": ((*UP, "--seed", "-1"), 2, "seed"),
    "a floor above the clients": ((*UP, "--set", "min_clients=3", "--set", "partitions=0"), 2, "--clients"),
    "an unknown strategy": ((*UP, "--strategy", "fedavgg"), 2, "fedavg"),
    "a strategy that does not import": ((*UP, "--strategy", "no.such:Thing"), 2, "no.such"),
    "a strategy that is none": ((*UP, "--strategy", "json:JSONDecoder"), 2, "json:JSONDecoder"),
    "an argument the strategy lacks": ((*UP, "--set", "strategy.etta=1"), 2, "etta"),
    "an argument that a chosen strategy lacks": (
        (*UP, "--strategy", "krum", "--set", "quux=1"),
        2,
        "'quux' is neither a setting nor an argument of krum. Did you mean quorum? krum takes: clients_per_round, f, ",
    ),
    "a strategy's file that is not there": ((*UP, "--strategy", "./none.py:Mine"), 2, "none.py"),
    "a task file that is no Python": ((*UP, "--task", "./file.py"), 2, "file.py, line 1"),
    "a run's task file that is no Python": (("run", "--server", NOWHERE, "--task", "./file.py"), 2, "line 1"),
    "an unknown task": ((*UP, "--task", "digitz"), 2, "digits"),
    "a task file that is not there": ((*UP, "--task", "./none.py"), 2, "none.py"),
    "a directory that holds a run": ((*UP, "--out", "old"), 1, "already holds a run"),
    "a directory that is a file": ((*UP, "--out", "file/run"), 1, "file"),
    "a config that is not there": ((*UP, "--config", "none.toml"), 2, "none.toml"),
    "a config that is no TOML": ((*UP, "--config", "file"), 2, "file"),
    "a run's unknown setting": (("run", "--server", NOWHERE, "--set", "seeed=1"), 2, "seed"),
    "a run's task file that is not there": (("run", "--server", NOWHERE, "--task", "./none.py"), 2, "none.py"),
    "a client's nonsensical server": (("client", "--server", "nonsense"), 1, "HOST:PORT"),
    "a client's missing data": (("client", "--server", NOWHERE, "--data", "none.npz"), 2, "none.npz"),
    "a client's missing certificate": (
        ("client", "--server", NOWHERE, "--root-certificates", "none.pem"),
        1,
        "none.pem",
    ),
    "a client's missing task": (("client", "--server", NOWHERE, "--task", "./none.py"), 2, "none.py"),
    "a run to resume that is not there": (("resume", "none"), 1, "none"),
    "a resumed run's strategy": (("resume", "old", "--set", "strategy=fedadam"), 2, "strategy cannot change"),
    "a resumed run's unknown setting": (("resume", "old", "--set", "round=3"), 2, "Did you mean rounds?"),
    "a run to plot that is not there": (("plot", "none"), 1, "none"),
    "a run to export that is not there": (("export", "none"), 1, "none"),
    "a run to show that is not there": (("runs", "show", "none"), 1, "none"),
    "a server's port in use": (("server", "--fleet-port", "TAKEN"), 1, "cannot listen on 127.0.0.1:"),
    "a server's store that is a file": (("server", "--store", "file"), 1, "file"),
}
MISUSED = {
    "an unknown command": ("upp",),
    "an unknown option": ("up", "--client", "2", "--nonsense"),
    "no client": ("up", "--clients", "0"),
    "clients in words": ("up", "--clients", "two"),
    "rounds in words": ("up", "--rounds", "many"),
    "no run to resume": ("resume",),
    "an unknown format": ("export", "old", "--format", "pickle"),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    Run.create(directory / "old", Settings())
    for name in ("file", "file.py"):
        (directory / name).write_text("rounds = = 3\n")
    return directory


@pytest.fixture(scope="module")
def taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


@pytest.fixture
def fl_here(directory, taken, monkeypatch, capfd):
    """Run the command in this process: what would take an interpreter's start takes nothing."""

    def run(arguments):
        monkeypatch.chdir(directory)
        monkeypatch.setattr(sys, "argv", ["fl", *(taken if word == "TAKEN" else word for word in arguments)])
        for key in [key for key in os.environ if key.startswith("FL_") and key != KEY]:
            monkeypatch.delenv(key)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_that_names_it(fl_here, directory, what):
    arguments, expected, named = BAD[what]
    code, out, err = fl_here(arguments)
    assert code == expected, err
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert "Traceback" not in out
    assert sorted(path.name for path in directory.iterdir() if path.name != "runs") == ["file", "file.py", "old"]
    assert listing(directory / "runs") == []  # found before a run began


def test_a_second_server_on_a_store_is_refused_before_it_makes_a_certificate_or_a_credential(fl_here, tmp_path):
    home = options.home_of(tmp_path / "store")
    home.mkdir(parents=True)
    with alone(home / LOCK, "the store"):
        code, _, err = fl_here(("server", "--store", str(tmp_path / "store")))
        assert [path.name for path in home.iterdir()] == [LOCK]
    assert (code, err.count("\n")) == (1, 1)
    assert f"is in use by another server (process {os.getpid()})" in err


@pytest.mark.parametrize("what", MISUSED)
def test_misuse_shows_the_usage_and_no_traceback(fl_here, what):
    code, _, err = fl_here(MISUSED[what])
    assert code == 2
    assert "Usage" in err
    assert "Traceback" not in err


def test_a_run_without_a_server_says_so_in_a_process_of_its_own(tmp_path):
    done = fl("run", "--server", NOWHERE, directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no server in" in done.stderr  # nor a credential to show to one elsewhere
    done = fl("run", "--server", NOWHERE, "--insecure", directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: no server answers at {NOWHERE}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("up", "--out", "run"), ("server", "--store", "s"), ("client", "--state", "c"), ("certs", "init")]
)
def test_a_disk_that_takes_nothing_is_said_in_one_line_whatever_is_started(tmp_path, arguments):
    done = fl(*arguments, directory=tmp_path, under="ulimit -f 0; ")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: cannot ")
    assert "File too large" in line or "larger than this process may write" in line


def test_the_names_of_our_strategies_are_known_without_importing_them():
    assert set(options.STRATEGIES) == set(strategies.BUILT_IN)


def test_settings_come_from_the_environment(tmp_path):
    done = fl("up", "--rounds", "1", directory=tmp_path, FL_BATCH_SIZE="many")
    assert (done.returncode, done.stderr.splitlines()[0][:19]) == (2, "error: batch_size: ")
    done = fl("client", directory=tmp_path, FL_SERVER="nonsense")
    assert "got 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    "command", ["up", "simulate", "server", "client", "run", "resume", "runs", "plot", "compare", "export"]
)
def test_every_command_explains_itself(tmp_path, command):
    shown = CliRunner().invoke(register(), [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_the_version_is_the_packages(tmp_path):
    done = fl("--version", directory=tmp_path)
    assert done.stdout == f"parterre {fl_common.__version__}\n"


def test_only_the_command_that_is_named_is_imported():
    assert list(wanted(["health", "server"])) == ["health"]
    assert list(wanted(["--help"])) == list(COMMANDS)
    assert list(wanted(["serve"])) == list(COMMANDS)  # so that a misspelt command finds its neighbours
