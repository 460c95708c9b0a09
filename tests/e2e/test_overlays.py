"""Each overlay of `compose.yaml`, run: data of the clients' own, certificates of one's own, the source, monitoring."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_common.tasks.builtin import digits
from tests.e2e.test_images import TASK
from tests.support.stack import ROOT, Stack, engine, until

pytestmark = pytest.mark.docker

SHORT = {"FL_ROUNDS": "3", "FL_LOCAL_EPOCHS": "2", "FL_MIN_CLIENTS": "3"}
PROMETHEUS = "parterre-test-prometheus"


@pytest.fixture
def stacks() -> Iterator[list[Stack]]:
    """Return a list of stacks that are taken down in the end."""
    begun: list[Stack] = []
    yield begun
    for stack in begun:
        stack.down()
        if stack.engine.images.list(PROMETHEUS):
            stack.engine.images.remove(PROMETHEUS)


def started(
    stacks: list[Stack], name: str, *overlays: str, services: tuple[str, ...] = (), **environment: str
) -> Stack:
    stack = Stack(f"parterre-{name}", *overlays, **(SHORT | environment))
    stacks.append(stack)
    stack.down()
    stack.compose("build")
    stack.up(*services)
    return stack


def test_each_client_trains_on_a_folder_of_its_own(stacks: list[Stack], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (x, y), _ = digits.load()
    sizes = {"site-a": 300, "site-b": 400, "site-c": 500}
    for site, size in sizes.items():
        written(tmp_path / site, x[:size], y[:size])
    stack = started(stacks, "data", "compose.data.yaml", DATA_DIR=str(tmp_path))
    assert stack.wait("digits")["rounds"] == 3
    assert [event["cohort"] for event in stack.events("digits", "round")] == [3] * 3
    assert not stack.containers("client", all=True)
    for site, size in sizes.items():
        (container,) = stack.containers(site)
        held = container.exec_run(["sh", "-c", "ls /data; wc -l < /data/data.csv"]).output.decode().split()
        assert held == ["data.csv", str(size + 1)]


def test_a_task_of_ones_own_trains_on_the_clients_own_folders(stacks: list[Stack], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "my_task.py").write_text(TASK)
    rng = np.random.default_rng(0)
    for site in ("site-a", "site-b", "site-c"):
        x = rng.normal(size=(90, 4))
        written(tmp_path / site, x, x.sum(axis=1) > 0)
    stack = started(
        stacks, "data-task", "compose.task.yaml", "compose.data.yaml", "compose.data-task.yaml",
        DATA_DIR=str(tmp_path), TASK="my_task", TASK_DIR=str(tmp_path / "tasks"),
    )  # fmt: skip
    assert stack.wait("my_task")["rounds"] == 3
    assert [event["replies"] for event in stack.events("my_task", "round")] == [3] * 3


def written(folder: Path, x: Any, y: Any) -> None:
    """Write examples as a site's csv file."""
    folder.mkdir()
    names = ",".join(f"x{number}" for number in range(x.shape[1]))
    np.savetxt(folder / "data.csv", np.column_stack([x, y]), "%g", ",", header=f"{names},label", comments="")


def test_certificates_of_ones_own_are_what_the_server_shows(stacks: list[Stack], tmp_path: Path) -> None:
    certificates(tmp_path)
    stack = started(stacks, "tls", "compose.tls.yaml", CERTS=str(tmp_path))
    assert stack.wait("digits")["rounds"] == 3
    program = "import ssl; print(ssl.get_server_certificate(('server', 9092)))"
    shown = stack.containers("client")[0].exec_run(["python", "-c", program]).output.decode()
    assert shown.split() == (tmp_path / "server.crt").read_text().split()[: len(shown.split())]
    assert stack.run("--rounds", "1")["rounds"] == 1  # through Control, by the same certificate


