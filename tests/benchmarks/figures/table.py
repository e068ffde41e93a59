"""The one table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from tests.benchmarks.figures.series import Figure, ratio


def table(title: str, caption: str, groups: Iterable[tuple[str, Iterable[Figure]]]) -> Table:
    """All figures, a section for each group. A ratio is Fermata's median over the peer's."""
    drawn = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    drawn.add_column("what")
    for heading in ("median", "p90", "p99", "min to max", "n"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("peer, same run")
    drawn.add_column("peer's median", justify="right", no_wrap=True)
    drawn.add_column("ratio", justify="right", no_wrap=True)
    drawn.add_column("aim", justify="right", no_wrap=True)
    drawn.add_column("note")
    for _, figures in groups:
        for figure in figures:
            series = figure.series
            drawn.add_row(
                figure.what,
                _value(series.median, figure.unit),
                _number(series.share(90)),
                _number(series.share(99)),
                f"{_number(series.low)} to {_number(series.high)}",
                str(len(series.values)),
                "\n".join(peer.what for peer in figure.peers),
                "\n".join(_value(peer.series.median, figure.unit) for peer in figure.peers),
                "\n".join(f"{ratio(series, peer.series):.2f}" for peer in figure.peers),
                "" if figure.aim is None else f"< {figure.aim:g} {figure.unit}",
                figure.note,
            )
        drawn.add_section()
    return drawn


def _value(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
