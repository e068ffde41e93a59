"""Where a plant starts: the hour before it opens, simulated, so that trends and alarms have a past."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fermata.agents.factory import ai4i, process
from fermata.agents.factory.ai4i import Variant
from fermata.agents.factory.line import RATED_SPEED_RPM, LineState, LineStatus
from fermata.agents.factory.noise import Chance
from fermata.agents.factory.process import Plant

PAST_S = 3600.0
"""How much of the past is simulated before the plant opens at time 0."""
PAST_STEP_S = 5.0
_INITIAL_LIFE_CHANNEL = 20
_CREEP_MM_S_PER_H = 0.05
"""How fast a worn bearing gets worse after opening: slow enough not to matter within a shift."""


def _normal(lines: dict[str, LineState]) -> dict[str, LineState]:
    return lines


def _bearing_wear(lines: dict[str, LineState]) -> dict[str, LineState]:
    # 7.1 mm/s of bearing at rated speed makes about 8.1 mm/s in all at 1500 rpm, and about 4.2 at 1200.
    return lines | {
        "line-3": replace(lines["line-3"], bearing_mm_s_at_rated=3.4, bearing_growth_mm_s_per_h=3.7),
    }


def _heat_dissipation(lines: dict[str, LineState]) -> dict[str, LineState]:
    # Below 8.6 K, but above 1380 rpm: one more slow-down trips the line.
    return lines | {
        "line-2": replace(lines["line-2"], cooling_loss_k=1.8, speed_setpoint_rpm=1450.0, speed_rpm=1450.0)
    }


def _worn_tool(lines: dict[str, LineState]) -> dict[str, LineState]:
    return lines | {"line-4": replace(lines["line-4"], tool_wear_min=92.0)}


SCENARIOS: dict[str, Callable[[dict[str, LineState]], dict[str, LineState]]] = {
    "normal": _normal,
    "bearing-wear": _bearing_wear,
    "heat-dissipation": _heat_dissipation,
    "worn-tool": _worn_tool,
}
"""Name to what it changes: nothing; bearing wear on line 3; fouled cooling on line 2; an almost worn out tool
on line 4.
"""


def past(scenario: str, seed: int) -> Iterator[Plant]:
    """The plant at each step of the hour before it opens; the last one is the plant at time 0.

    No line trips in it. Raises :class:`KeyError` for a scenario that is not in ``SCENARIOS``.
    """
    lines = SCENARIOS[scenario](_lines(seed))
    plant = Plant(seed=seed, lines=tuple(lines.values()), time_s=-PAST_S)
    for _ in range(round(PAST_S / PAST_STEP_S)):
        plant = process.step(plant, PAST_STEP_S, random_failures=False)
        yield plant
    yield replace(plant, time_s=0.0, lines=tuple(_creeping(line) for line in plant.lines))


def opened(scenario: str, seed: int) -> Plant:
    """The plant at time 0."""
    *_, plant = past(scenario, seed)
    return plant


def _creeping(line: LineState) -> LineState:
    return replace(line, bearing_growth_mm_s_per_h=_CREEP_MM_S_PER_H if line.bearing_mm_s_at_rated else 0.0)


def _lines(seed: int) -> dict[str, LineState]:
    # name, variant, torque at rated speed (Nm), setpoint (rpm), wear one hour before opening (min),
    # unbalance (mm/s at rated speed)
    table = (
        ("line-1", Variant.L, 38.0, 1450.0, 24.0, 0.8),
        ("line-2", Variant.M, 40.0, 1550.0, 52.0, 0.7),
        ("line-3", Variant.M, 42.0, RATED_SPEED_RPM, 38.0, 0.8),
        ("line-4", Variant.H, 44.0, 1400.0, 12.0, 0.9),
    )
    return {
        name: LineState(
            name=name,
            variant=variant,
            status=LineStatus.RUNNING,
            speed_setpoint_rpm=rpm,
            speed_rpm=rpm,
            load_nm=load,
            tool_wear_min=wear,
            tool_life_min=ai4i.tool_life_min(Chance.of(seed, 0, index).uniform(_INITIAL_LIFE_CHANNEL)),
            imbalance_mm_s_at_rated=imbalance,
        )
        for index, (name, variant, load, rpm, wear, imbalance) in enumerate(table)
    }
