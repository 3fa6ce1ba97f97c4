"""docs/models.md agrees with the catalogue: after a new model, count or error it must be generated again."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from model_defs import list_models, model_info
from pipeline.report.zoo_history import FAMILIES, family_of
from pipeline.report.zoo_page import DOCS, PAGE, PICTURE, models_page, write
from pipeline.report.zoo_timeline import ERROR_LABELS, SIZE_LABELS, timeline

FIX = "run python -m pipeline.report.zoo_page and commit its output"


def test_the_page_is_up_to_date_with_the_catalogue() -> None:
    assert (DOCS / PAGE).read_text(encoding="utf-8") == models_page(), FIX


def test_the_picture_is_there_and_can_be_drawn() -> None:
    committed, drawn = Image.open(DOCS / PICTURE), Image.open(io.BytesIO(timeline()))
    assert committed.size == drawn.size == (1650, 1260)
    assert len(drawn.convert("RGB").getcolors(1 << 20) or ()) > 100


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_once_on_the_page_in_the_family_of_its_paper(name: str) -> None:
    lines = [line for line in models_page().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(lines) == 1
    info, family = model_info(name), family_of(name)
    assert f"{info.parameters:,}" in lines[0]
    assert info.year >= family.year
    first_author = info.paper.split(" et al")[0].split(",")[0]
    assert first_author in family.reference or info.year > family.year


def test_every_error_is_listed_with_its_source() -> None:
    page = models_page()
    sources = page[page.index("### Sources of the errors") : page.index("\n## LeNet-5")].splitlines()
    for name in list_models():
        info = model_info(name)
        if info.errors_from is not None:
            title = family_of(name).title
            rows = [line for line in sources if line.startswith((f"| {title} |", f"| {title}: "))]
            (line,) = [line for line in rows if line.endswith(f"| {info.errors_from} |")]
            assert len(rows) == 1 or f"`{name}`" in line


def test_families_come_in_the_order_of_their_papers_and_name_files_that_exist() -> None:
    years = [int(year) for year in re.findall(r"^## .*, (\d{4})$", models_page(), flags=re.MULTILINE)]
    assert years == sorted(years)
    assert (years[0], years[-1]) == (1998, 2021)
    for family in FAMILIES:
        assert family.models(), family.title
        assert (DOCS.parent / "model_defs" / family.file).exists()


def test_what_the_picture_names_is_in_the_catalogue() -> None:
    assert {*ERROR_LABELS, *SIZE_LABELS} <= set(list_models())
    assert [name for name in ERROR_LABELS if model_info(name).top1_error is None] == []


def test_a_model_without_a_family_is_refused_with_the_file_to_fix() -> None:
    with pytest.raises(LookupError, match=r"own_net: should be in one family of pipeline/report/zoo_history\.py"):
        family_of("own_net")


def test_both_files_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    page, picture = write(tmp_path)
    assert page.read_text(encoding="utf-8") == models_page()
    assert picture.stat().st_size > 50_000
