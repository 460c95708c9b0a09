"""The documentation agrees with the code: generated pages, links, commands, settings, and the README's own task."""

import re
import runpy
from pathlib import Path

import pytest

from fl_cli.main import COMMANDS
from fl_client.training.trainer import LocalTrainer
from fl_common.models.weights import weights_of
from fl_common.settings.schema import Settings
from fl_common.tasks.task import resolve
from strategies import BUILT_IN, argument_names
from strategies.replies import REASONS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EVENTS = ROOT / "docs" / "reference" / "events.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATOR = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
FLOWERS = ("flwr.serverapp.strategy:Krum", "flwr.serverapp.strategy:FedTrimmedAvg")


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, language):
    return [text for kind, text in BLOCK.findall(path.read_text()) if kind == language]


def code(path):
    """Return what a page shows as commands: its console blocks and what stands in backquotes."""
    text = path.read_text()
    outside = BLOCK.sub("", text)
    return "\n".join([*blocks(path, "console"), *blocks(path, "bash"), *re.findall(r"`([^`\n]+)`", outside)])


def slug(heading):
    """Return a heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)}


@pytest.mark.parametrize("file", GENERATOR["PAGES"])
def test_a_generated_page_is_as_the_code_makes_it(file):
    page = ROOT / "docs" / "reference" / file
    assert page.read_text() == GENERATOR["PAGES"][file](), "run `python docs/make_reference.py`"


def test_every_setting_stands_in_a_group():
    listed = [field for _, names in GENERATOR["groups"]() for field in names]
    assert listed == list(Settings.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [link.partition("#")[0] for link in LINK.findall(page.read_text()) if not re.match(r"\w+:", link)]
        waiting += [(page.parent / link).resolve() for link in links if link and (page.parent / link).is_file()]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_settings_that_a_page_names_exist(page):
    text = code(page)
    assert set(re.findall(r"^(?:\$ )?fl ([a-z]+)", text, re.MULTILINE)) <= set(COMMANDS)
    arguments = set().union(*(argument_names(strategy) for strategy in (*BUILT_IN, *FLOWERS)))
    named = {key.replace("-", "_") for key in re.findall(r"--set (?:strategy\.)?([a-z_0-9-]+)=", text)}
    assert named <= {*Settings.model_fields, *arguments, "key", "name", "step_size"}


def test_no_page_names_a_host_of_packages():
    assert not [name(page) for page in PAGES if re.search(r"pypi|pythonhosted|--index-url", page.read_text())]


def test_the_events_page_names_every_reason_of_a_rejection():
    assert all(f"`{reason}`" in EVENTS.read_text() for reason in (*REASONS, "late"))


def test_the_task_of_the_readme_trains_a_batch(tmp_path):
    (snippet,) = blocks(README, "python")
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 15
    path = tmp_path / "task_of_the_readme.py"
    path.write_text(snippet)
    settings = Settings(task=str(path), batch_size=64)
    task = resolve(settings)
    train, validation = task.load_partition(0, 3)
    trainer = LocalTrainer(task, settings)
    before = weights_of(trainer.model)
    result = trainer.train(before, train, round=1, client=0)
    assert len(train[0]) <= settings.batch_size
    assert result.examples == len(train[0]) == 34
    assert any((result.arrays[key] != before[key]).any() for key in before)
    assert trainer.evaluate(result.arrays, validation).metrics["loss"] > 0
    assert task.load_test is not None
    assert len(task.load_test()[0]) == 30
