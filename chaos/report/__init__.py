"""The report of a run: report.json for programs, report.html for people (one file, works offline).

`calls`, `leaders`, `figures`, `lanes`, `series`, `scale`, `neighbours`, `summary` compute and draw nothing;
`svg`, `timeline`, `violation`, `tables`, `page` draw and compute nothing that is not a coordinate. Nothing
here judges: verdicts come from `chaos.checkers`.
"""

from chaos.report.writing import write_report

__all__ = ["write_report"]
