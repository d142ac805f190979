"""What the site makes of pages that are plain Markdown; needs no mkdocs."""

from tests.docs.pages import ROOT, script

hooks = script("hooks")


def test_links_out_of_docs_lead_to_pages_of_the_site_and_others_stay() -> None:
    text = "[a](../methods.md#rfs) [b](../../cissod_bench/io.py) [c](https://a.org/x.md) ![d](../images/a.png) [e](#x)"
    made = hooks.linked(text, "docs/methods/gbs.md", "methods/gbs.md")
    assert made == text.replace("../../cissod_bench/io.py", "../files/cissod_bench/io.py.md")
    assert hooks.linked("[f](scripts/hooks.py)", "docs/x.md", "x.md") == "[f](files/docs/scripts/hooks.py.md)"


def test_links_of_a_page_outside_docs_lead_from_its_place_in_the_site() -> None:
    made = hooks.linked("[a](docs/trust.md) [b](README.md)", "CHANGELOG.md", "files/CHANGELOG.md")
    assert made == "[a](../trust.md) [b](README.md)"


def test_code_is_left_alone() -> None:
    text = "[a](../io.py)\n```\n[a](../io.py)\n```\n[a](../io.py)\n"
    made = hooks.linked(text, "docs/x.md", "x.md")
    assert made == "[a](files/io.py.md)\n```\n[a](../io.py)\n```\n[a](files/io.py.md)\n"
    assert hooks.outside_links(text, "docs/x.md") == ["io.py", "io.py"]


def test_a_file_is_shown_as_it_is_and_a_folder_as_a_list() -> None:
    page = hooks.page_text("examples/bccd.toml")
    assert (ROOT / "examples" / "bccd.toml").read_text() in page
    assert "~~~~ toml\n" in page
    assert "* [mobilenet-v2-416.py](detectors/mobilenet-v2-416.py.md)" in hooks.page_text("examples/detectors")


def test_shell_and_python_blocks_become_tabs_only_one_after_the_other() -> None:
    text = "x\n\n```sh\na\n```\n\n```python\nb\n\n```\n\ny\n"
    assert hooks.tabbed(text) == (
        'x\n\n=== "Shell"\n\n    ```sh\n    a\n    ```\n\n=== "Python"\n\n    ```python\n    b\n\n    ```\n\ny\n'
    )
    apart = "```sh\na\n```\n\nand\n\n```python\nb\n```\n"
    assert hooks.tabbed(apart) == apart
