"""Known vulnerabilities of what requirements.lock names, by pip-audit; or a plain word that nobody could be asked.

pip-audit says "no known vulnerabilities found" also where the service knows none of the packages it was asked about, as
on a machine whose index is a mirror. So one package is asked about first, and what was skipped is never taken for safe.
AUDIT=required makes it an error where the service does not answer.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
TOOL = "pip-audit==2.10.1"  # not in the lock: it would bring more packages than the project's own tools together
PROBE = "pip==24.0"  # has known vulnerabilities: a service that knows none of them is no service
SECONDS = 300


def main() -> int:
    """Return 0 where nothing is known, or where nothing could be asked and that is allowed; 1 otherwise."""
    probe, why = audit(PROBE)
    if not any(each.get("vulns") for each in probe):
        print(f"pip-audit: NOT DONE. The vulnerability service does not answer here ({why or 'it knows no package'}).")
        print("           Run `make audit` where it does.")
        return 1 if os.environ.get("AUDIT") == "required" else 0
    found, why = audit(LOCK.read_text())
    if not found:
        print(f"pip-audit: it failed: {why}")
        return 1
    for each in found:
        for vulnerability in each.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {fixed}")
    skipped = [each["name"] for each in found if "skip_reason" in each]
    bad = [each["name"] for each in found if each.get("vulns")]
    print(f"pip-audit: {len(found) - len(skipped)} packages asked about, {len(bad)} with known vulnerabilities")
    if skipped:
        print(f"           not known to the service, so not asked about: {', '.join(skipped)}")
    return 1 if bad else 0


def audit(requirements: str) -> tuple[list[dict[str, object]], str]:
    """Return pip-audit's report by package, and the end of what it said where there is none."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [str(Path(sys.executable).parent / "uv"), "tool", "run", "--quiet", TOOL, "--requirement", file.name]
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
        try:
            done = subprocess.run(  # noqa: S603 - the command is this file's own
                [*command, *options], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return [], str(error)
    try:
        return list(json.loads(done.stdout)["dependencies"]), ""
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["no output"])[-1][:200]


if __name__ == "__main__":
    sys.exit(main())
