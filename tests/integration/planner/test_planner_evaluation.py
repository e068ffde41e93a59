"""The planner's figures do not fall: bounds just below what is measured on each evaluation set.

The aims are a tool accuracy of 0.85, exact arguments of 0.75 and a false-action rate of 0.02. All are reached on the
first development set (`AIM`); on the second, and on the held-out set, only the false-action rate is, and the bounds
keep what is reached from being lost.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fermata.agents.planner import PlannerChatModel

FOLDER = Path(__file__).parents[2] / "benchmarks" / "planner"
#: (tool accuracy, exact arguments, false-action rate)
AIM = (0.85, 0.75, 0.02)
REACHED_TUNED = (0.73, 0.69, 0.02)
REACHED_UNSEEN = (0.62, 0.59, 0.02)


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planner_evaluate", FOLDER / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "bounds"), [("dev", AIM), ("dev2", REACHED_TUNED), ("heldout", REACHED_UNSEEN)]
)
def test_figures_stay_within_their_bounds(
    evaluate: ModuleType, name: str, bounds: tuple[float, float, float]
) -> None:
    total, _, _ = evaluate.measure(evaluate.load_cases(name), PlannerChatModel())
    assert total.tool_accuracy >= bounds[0]
    assert total.exact_arguments >= bounds[1]
    assert total.false_action_rate <= bounds[2]