def certificates(folder: Path) -> None:
    """Make a CA and a certificate of it for the names server and control with openssl, as a person's own would be."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates that are not ours")
    (folder / "names").write_text("subjectAltName=DNS:server,DNS:control,DNS:localhost,IP:127.0.0.1\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Somebody's CA", "-days", "2")
    openssl("req", *curve, "-keyout", "server.key", "-out", "request", "-subj", "/CN=server")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "names")
    openssl("x509", "-req", "-in", "request", "-out", "server.crt", *signed)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o600 if file.name == "server.key" else 0o644)
    os.chown(folder / "server.key", 10001, 10001)


def test_the_source_takes_the_place_of_what_the_images_hold(stacks: list[Stack]) -> None:
    stack = started(stacks, "dev", "compose.dev.yaml")
    assert stack.wait("digits")["rounds"] == 3
    for container in (stack.server, stack.containers("client")[0]):
        found = container.exec_run(["python", "-c", "import fl_common; print(fl_common.__file__)"]).output.decode()
        assert found.strip() == "/src/fl_common/__init__.py"


def test_prometheus_scrapes_the_server_and_every_client(stacks: list[Stack], tmp_path: Path) -> None:
    prometheus(tmp_path)
    services = ("server", "client", "first-run", "prometheus")  # Grafana's image is nowhere to be had here
    stack = started(
        stacks, "monitoring", "compose.monitoring.yaml", services=services, PROMETHEUS_IMAGE=PROMETHEUS
    )  # fmt: skip
    assert stack.wait("digits")["rounds"] == 3
    until(lambda: targets(stack) == ["client"] * 3 + ["server"], "four targets that are up")
    until(lambda: value(stack, "parterre_rounds_total") == 3, "three rounds to be scraped")
    assert value(stack, "parterre_connected_clients") == 3
    assert 0.1 < value(stack, "parterre_accuracy") <= 1
    assert len(asked(stack, "parterre_client_connected == 1")) == 3
    panels = [query for query in queries() if not query.startswith("changes(")]  # which marks the start of a run
    until(lambda: not [query for query in panels if not asked(stack, query)], "each panel to show something")
    rules = json.loads(fetched(stack, "rules"))["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def targets(stack: Stack) -> list[str]:
    return sorted(each["metric"]["job"] for each in asked(stack, "up == 1"))


def queries() -> list[str]:
    """Return the queries of the dashboard, as Prometheus takes them where Grafana has filled in its variables."""
    import runpy

    made = runpy.run_path(str(ROOT / "deploy" / "monitoring" / "make_dashboard.py"))["queries"]()
    return [query.replace("$__rate_interval", "1m").replace("$__interval", "1m") for query in made]


def asked(stack: Stack, query: str) -> list[Any]:
    from urllib.parse import quote

    answer = json.loads(fetched(stack, f"query?query={quote(query)}"))
    assert answer["status"] == "success", (query, answer)
    return list(answer["data"]["result"])


def value(stack: Stack, query: str) -> float:
    """Return the newest value of a query that has one series, or the largest of several; -1 where there is none."""
    return max([-1.0, *(float(each["value"][1]) for each in asked(stack, query))])


def fetched(stack: Stack, path: str) -> str:
    """Ask Prometheus's API from the server's container, which shares a network with it."""
    program = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
        "except urllib.error.HTTPError as error: print(error.read().decode())"
    )
    done = stack.server.exec_run(["python", "-c", program, f"http://prometheus:9090/api/v1/{path}"])
    return str(done.output.decode()) if done.exit_code == 0 else '{"status": "success", "data": {"result": []}}'


def prometheus(folder: Path) -> None:
    """Build an image of Debian's Prometheus in the place of the official one; check our files with its promtool."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("Debian's package prometheus takes the place of an image that no registry gives here; no apt-get")
    done = subprocess.run(
        ["apt-get", "download", "prometheus"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"Debian's package prometheus is not to be had: {done.stderr.strip()}")
    (package,) = folder.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "files")], check=True)
    for file in ("prometheus.yml", "rules.yml"):
        shutil.copy(ROOT / "deploy" / "monitoring" / file, folder / file)
    tool = folder / "files" / "usr" / "bin" / "promtool"
    subprocess.run([str(tool), "check", "config", "prometheus.yml"], cwd=folder, check=True, capture_output=True)
    (folder / "Dockerfile").write_text(
        "FROM python:3.11-slim-bookworm\n"
        "COPY files/usr/bin/prometheus /bin/prometheus\n"
        "RUN mkdir /prometheus && chown 65534:65534 /prometheus\n"
        'USER 65534:65534\nVOLUME /prometheus\nENTRYPOINT ["/bin/prometheus"]\n'
    )
    engine().images.build(path=str(folder), tag=PROMETHEUS, rm=True, forcerm=True)
