"""The direction of imports: read from every module's syntax tree, so that it holds inside functions as well."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "fl_common": set(),
    "strategies": {"fl_common"},
    "fl_client": {"fl_common"},
    "fl_server": {"strategies", "fl_common"},
    "fl_simulation": {"fl_client", "fl_server", "strategies", "fl_common"},
    "parterre": {"fl_simulation", "fl_client", "fl_server", "strategies", "fl_common"},
    "fl_cli": {"parterre", "fl_simulation", "fl_client", "fl_server", "strategies", "fl_common"},
}
MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
PUBLIC_FLOWER = ("flwr.app", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.clientapp", "flwr.simulation")
OF_FLOWERS_INTERNALS = ("fl_server/superlink/", "fl_client/link/", "fl_simulation/flower/")
FRAMEWORKS = "fl_common/models/frameworks.py"
# It teaches tf.vectorized_map an operation: TensorFlow has no public name for that.
PFOR = "fl_simulation/engine/ways/missing_ops.py"
HEAVY = ("tensorflow", "keras", "flwr", "matplotlib")


def imported(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module)
    return names


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_package_has_modules():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_one_way(path):
    own = path.relative_to(ROOT).parts[0]
    ours = roots(imported(path)) & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[own] | {own}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_module_imports_the_tests_or_the_benchmarks(path):
    assert not roots(imported(path)) & {"tests", "benchmarks", "examples", "pytest", "hypothesis"}


def test_flowers_internals_are_used_in_their_rooms_alone():
    users = {
        relative(path)
        for path in MODULES
        if any(name.partition(".")[0] == "flwr" and name not in PUBLIC_FLOWER for name in imported(path))
    }
    assert not {path for path in users if not path.startswith(OF_FLOWERS_INTERNALS)}


def test_tensorflow_and_keras_are_imported_in_one_place():
    users = {relative(path) for path in MODULES if roots(imported(path)) & {"tensorflow", "keras"}}
    assert users == {FRAMEWORKS, PFOR}


def test_nothing_pickles():
    assert not [relative(path) for path in MODULES if roots(imported(path)) & {"pickle", "dill", "cloudpickle"}]


def test_the_help_imports_nothing_heavy():
    program = (
        "import sys, fl_cli.main\n"
        "sys.argv = ['fl', '--help']\n"
        "try:\n    fl_cli.main.main()\n"
        "finally:\n"
        f"    print('heavy:', *[name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Federated learning for Keras models" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


@pytest.mark.parametrize(
    "module",
    ["fl_common.settings.schema", "fl_common.messages.arrays", "fl_server.store.runs", "strategies", "fl_cli.up"],
)
def test_what_reads_settings_runs_and_strategies_knows_no_tensorflow(module):
    program = f"import sys, {module}; print(*[name for name in ('tensorflow', 'keras') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
