"""The bundled reader: its files, and that a pair's reading does not depend on its company."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fermata.agents.inference.card import BUNDLED_READER
from fermata.agents.inference.errors import ModelDigestMismatchError
from fermata.agents.inference.reader import OnnxReader
from fermata.agents.inference.readings import Pair, Reading, current_reader, use_reader
from fermata.agents.planner.reader.pairs import Said
from fermata.agents.planner.reader.shared import bundled_encoder
from fermata.agents.planner.tools import Tool, make_tools, read_tools

TOOLS = make_tools(
    read_tools(
        [
            {
                "title": name,
                "name": name,
                "description": description,
                "parameters": {
                    "type": "object",
                    "properties": {"pump": {"type": "string", "description": "Pump, P-1 to P-9."}},
                    "required": ["pump"],
                },
                "metadata": {"fermata.effect": effect},
            }
            for name, description, effect in (
                ("stop_pump", "Stops a pump.", "UNSAFE"),
                ("pump_pressure", "Reads the pressure behind a pump.", "READ"),
            )
        ]
    )
)


@pytest.fixture(scope="module")
def reader() -> OnnxReader:
    return OnnxReader()


@pytest.fixture
def nothing_installed() -> Iterator[None]:
    before = use_reader(None)
    yield
    use_reader(before)


def pair(message: str, tool: Tool, history: tuple[Said, ...] = ()) -> Pair:
    encoded = bundled_encoder().tool(tool)
    return Pair(bundled_encoder().text(history, message).ids, encoded.ids, encoded.markers)


def test_a_request_is_told_from_a_ban_and_from_a_report(reader: OnnxReader) -> None:
    asked, banned, reported = reader.read(
        [
            pair(m, TOOLS[0])
            for m in ("Please stop P-3 now.", "Whatever you do, don't stop P-3.", "Marco has stopped P-3.")
        ]
    )
    assert asked.kind[1] > 0.8
    assert banned.kind[1] < 0.2
    assert reported.kind[1] < 0.2


def test_a_reading_has_a_row_for_each_token_and_each_marker(reader: OnnxReader) -> None:
    asked = pair("Please stop P-3 now.", TOOLS[0])
    reading = reader.read([asked])[0]
    assert reading.kind.shape == (4,)
    assert reading.kind.sum() == pytest.approx(1.0, abs=1e-5)
    assert reading.tags.shape == (len(asked.text), 4)
    assert reading.present.shape == (len(asked.markers),)
    assert reading.match.shape == (len(asked.markers), len(asked.text))


def test_a_pair_reads_the_same_alone_and_in_company(reader: OnnxReader) -> None:
    messages = ["stop P-1", "what's the pressure behind P-2, and if it is above 4 bar, stop it", "hello"] * 5
    pairs = [pair(m, tool, (Said("human", "hi"),)) for m in messages for tool in TOOLS]
    together = reader.read(pairs)
    for one, reading in zip(pairs[:6], together, strict=False):
        alone = reader.read([one])[0]
        for part in Reading.__dataclass_fields__:
            np.testing.assert_allclose(getattr(alone, part), getattr(reading, part), atol=1e-4)


def test_nothing_is_read_for_nothing(reader: OnnxReader) -> None:
    assert reader.read([]) == []


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_READER, tmp_path / "reader")
    with (tmp_path / "reader" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelDigestMismatchError):
        OnnxReader(tmp_path / "reader")


@pytest.mark.usefixtures("nothing_installed")
def test_an_installed_reader_is_the_one_that_is_used() -> None:
    class Other:
        def read(self, pairs: object, /) -> list[Reading]:
            return []

    other = Other()
    assert use_reader(other) is None
    assert current_reader() is other
    assert use_reader(None) is other
    assert isinstance(current_reader(), OnnxReader)
