"""Whatever a record says, what a report writes is text: nothing is a formula, a command, a tag, a link or an escape."""

import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import one_line, printable
from cissod_bench.evaluation import METRICS
from cissod_bench.leaderboard.figures import style
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.leaderboard.table import Cell, Column, Table
from cissod_bench.leaderboard.writers import comma_separated, html_table, latex, markdown
from cissod_bench.results.record import write_result
from tests.leaderboard.runs import make_record

HOSTILE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b\n\n# heading\r\n| x",
    "[link](javascript:alert(1))",
    "![x](http://x)",
    "`code`",
    "\\input{/etc/passwd}",
    "a}b{c$d^e~f#g%h&i_j",
    "[red]marked[/red]",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b2J",
    "\u202egnp.exe",
    "&lt;b&gt;",
    "../../x",
    "/etc/x",
    "..",
    "\ufeffmine",
    "m\ufffe\uffffe",
    "x" * 5_000,
]


def table(text: str) -> Table:
    columns = (Column("method", "Method"), Column("ap", text, text, "metric"))
    return Table(text, text, text, columns, ((Cell(text), Cell(0.5)),), 1, (text,))


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_csv(text: str) -> None:
    (cell,) = (row[0] for row in list(csv.reader(io.StringIO(comma_separated(table(text)))))[1:])
    assert cell.removeprefix("'") == text
    assert not re.match(r"\s*[=+@-]", cell)


def test_plain_numbers_stay_numbers_in_csv() -> None:
    numbers = ("-1.5", "+2", "1e-3", "-7")
    made = Table("t", "t", "", (Column("a", "a"),), tuple((Cell(number),) for number in numbers), 0)
    assert [row[0] for row in csv.reader(io.StringIO(comma_separated(made)))][1:] == list(numbers)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown(text: str) -> None:
    lines = markdown(table(text)).split("\n")
    assert [line[:2] for line in lines if line] == ["##", "| ", "| ", "| ", lines[6][:2], "- "]
    assert len(lines) == 10
    for line in lines[2:5]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3  # two cells
    for line in lines:
        assert not re.search(r"<[A-Za-z/!?]", line)
        assert not re.search(r"(?<!\\)\[|(?<!\\)`", line)
        assert line.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_latex(text: str) -> None:
    made = latex(table(text))
    assert re.fullmatch(r"[A-Za-z0-9.+=-]*", re.search(r"\\label\{tab:(.*?)\}", made)[1])  # type: ignore[index]
    commands = set(re.findall(r"\\([A-Za-z]+)", made))
    assert commands <= {
        "begin", "centering", "caption", "label", "toprule", "multicolumn", "cmidrule", "midrule", "textbf",
        "bottomrule", "end", "par", "footnotesize", "textbackslash", "underline",
    }  # fmt: skip
    assert "^^" not in made
    depth = 0
    for letter in re.sub(r"\\[\\{}]", "", made):
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert depth == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_html(text: str) -> None:
    tags = Tags(html_table(table(text)))
    allowed = {"table", "caption", "thead", "tr", "th", "tbody", "td", "strong", "u", "ul", "li"}
    assert {tag for tag, _ in tags.found} <= allowed
    assert all(set(attributes) <= {"id", "scope", "colspan", "data-order"} for _, attributes in tags.found)
    assert printable(text) in tags.text.replace("\n", "\n")


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text])
def test_a_whole_report_of_hostile_names_stays_in_its_folder(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "KINDS", ("svg",))  # PNG and PDF hold no text that anything would read as markup
    victim = tmp_path / "x"
    runs = tmp_path / "deep" / "er" / "runs"
    for seed in (0, 1):
        record = make_record(
            task=text, method=text, method_options={text: text}, detector=text, schedule=text, train_seed=seed,
            ap={"all": 0.2, text: 0.3},
        )  # fmt: skip
        write_result(runs / str(seed) / "result.json", record)
        lines = [{"step": step, "all/AP": 0.1, f"{text}/AP": 0.2} for step in (1, 2)]
        (runs / str(seed) / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "deep" / "er" / "out"
    files = write_report(make_report([runs]), out)
    assert set(tmp_path.rglob("*")) - before == {out, *files}
    assert all(path.parent == out and len(path.name) < 200 for path in files)
    assert not victim.exists()
    tags = Tags((out / "index.html").read_text())
    scripts = [attributes for tag, attributes in tags.found if tag == "script"]
    data = [attributes for attributes in scripts if attributes == {"type": "application/json"}]
    assert len(data) == len(METRICS)
    assert [attributes for attributes in scripts if attributes not in data] == [{}, {"type": "module"}]
    assert not [attributes for _, attributes in tags.found if any(name.startswith("on") for name in attributes)]
    assert not [tag for tag, _ in tags.found if tag in ("img", "b")]
    assert all(re.match(r"#|\./|data:,", attributes["href"]) for _, attributes in tags.found if "href" in attributes)
    figures = [attributes for tag, attributes in tags.found if tag == "svg"]
    assert len(figures) == 2  # by group, and over iterations
    assert all("xlink:href" not in attributes for _, attributes in tags.found)
    for texts in re.findall(r'<script type="application/json">(.*?)</script>', (out / "index.html").read_text()):
        assert all(re.fullmatch(r"[A-Za-z0-9.+=-]+\.(csv|tex)", name) for name in json.loads(texts))


@pytest.mark.parametrize("text", ["\ufeffmine", "m\ufffee", "\uffff", "\u202e"])
def test_no_letter_stops_the_figures(tmp_path: Path, text: str) -> None:
    write_result(tmp_path / "runs" / "0" / "result.json", make_record(ap={"all": 0.2, text: 0.3}))
    files = write_report(make_report([tmp_path / "runs"]), tmp_path / "out")
    assert {path.suffix for path in files} >= {".pdf", ".png", ".svg", ".html"}


def test_a_folder_called_like_a_protocol_is_a_folder_in_links(tmp_path: Path) -> None:
    folder = tmp_path / "javascript:alert(1)"
    record = make_record()
    record = type(record)(key=record.key, metrics=record.metrics, groups=record.groups, files={"config": "config.py"})
    write_result(folder / "result.json", record)
    (folder / "config.py").write_text("x = 1\n")
    write_report(make_report([folder]), tmp_path, overwrite=True)
    links = [attributes["href"] for tag, attributes in Tags((tmp_path / "index.html").read_text()).found if tag == "a"]
    assert "./javascript%3Aalert%281%29/config.py" in links
    assert not [link for link in links if link.startswith("javascript")]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_terminal_gets_no_control_characters(tmp_path: Path, text: str) -> None:
    write_result(tmp_path / "runs" / "0" / "result.json", make_record(task=text, method=text))
    (tmp_path / "runs" / "1").mkdir()
    (tmp_path / "runs" / "1" / "result.json").write_text(json.dumps({"schema_version": text, "key": {}}))
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "runs")])
    assert shown.exit_code == 0
    assert all(line.isprintable() for line in re.split("[\n\t]", shown.output))
    if len(text) < 50:
        squeezed = re.sub(r"\s", "", shown.output)
        assert re.sub(r"\s", "", one_line(text)) in squeezed


def test_an_error_message_gets_none_either(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cissod_bench.cli.main", "report", str(tmp_path / "\x1b[31mred")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 2
    assert "\\x1b[31mred: no such folder" in shown.stderr
    assert "\x1b" not in shown.stderr
