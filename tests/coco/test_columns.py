"""Packed strings: what they give back is what a list of `str` would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cissod_bench.coco.columns import Strings
from cissod_bench.coco.objects365 import unpacked_names

NAMES = st.lists(st.text("a/é\0\U0001f600b", max_size=7), max_size=12)


def unpack(strings: Strings) -> list[str]:
    return strings.take(np.arange(len(strings.ends)))


@given(names=NAMES, prefix=st.sampled_from(["", "x/", "é"]), data=st.data())
def test_strings_as_a_list(names: list[str], prefix: str, data: st.DataObject) -> None:
    strings = Strings.of(names)
    assert unpack(strings) == names
    assert unpack(strings.with_prefix(prefix)) == [prefix + name for name in names]
    assert unpack(strings.last_parts(2, prefix)) == [prefix + name for name in unpacked_names(names)]
    wanted = data.draw(st.sampled_from([*names, "a"]))
    assert strings.find(wanted).tolist() == [row for row, name in enumerate(names) if name == wanted]
    rows = data.draw(st.lists(st.integers(0, len(names) - 1))) if names else []
    chosen = strings.rows(np.array(rows, np.int64))
    assert unpack(chosen) == [names[row] for row in rows]
    packed = Strings.of([names[row] for row in rows])
    assert (chosen.data.tolist(), chosen.ends.tolist()) == (packed.data.tolist(), packed.ends.tolist())


def test_strings_of_any_text_come_back() -> None:
    for strings in ([], [""], ["", ""], ["a", "", "é\ud800"], ["a\0b", "\0", ""], ["\0"]):
        packed = Strings.of(strings)
        assert packed.take(np.arange(len(strings))) == strings
        assert packed.take(np.arange(len(strings))[::-1]) == strings[::-1]
