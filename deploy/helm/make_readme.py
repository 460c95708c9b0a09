"""The chart's README, from the comments of its values: `python deploy/helm/make_readme.py`. A test holds them equal."""

import re
from pathlib import Path

CHART = Path(__file__).parent / "parterre"
HEAD = """# Parterre's chart

A federation on Kubernetes: one server that keeps its runs on a volume, and as many clients as you scale to.

```console
$ helm install parterre deploy/helm/parterre
$ kubectl logs -f statefulset/parterre-server
```

That alone trains the digits task with three clients, over TLS, each client enrolled with a key of its own. How to
scale, roll out a task, upgrade, roll back and uninstall: [Kubernetes](../../../docs/how-to/kubernetes.md).

## Values

| value | default | what it is |
|---|---|---|
"""


def rows(text: str) -> list[str]:
    """Return a table row for each value with a comment `# -- ...` before it."""
    path: list[str] = []
    note, found = "", []
    for line in text.splitlines():
        if match := re.match(r"^ *# -- (.*)$", line):
            note = match[1]
        elif match := re.match(r"^( *)([A-Za-z]\w*):(.*)$", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if note:
                default = match[3].strip()
                shown = f"`{default}`" if default else "see values.yaml"
                found.append(f"| `{'.'.join(path)}` | {shown} | {note} |")
            note = ""
    return found


def readme() -> str:
    """Return the README's text."""
    return HEAD + "\n".join(rows((CHART / "values.yaml").read_text())) + "\n"


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
