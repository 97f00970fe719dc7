"""docs/FAULTS.md has every live fault as it is."""

from __future__ import annotations

from docs_text import page, table_column

from chaos.live.faults import FAULTS, GROUPS

PAGE = page("docs/FAULTS.md")


def cell(text: str) -> str:
    return text.strip().strip("`")


def test_the_page_lists_every_fault_as_it_is() -> None:
    rows = PAGE.after("faults: held by tests/docs/test_faults_page.py")
    assert table_column(rows, 0) == list(FAULTS)
    for column, told in ((1, "group"), (2, "done"), (3, "consequence"), (4, "spares")):
        assert table_column(rows, column) == [cell(getattr(fault, told)) for fault in FAULTS.values()]
    asked = ["root" if "root" in fault.needs else "ordinary" for fault in FAULTS.values()]
    assert table_column(rows, 5) == asked


def test_the_page_names_every_group() -> None:
    prose = PAGE.prose
    assert all(f"`{group}`" in prose for group in (*GROUPS, "all"))
