"""Citations are made from CITATION.cff, which pybtex reads back."""

from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_string

from companion.chapters import ProjectError
from companion.citation import FILE, apa, bibtex, citations_markdown, read_citations

ROOT = Path(__file__).parents[2]


def test_bibtex_says_what_the_file_says() -> None:
    book, paper = read_citations(ROOT)
    read = parse_string("\n".join(map(bibtex, (book, paper))), "bibtex").entries
    assert list(read) == ["TheEmbeddingPrincipleCompanionContributors", "Bai2024"]
    assert [entry.type for entry in read.values()] == ["software", "article"]
    article = read["Bai2024"]
    assert [str(person) for person in article.persons["author"]][:3] == ["Bai, Zhiwei", "Luo, Tao", "Xu, Zhi-Qin John"]
    assert (article.fields["doi"], article.fields["pages"]) == (paper["doi"], f"{paper['start']}--{paper['end']}")
    assert read["TheEmbeddingPrincipleCompanionContributors"].fields["version"] == book["version"]


def test_apa_names_an_article_as_that_style_has_it() -> None:
    line = apa(read_citations(ROOT)[1])
    assert line.startswith("Bai, Z., Luo, T., Xu, Z.-Q. J., & Zhang, Y. (2024). Embedding Principle in Depth")
    assert line.endswith("CSIAM Transactions on Applied Mathematics, 5, 350–389. doi:10.4208/csiam-am.so-2023-0020")


def test_a_changed_version_is_shown(tmp_path: Path) -> None:
    record = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8")) | {"version": "7.8.9"}
    (tmp_path / FILE).write_text(yaml.safe_dump(record))
    assert citations_markdown(read_citations(tmp_path)).count("7.8.9") == 2


@pytest.mark.parametrize("text", ["", "- 1", "title: [", "title: a", "title: a\nauthors: [{family-names: b}]"])
def test_a_file_that_cannot_be_cited_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ProjectError, match=r"CITATION\.cff"):
        read_citations(tmp_path)
