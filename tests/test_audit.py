"""`make audit` says what it asked about; where nobody could be asked it says that, and never that all is well."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BAD = {"name": "pip", "version": "24.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["25.3"]}]}
GOOD = {"name": "numpy", "version": "2.1.0", "vulns": []}
SKIPPED = {"name": "keras", "skip_reason": "Dependency not found"}


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answering(module, monkeypatch, probe, lock):
    monkeypatch.setattr(module, "audit", lambda text: (probe if text == module.PROBE else lock, ""))


@pytest.mark.parametrize(("required", "code"), [("", 0), ("required", 1)])
def test_a_service_that_knows_nothing_is_no_clean_bill(audit, monkeypatch, capsys, required, code):
    monkeypatch.setenv("AUDIT", required)
    answering(audit, monkeypatch, [{"name": "pip", "skip_reason": "Dependency not found"}], [SKIPPED])
    assert audit.main() == code
    assert "NOT DONE" in capsys.readouterr().out


def test_a_known_vulnerability_fails_and_is_named_with_its_mending(audit, monkeypatch, capsys):
    answering(audit, monkeypatch, [BAD], [GOOD, BAD | {"name": "pillow"}])
    assert audit.main() == 1
    assert "pillow 24.0: PYSEC-1, mended in 25.3" in capsys.readouterr().out


def test_what_was_not_asked_about_is_said(audit, monkeypatch, capsys):
    answering(audit, monkeypatch, [BAD], [GOOD, SKIPPED])
    assert audit.main() == 0
    out = capsys.readouterr().out
    assert "1 packages asked about, 0 with known vulnerabilities" in out
    assert "not asked about: keras" in out
