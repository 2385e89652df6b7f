import json
import math
import re

import numpy as np
import pytest
import torch

from companion.interactive import LARGEST, Interactive


def data_of(page):
    return json.loads(re.search(r'<script type="application/json">(.*)</script></div>$', page)[1])


def test_tensors_and_arrays_come_back_with_all_their_digits():
    values = torch.rand(3, 2, dtype=torch.float64)
    page = Interactive("explorer", "t", {"theta": values, "steps": np.arange(3)}, alt="x")._repr_html_()
    assert data_of(page) == {"theta": values.tolist(), "steps": [0, 1, 2]}


def test_numbers_keep_as_many_digits_as_asked():
    shown = Interactive("explorer", "t", {"a": [1.23456, 1e-7 / 3, 12345.6, 2.0]}, alt="x", digits=3)
    assert shown.json == '{"a":[1.23,3.33e-08,12300,2]}'


def test_what_is_not_finite_becomes_null():
    page = Interactive("explorer", "t", {"a": [math.inf, math.nan, 1.0]}, alt="x")._repr_html_()
    assert data_of(page) == {"a": [None, None, 1.0]}


def test_neither_text_nor_data_leaves_its_element():
    name = "</script><b>&"
    page = Interactive("explorer", 'a "title"', {"name": name}, alt='<i> & "f"')._repr_html_()
    assert page.count("</script>") == 1
    assert data_of(page) == {"name": name}
    assert 'aria-label="a &quot;title&quot;"' in page
    assert "&lt;i&gt; &amp; &quot;f&quot;</p>" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("kind", "title", "data", "alt", "message"),
    [
        ("pie", "t", {}, "x", "kind: no script draws 'pie'"),
        ("explorer", "", {}, "x", "title: say what"),
        ("explorer", "t", {}, " ", "alt: say what"),
        ("explorer", "t", {"a": {1, 2}}, "x", "data: set cannot be written as JSON"),
        ("explorer", "t", {"a": "x" * LARGEST}, "x", "more than 300000; thin them"),
    ],
)
def test_what_cannot_be_shown_is_refused(kind, title, data, alt, message):
    with pytest.raises(ValueError, match=message):
        Interactive(kind, title, data, alt)
