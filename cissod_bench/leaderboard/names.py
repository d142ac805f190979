"""What tells the tables of a report apart, as words for titles and as names for files and labels."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cissod_bench.io import canonical_json, sha256_text
from cissod_bench.results.run_key import NOT_STATED, flat

Fields = Mapping[str, Any]
"""What the runs of a table have in common: field -> value."""

DEFAULT = "default"
"""Text of a setting that a run did not change."""
_OPAQUE = ("split_digest", "class_groups", "ground_truth")
"""Fields that say little to a reader, and are named only where nothing else tells two tables apart."""
_LONGEST = 120
"""Characters of a name before a digest takes the place of the rest."""


def flat_texts(fields: Fields) -> dict[str, str]:
    """Dotted name -> text of every field; digests are shortened, nothing else is."""
    return {name: _text(name, value) for name, value in flat("", fields)}


def distinguish(all_fields: Sequence[Fields]) -> list[dict[str, str]]:
    """For each table, the fields in which it differs from others of its task, as texts; none where it is alone."""
    texts = [flat_texts(fields) for fields in all_fields]
    names = list(dict.fromkeys(name for each in texts for name in each))
    readable = [name for name in names if name not in _OPAQUE]
    found: list[dict[str, str]] = [{} for _ in texts]
    for name in [*readable, *_OPAQUE]:
        peers: dict[str, set[str]] = {}
        like = [
            canonical_json([each["task"], distinction if name in _OPAQUE else {}])
            for each, distinction in zip(texts, found, strict=True)
        ]
        for key, each in zip(like, texts, strict=True):
            peers.setdefault(key, set()).add(each.get(name, DEFAULT))
        for key, each, distinction in zip(like, texts, found, strict=True):
            if len(peers[key]) > 1:
                distinction[name] = each.get(name, DEFAULT)
    return found


def unique_names(all_fields: Sequence[Fields], distinctions: Sequence[Mapping[str, str]]) -> list[str]:
    """A name for each table, of letters, digits and `.+=-`: task, split, schedule, length, and what tells it apart."""
    known = ("split_digest", "schedule", "iterations")
    names = []
    for fields, distinction in zip(all_fields, distinctions, strict=True):
        base = [fields["task"], fields["split_digest"][:8], fields["schedule"], str(fields["iterations"])]
        more = [f"{name}={text}" for name, text in distinction.items() if name not in known]
        names.append(file_name("-".join([*base, *more])))
    count = Counter(name.lower() for name in names)  # many file systems tell no more apart
    return [
        name if count[name.lower()] == 1 else f"{name}-{sha256_text(canonical_json(dict(fields)))[:8]}"
        for name, fields in zip(names, all_fields, strict=True)
    ]


def file_name(text: str) -> str:
    """A text as a part of file names and labels: letters, digits and `.+=-`, no dot in front, of limited length."""
    name = re.sub(r"[^A-Za-z0-9.+=-]+", "-", text).strip("-.")
    longest = _LONGEST + 9  # with its digest, so that the name of a name is the name
    return name if len(name) <= longest else f"{name[:_LONGEST]}-{sha256_text(text)[:8]}"


def _text(name: str, value: Any) -> str:
    if value is None:
        return {"backbone": "from scratch"}.get(name, "null" if name.startswith("overrides.") else NOT_STATED)
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value
    return canonical_json(value)
