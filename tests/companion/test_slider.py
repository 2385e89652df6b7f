import base64
import re

import pytest
from matplotlib.figure import Figure

from companion.slider import slider


def test_every_frame_is_an_image_with_alternative_text_and_one_is_shown():
    labels = ["step 1", "step <2>", "step 3"]
    page = slider([Figure((2, 1)) for _ in labels], labels, alt='loss & "function"')._repr_html_()
    images = re.findall(r'<img alt="([^"]*)"[^>]*src="data:image/png;base64,([^"]*)"', page)
    assert [alt for alt, _ in images] == [
        f"loss &amp; &quot;function&quot;: {label}" for label in ("step 1", "step &lt;2&gt;", "step 3")
    ]
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in images)
    assert page.count("<figure hidden>") == 2
    assert page.count("<figure>") == 1
    assert 'max="2" value="2"' in page
    assert "http" not in page


@pytest.mark.parametrize(("frames", "labels"), [(0, []), (2, ["one"])])
def test_each_frame_needs_a_label(frames, labels):
    with pytest.raises(ValueError, match="labels: expected one for each"):
        slider([Figure() for _ in range(frames)], labels, alt="x")
