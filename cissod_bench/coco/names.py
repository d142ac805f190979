"""Names of classes and image files, which other systems write in other ways.

Class names are compared without white space around them and in Unicode's composed form (NFC); so `bolt ` is `bolt`, and
an accent counts the same whether it is a character of its own or part of its letter. File names are used as they are,
since a folder may hold both forms; where a file is not found, `file_name_hint` says what kind of name it is.
"""

import unicodedata
from collections.abc import Collection
from urllib.parse import unquote


def clean_name(name: str) -> str:
    """A class name as it is compared: in Unicode's composed form, without white space or a byte order mark around."""
    return unicodedata.normalize("NFC", name).strip().strip("\ufeff").strip()


def file_name_hint(name: str, there: Collection[str]) -> str:
    """Why a file may not be found under its name, as a sentence; empty if the name has nothing unusual.

    Args:
        name: the name as the annotations have it.
        there: names of the files in the folder that should hold it.
    """
    base = name.rsplit("/", 1)[-1]
    composed = unicodedata.normalize("NFC", base)
    if name.startswith("/"):
        return "The name begins with a slash, so it is not looked for in the folder. Remove the slash."
    if "\\" in name:
        return "The names have the separators of Windows (\\). Write them with /."
    if base not in there and any(unicodedata.normalize("NFC", other) == composed for other in there):
        return (
            "The folder has it in another Unicode form (composed and decomposed accents look the same). "
            "Normalise the names on one side, to NFC for example."
        )
    if "%" in name and unquote(base) in there:
        return f"The names are URL-encoded: the folder has {unquote(base)}. Decode them."
    if base.strip() != base and base.strip() in there:
        return "The names have white space around them. Remove it."
    if base not in there and base.casefold() in {other.casefold() for other in there}:
        return "The folder has it in other upper and lower case. Use the same on both sides."
    if "://" in name:
        return "The names are addresses. Write them relative to the folder of the images."
    return ""
