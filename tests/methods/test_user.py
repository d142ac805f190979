"""Methods from files and entry points: what loads, and what an error names."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.create import template
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.methods import user
from cissod_bench.methods.base import MethodConfig, fixed_threshold
from cissod_bench.methods.registry import METHODS, get_method
from cissod_bench.ssod.source_file import import_file
from tests.methods.plain import CONTEXT

GOOD = """
import msgspec
from cissod_bench.methods.base import Method, MethodConfig

METHOD = Method(name="mine", family="own", title="a title", citation="nobody")


class Options(msgspec.Struct, frozen=True):
    value: float = 0.5


def configure(context, options):
    return MethodConfig(labeled_repeat=options.value)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def test_a_file_is_a_method_with_options_and_a_digest(file: Path) -> None:
    file.write_text(GOOD)
    method = get_method(str(file))
    assert (method.name, method.file, method.package) == ("mine", file, None)
    expected = MethodConfig(labeled_repeat=0.25, threshold=fixed_threshold(CONTEXT, None))
    assert method.configure(CONTEXT, method.options({"value": "0.25"})) == expected
    with pytest.raises(UserError, match=r"option of method 'mine'.*Did you mean 'value'"):
        method.options({"valu": 1})
    with pytest.raises(UserError, match=r"Option of method 'mine': Expected `float`"):
        method.options({"value": "much"})
    assert get_method(str(file)) == method
    assert "__pycache__" not in {path.name for path in file.parent.iterdir()}

    file.write_text(GOOD.replace("0.5", "0.7"))
    edited = get_method(str(file))
    assert edited.digest != method.digest
    assert edited.configure(CONTEXT, edited.options({})).labeled_repeat == 0.7
    assert method.configure(CONTEXT, method.options({})).labeled_repeat == 0.5, "the first one is what it was"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("METHOD = ", "LINE = ", r"mine.py: a .* file defines METHOD, Options, configure; it lacks METHOD\. `cissod"),
        ("def configure", "def config", r"it lacks configure\."),
        ("class Options", "class Option", r"it lacks Options\."),
        ('METHOD = Method(name="mine", ', "METHOD = dict(", r"METHOD is of type dict, not a .*Method"),
        ("METHOD = Method", 'METHOD = "mine"  #', r"METHOD is of type str"),
        ('name="mine"', 'name="gbs"', r"METHOD.name 'gbs' is a built-in method's name. Choose another"),
        ('name="mine"', 'name="my/method"', r"METHOD.name is 'my/method'; use small letters"),
        ("(msgspec.Struct, frozen=True)", "", r"Options is the class Options, not a sub-class of msgspec.Struct"),
        ("value: float = 0.5", "value: float", r"Options.value has no default value"),
        ("def configure", "configure = 3\n\n\ndef other", r"configure is of type int"),
        ("import msgspec", "import msgspec\n\n1 / 0", r"mine.py, line 4: ZeroDivisionError: division by zero"),
        ("def configure(", "def configure(:", r"mine.py, line 12: SyntaxError"),
        ("import msgspec", "import helpers_of_mine", r"mine.py, line 2: ModuleNotFoundError: .*helpers_of_mine"),
        ("import msgspec", "import msgspec\nraise SystemExit(1)", r"mine.py, line 3: SystemExit"),
        ('name="mine", ', "", r"mine.py, line 5: TypeError: .*name"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(file: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    file.write_text(GOOD.replace(before, after))
    with pytest.raises(UserError, match=message):
        get_method(str(file))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.py: cannot be read \(No such file"):
        get_method(str(tmp_path / "nowhere.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError, match=r"folder.py: cannot be read \(Is a directory"):
        get_method(str(tmp_path / "folder.py"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {'labeled_repeat': 1}", r"mine.py: configure\(\) returned dict, not a MethodConfig"),
        ("pass", r"configure\(\) returned NoneType"),
        ("return MethodConfig(labelled_repeat=1)", r"mine.py, line 13: TypeError: .*labelled_repeat"),
        ("return MethodConfig(labeled_repeat=context.no_such)", r"mine.py, line 13: AttributeError: .*no_such"),
    ],
)
def test_what_goes_wrong_in_configure_is_named(file: Path, body: str, message: str) -> None:
    file.write_text(GOOD.replace("return MethodConfig(labeled_repeat=options.value)", body))
    method = get_method(str(file))
    with pytest.raises(UserError, match=message):
        method.configure(CONTEXT, method.options({}))


def test_a_file_of_version_0_1_is_told_what_to_rename(file: Path) -> None:
    """Its classes load all the same: a run folder of that time holds a copy."""
    file.write_text(
        GOOD.replace("methods.base import Method, MethodConfig", "methods.method import Method, Parts, Setting")
        .replace("def configure(context", "def parts(setting")
        .replace("MethodConfig(", "Parts(")
    )
    with pytest.raises(UserError, match=r"mine.py: written for version 0.1. Rename parts\(.* MethodConfig"):
        get_method(str(file))
    assert import_file(file).METHOD.name == "mine"


def entry(name: str, value: str, package: str = "mine 1.2") -> Any:
    title, version = package.split()
    return SimpleNamespace(name=name, value=value, dist=SimpleNamespace(name=title, version=version))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put modules where Python finds them, and entry points where this program does."""

    def doing(*entries: Any, **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: [e for e in entries if group == user.GROUP]
        )

    return doing


def test_an_installed_method_is_found_by_its_entry_point(install: Any, tmp_path: Path) -> None:
    install(entry("mine", "installed_mine"), installed_mine=GOOD)
    method = get_method("mine")
    assert (method.module, method.package, method.file) == (
        "installed_mine",
        "mine 1.2",
        tmp_path / "installed_mine.py",
    )
    assert method.digest
    assert method.configure(CONTEXT, method.options({})).labeled_repeat == 0.5
    with pytest.raises(UserError, match=r"Unknown method 'mne'. Did you mean 'mine'\?.*gbs, mine"):
        get_method("mne")


def test_installed_methods_are_listed_without_importing_them(install: Any) -> None:
    install(entry("mine", "no_such_module"), entry("gbs", "no_such_module"))
    rows = json.loads(CliRunner().invoke(app, ["list", "methods", "--json"], catch_exceptions=False).stdout)
    titles = {row["name"]: row["title"] for row in rows if row["family"] == "installed"}
    assert titles["mine"] == "no_such_module, of the installed package mine 1.2"
    assert titles["gbs"].startswith("NOT USED, a built-in method has this name")
    assert get_method("gbs") is METHODS["gbs"]


def test_wrong_entry_points_are_named(install: Any) -> None:
    install(
        entry("other", "named_otherwise"), entry("gone", "no_such_module"), entry("builtin", "math"),
        entry("lacking", "lacks_configure"), named_otherwise=GOOD,
        lacks_configure=GOOD.replace("def configure", "def config"),
    )  # fmt: skip
    for name, message in (
        ("other", r"entry point other = named_otherwise of mine 1.2: .* calls its method 'mine'"),
        ("gone", r"entry point gone = no_such_module of mine 1.2: ModuleNotFoundError"),
        ("builtin", r"entry point builtin = math .* is not Python source"),
        ("lacking", r"lacks_configure.py: .* it lacks configure"),
    ):
        with pytest.raises(UserError, match=message):
            get_method(name)
    install(entry("mine", "one", "a 1"), entry("mine", "two", "b 2"))
    with pytest.raises(UserError, match=r"Two installed packages have a method 'mine': a 1 and b 2"):
        get_method("mine")


def test_the_template_is_a_method(file: Path) -> None:
    file.write_text(template("my-2nd-idea"))
    method = get_method(str(file))
    assert method.name == "my-2nd-idea"
    assert method.configure(CONTEXT, method.options({})).loss_cls["type"] == f"{method.module}.My2ndIdeaLoss"
    assert not METHODS.keys() & {"my-method", "my-2nd-idea"}
    file.write_text(template("3d"))
    loss = get_method(str(file)).configure(CONTEXT, method.options({})).loss_cls
    assert loss["type"].endswith(".Method3dLoss")
