"""From rounds to figures, and from figures to tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from adapters import REFERENCE, SUBJECT
from cases import Case

WORDS = {
    "absent": "-",
    "unavailable": "n/a",
    "hang": "hang",
    "slow": "too slow",
    "wrong": "WRONG",
    "error": "error",
    "died": "died",
}


@dataclass
class Series:
    """One library in one case: seconds per unit of each round, or what went wrong."""

    seconds: list[float] = field(default_factory=list)
    status: str = "ok"
    why: str = ""

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds and self.status == "ok" else None

    def as_json(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"status": self.status, "seconds": self.seconds}
        if self.why:
            figures["why"] = self.why
        if self.seconds:
            middle = median(self.seconds)
            figures["median"] = middle
            figures["mad"] = median(abs(one - middle) for one in self.seconds)
            figures["min"], figures["max"] = min(self.seconds), max(self.seconds)
        return figures


@dataclass
class Row:
    """One case and what every library made of it."""

    case: Case
    series: dict[str, Series] = field(default_factory=dict)

    def ratio(self, name: str) -> float | None:
        """How many times as fast as the reference: median against median."""
        reference, own = self._series(REFERENCE).median, self._series(name).median
        return reference / own if reference and own else None

    def ratio_range(self, name: str) -> tuple[float, float] | None:
        """The lowest and the highest ratio within one round."""
        pairs = list(zip(self._series(REFERENCE).seconds, self._series(name).seconds))
        if not pairs or self.ratio(name) is None:
            return None
        ratios = [reference / own for reference, own in pairs]
        return min(ratios), max(ratios)

    def ratio_base(self) -> float | None:
        """The time that others are held against, of a case that is the same in every library: the shortest."""
        return min((second for one in self.series.values() for second in one.seconds), default=None)

    def verdict(self) -> str:
        """ "ok" or "short" where there is a floor and a ratio to hold against it."""
        ratio = self.ratio(SUBJECT)
        if self.case.floor is None or ratio is None:
            return ""
        return "ok" if ratio >= self.case.floor else "short"

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case.key,
            "title": self.case.title,
            "floor": self.case.floor,
            "verdict": self.verdict(),
            "ratios": {name: self.ratio(name) for name in self.series},
            "results": {name: one.as_json() for name, one in self.series.items()},
        }

    def _series(self, name: str) -> Series:
        return self.series.get(name) or Series(status="absent")


def figure(unit: str, seconds: float | None) -> str:
    """A time in the case's own unit."""
    if seconds is None:
        return ""
    if unit == "rate":
        return f"{1 / seconds / 1000:,.1f} k/s"
    if unit == "ns":
        return f"{seconds * 1e9:,.0f} ns"
    if unit == "us":
        return f"{seconds * 1e6:,.1f} us"
    return f"{seconds * 1e3:,.1f} ms"


def cell(row: Row, name: str) -> str:
    """One library's median, or the word for why there is none."""
    series = row.series.get(name)
    if series is None:
        return ""
    if series.median is None:
        return WORDS.get(series.status, series.status)
    return figure(row.case.unit, series.median)


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def spread(row: Row, name: str) -> str:
    """Min..max over the rounds, in the unit of the case."""
    series = row.series.get(name)
    if series is None or series.median is None:
        return ""
    ends = [min(series.seconds), max(series.seconds)]
    if row.case.unit == "rate":
        ends.reverse()
    low, high = (figure(row.case.unit, one).rpartition(" ")[0] for one in ends)
    return f"{low}..{high}"


def align(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, the others to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]

    def one(line: Sequence[str]) -> str:
        rest = [text.rjust(width) for text, width in zip(line[1:], widths[1:])]
        return "  ".join([line[0].ljust(widths[0]), *rest]).rstrip()

    return "\n".join([one(head), "  ".join("-" * width for width in widths).rstrip(), *(one(line) for line in lines)])


LEGEND = """\
ratio: times as fast as the standard package, from the medians; by round: the lowest and highest ratio within one round
floor: the ratio that a quiet machine reaches; "short" on a busy machine is no fault, and only --strict exits with 1 for it{payloads}
"""
PAYLOADS_LEGEND = """
copies: the time of so many copies of the same bytes in memory; copy + mapping: times as long as one copy and one mapping of the bytes"""


def floors_table(rows: Sequence[Row]) -> str:
    """maniple against the standard package."""
    head = ("case", "standard", "min..max", "maniple", "min..max", "ratio", "by round", "floor", "")
    lines = []
    for row in rows:
        between = row.ratio_range(SUBJECT)
        lines.append(
            (
                row.case.title,
                cell(row, REFERENCE),
                spread(row, REFERENCE),
                cell(row, SUBJECT),
                spread(row, SUBJECT),
                times(row.ratio(SUBJECT)),
                f"{between[0]:.1f}..{between[1]:.1f}" if between else "",
                f"{row.case.floor:g}x" if row.case.floor else "",
                row.verdict(),
            )
        )
    return align(head, lines)


def payloads_table(rows: Sequence[Row], yardsticks: Sequence[Row]) -> str:
    """maniple against the standard package, and against one copy of the bytes and one mapping of them that is read."""
    yards = {row.case.key: row.ratio_base() for row in yardsticks}
    head = ("payload", "standard", "maniple", "min..max", "ratio", "by round", "floor", "", "copies", "copy + mapping")
    lines = []
    for row in rows:
        size = row.case.key.rpartition("-")[2]
        own, between = row.series[SUBJECT].median, row.ratio_range(SUBJECT)
        one_copy, one_mapping = yards.get(f"copy-{size}"), yards.get(f"mapping-{size}")
        lines.append(
            (
                row.case.title,
                cell(row, REFERENCE),
                cell(row, SUBJECT),
                spread(row, SUBJECT),
                times(row.ratio(SUBJECT)),
                f"{between[0]:.1f}..{between[1]:.1f}" if between else "",
                f"{row.case.floor:g}x" if row.case.floor else "",
                row.verdict(),
                times(own / one_copy) if own and one_copy else "",
                times(own / (one_copy + one_mapping)) if own and one_copy and one_mapping else "",
            )
        )
    return align(head, lines)


def peers_tables(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Every library: its median, then how many times as fast as the standard package."""
    medians = align(("median", *names), [(row.case.title, *(cell(row, name) for name in names)) for row in rows])
    ratios = align(
        ("times the standard package", *names),
        [(row.case.title, *(times(row.ratio(name)) or cell(row, name) for name in names)) for row in rows],
    )
    return f"{medians}\n\n{ratios}"


def remarks(rows: Sequence[Row], unavailable: dict[str, str]) -> list[str]:
    """Everything that a cell's one word leaves out, cases with the same reason together."""
    cases: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for name, series in row.series.items():
            if series.status not in ("ok", "unavailable"):
                cases.setdefault((name, series.status, series.why), []).append(row.case.key)
    lines = [f"{name}: not available: {why}" for name, why in unavailable.items()]
    lines += [f"{name}: {status}: {why} ({', '.join(keys)})" for (name, status, why), keys in cases.items()]
    return lines
