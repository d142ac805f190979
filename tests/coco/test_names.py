"""Names of classes and files that look equal and are not."""

import unicodedata

import pytest

from cissod_bench.coco.names import clean_name, file_name_hint


@pytest.mark.parametrize("name", ["Zebra", " Zebra", "Zebra\t", "\u00a0Zebra\u3000", "Zebra\r\n"])
def test_white_space_around_a_class_name_does_not_count(name: str) -> None:
    assert clean_name(name) == "Zebra"


@pytest.mark.parametrize("name", ["Ångström", "한국", "Việt", "naïve café"])
def test_both_unicode_forms_of_a_class_name_are_one(name: str) -> None:
    assert clean_name(unicodedata.normalize("NFD", name)) == clean_name(unicodedata.normalize("NFC", name)) == name


@pytest.mark.parametrize(
    ("name", "there", "hint"),
    [
        ("/a.jpg", {"a.jpg"}, "begins with a slash"),
        ("train\\a.jpg", {"train"}, "separators of Windows"),
        (unicodedata.normalize("NFD", "über.png"), {"über.png"}, "Unicode form"),
        ("über.png", {unicodedata.normalize("NFD", "über.png")}, "Unicode form"),
        ("one%20two.jpg", {"one two.jpg"}, r"URL-encoded: the folder has one two.jpg"),
        ("a.jpg ", {"a.jpg"}, "white space around"),
        ("a.JPG", {"a.jpg"}, "upper and lower case"),
        ("http://host/a.jpg", {"b.jpg"}, "addresses"),
        ("100%.jpg", {"b.jpg"}, ""),
        ("a.jpg", {"b.jpg"}, ""),
    ],
)
def test_the_hint_says_what_kind_of_name_it_is(name: str, there: set[str], hint: str) -> None:
    found = file_name_hint(name, there)
    assert hint in found
    assert bool(found) == bool(hint)
