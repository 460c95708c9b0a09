"""The images by themselves: sizes, a task of one's own both ways, signals, a read-only root file system."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import ROOT, Stack, engine

pytestmark = pytest.mark.docker

LARGEST = {"parterre-client": 1.6e9, "parterre-server": 1.9e9}
TASK = """
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(300, 4)).astype("float32")
y = (x.sum(axis=1) > 0).astype("int64")


def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_partition(partition, partitions):
    mine = slice(partition, None, partitions)
    return (x[mine], y[mine]), (x[mine][:10], y[mine][:10])
"""


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    engine()
    for role in ("server", "client"):
        command = [
            "docker",
            "build",
            "-q",
            "-f",
            "deploy/docker/Dockerfile",
            "--target",
            role,
            "-t",
            f"parterre-{role}",
            ".",
        ]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=1500)


def run(image: str, *arguments: str, entry: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp",
         "--entrypoint", entry, image, *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("overlay", ["", "task", "data", "tls", "dev", "monitoring"])
def test_compose_reads_its_files(overlay: str, tmp_path: Path) -> None:
    files = [f"compose.{overlay}.yaml"] if overlay else []
    Stack("parterre-config", *files, TASK="my_task", TASK_DIR=str(tmp_path), CERTS=str(tmp_path)).compose(
        "config", "-q"
    )


@pytest.mark.parametrize("image", LARGEST)
def test_an_image_is_as_small_as_the_page_says_and_labelled(image: str) -> None:
    found = engine().images.get(image)
    assert found.attrs["Size"] <= LARGEST[image]
    assert found.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert found.attrs["Config"]["User"] == "10001:10001"
    probe = ["client-ready"] if image == "parterre-client" else ["fl", "health", "server"]
    assert found.attrs["Config"]["Healthcheck"]["Test"] == ["CMD", *probe]


@pytest.mark.parametrize("image", LARGEST)
def test_an_image_has_what_its_role_imports_and_nothing_to_develop_with(image: str) -> None:
    program = (
        "import importlib.util as u, json; from fl_common.settings.schema import Settings;"
        "from fl_common.tasks.task import resolve;"
        "task = resolve(Settings(task='digits')); data = task.load_partition(0, 3)[0];"
        "names = 'pytest mypy ruff sklearn scipy matplotlib numba sqlalchemy'.split();"
        "print(json.dumps([len(data[0]), [n for n in names if u.find_spec(n)]]))"
    )
    done = run(image, "-c", program, entry="python")
    assert done.returncode == 0, done.stderr
    server = ["matplotlib", "numba", "sqlalchemy"] if image == "parterre-server" else []
    examples, found = json.loads(done.stdout.splitlines()[-1])
    assert examples > 300
    assert found == server


@pytest.mark.parametrize("user", ["10001:10001", "123456:0"])  # the image's own, and one that a platform chooses
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_process_that_is_the_containers_first_ends_on_sigterm_at_once(role: str, user: str) -> None:
    more = ["--server", "127.0.0.1:1"] if role == "client" else []
    container = engine().containers.run(
        f"parterre-{role}", [role, "--insecure", *more], user=user, detach=True, read_only=True, tmpfs={"/tmp": ""}
    )
    try:
        word = b"no connection" if role == "client" else b"server is up"
        for line in container.logs(stream=True, follow=True):
            if word in line:
                break
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0  # 137: it had to be killed
    finally:
        container.remove(v=True, force=True)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    tmp_path.chmod(0o755)  # the containers have a user of their own
    (tmp_path / "my_task.py").write_text(TASK)
    found = Stack(
        "parterre-task", "compose.task.yaml",
        FL_ROUNDS="2", FL_LOCAL_EPOCHS="1", TASK="my_task", TASK_DIR=str(tmp_path),
    )  # fmt: skip
    found.down()
    yield found
    found.down()


def test_a_task_of_ones_own_from_a_mounted_folder(stack: Stack) -> None:
    stack.up("--scale", "client=2")
    assert stack.wait("my_task")["rounds"] == 2


def test_a_task_of_ones_own_in_an_image_of_three_lines(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "my_own_task.py").write_text(TASK)
    for role in ("client", "server"):
        (tmp_path / "Dockerfile").write_text(
            f"FROM parterre-{role}\nCOPY my_own_task.py /task/\nENV FL_TASK=my_own_task\n"
        )
        stack.engine.images.build(path=str(tmp_path), tag=f"my-{role}", rm=True, forcerm=True)
    override = tmp_path / "compose.own.yaml"
    override.write_text(
        "services:\n  server: {image: my-server}\n  client: {image: my-client}\n"
        "  first-run: {image: my-server, environment: {FL_TASK: my_own_task}}\n"
    )
    own = Stack("parterre-own", str(override), FL_ROUNDS="2", FL_LOCAL_EPOCHS="1", RUN="my_own_task")
    try:
        own.up("--scale", "client=2", "--no-build")
        assert own.wait("my_own_task")["rounds"] == 2
    finally:
        own.down()
        for role in ("client", "server"):
            stack.engine.images.remove(f"my-{role}", force=True)
