"""Units of measure: what they are called, what they measure, and how one becomes another.

One table of names, factors to the base unit of a dimension, and offsets (temperature). Refused: guessing a unit from
the size of a number. A number without a unit is taken in the unit that the parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: `base = value * factor + offset` in the base unit of `dimension`."""

    name: str
    dimension: str
    factor: float = 1.0
    offset: float = 0.0


def _u(names: str, dimension: str, factor: float = 1.0, offset: float = 0.0) -> dict[str, Unit]:
    aliases = [n.strip() for n in names.split("|")]
    unit = Unit(aliases[0], dimension, factor, offset)
    return dict.fromkeys(aliases, unit)


_GI: Final = 1024.0
#: Names as they are written after a number; matching folds case except where a name is listed in _CASED.
UNITS: Final[dict[str, Unit]] = {
    **_u("ms|millisecond|milliseconds|msec|millis", "time", 0.001),
    **_u("s|sec|secs|second|seconds", "time", 1),
    **_u("min|mins|minute|minutes", "time", 60),
    **_u("h|hr|hrs|hour|hours", "time", 3600),
    **_u("d|day|days", "time", 86400),
    **_u("week|weeks|wk|wks", "time", 604800),
    **_u("µm|um|micron|microns|micrometre|micrometres|micrometer|micrometers", "length", 1e-6),
    **_u("mm|millimetre|millimetres|millimeter|millimeters", "length", 1e-3),
    **_u("cm|centimetre|centimetres|centimeter|centimeters", "length", 1e-2),
    **_u("m|metre|metres|meter|meters", "length", 1),
    **_u("km|kilometre|kilometres|kilometer|kilometers", "length", 1e3),
    **_u("inch|inches", "length", 0.0254),
    **_u("ft|foot|feet", "length", 0.3048),
    **_u("yd|yard|yards", "length", 0.9144),
    **_u("mi|mile|miles", "length", 1609.344),
    **_u("nm|nanometre|nanometres|nanometer|nanometers", "length", 1e-9),
    **_u("nmi|nautical mile|nautical miles", "length", 1852),
    **_u("mm/s|millimetres per second|millimeters per second", "speed", 1e-3),
    **_u("cm/s", "speed", 1e-2),
    **_u("m/s|metres per second|meters per second", "speed", 1),
    **_u("m/min|metres per minute|meters per minute", "speed", 1 / 60),
    **_u("mm/min", "speed", 1e-3 / 60),
    **_u("km/h|kph|kmh|kilometres per hour|kilometers per hour", "speed", 1 / 3.6),
    **_u("mph|miles per hour", "speed", 0.44704),
    **_u("kn|knot|knots", "speed", 0.514444),
    **_u("rpm|rev/min|revs|revolutions per minute|revolutions|revs per minute|1/min|r/min", "rotation", 1),
    **_u("rps|revolutions per second", "rotation", 60),
    **_u("hz|hertz", "frequency", 1),
    **_u("khz|kilohertz", "frequency", 1e3),
    **_u("mhz|megahertz", "frequency", 1e6),
    **_u("ghz|gigahertz", "frequency", 1e9),
    **_u(
        "°C|C|celsius|degrees celsius|degree celsius|deg c|degc|centigrade|degrees centigrade|degrees c",
        "temperature",
        1,
    ),
    **_u(
        "°F|F|fahrenheit|degrees fahrenheit|degree fahrenheit|deg f|degf|degrees f",
        "temperature",
        5 / 9,
        -160 / 9,
    ),
    **_u("K|kelvin|kelvins", "temperature", 1, -273.15),
    **_u("mg|milligram|milligrams", "mass", 1e-6),
    **_u("µg|ug|microgram|micrograms", "mass", 1e-9),
    **_u("g|gram|grams|gramme|grammes", "mass", 1e-3),
    **_u("kg|kilo|kilos|kilogram|kilograms", "mass", 1),
    **_u("t|tonne|tonnes|metric tons", "mass", 1e3),
    **_u("lb|lbs|pound|pounds", "mass", 0.45359237),
    **_u("oz|ounce|ounces", "mass", 0.028349523125),
    **_u("µl|ul|microlitre|microlitres|microliter|microliters", "volume", 1e-6),
    **_u("ml|millilitre|millilitres|milliliter|milliliters", "volume", 1e-3),
    **_u("cl|centilitre|centilitres", "volume", 1e-2),
    **_u("dl|decilitre|decilitres", "volume", 1e-1),
    **_u("l|litre|litres|liter|liters", "volume", 1),
    **_u("m³|m3|cubic metre|cubic metres|cubic meters", "volume", 1e3),
    **_u("gal|gallon|gallons", "volume", 3.785411784),
    **_u("l/min|litres per minute|liters per minute|lpm", "flow", 1),
    **_u("l/h|litres per hour|liters per hour", "flow", 1 / 60),
    **_u("ml/min|millilitres per minute|milliliters per minute", "flow", 1e-3),
    **_u("ml/h|millilitres per hour|milliliters per hour", "flow", 1e-3 / 60),
    **_u("l/s|litres per second|liters per second", "flow", 60),
    **_u("m³/h|m3/h|cubic metres per hour", "flow", 1000 / 60),
    **_u("mW|milliwatt|milliwatts", "power", 1e-3),
    **_u("W|watt|watts", "power", 1),
    **_u("kW|kw|kilowatt|kilowatts", "power", 1e3),
    **_u("MW|megawatt|megawatts", "power", 1e6),
    **_u("hp|horsepower", "power", 745.7),
    **_u("Wh|watt hours|watt-hours", "energy", 1),
    **_u("kWh|kwh|kilowatt hours|kilowatt-hours|kilowatt hour", "energy", 1e3),
    **_u("MWh|mwh|megawatt hours|megawatt-hours", "energy", 1e6),
    **_u("kJ|kj|kilojoule|kilojoules", "energy", 1e3 / 3600),
    **_u("Pa|pascal|pascals", "pressure", 1),
    **_u("hPa|hpa|hectopascal", "pressure", 100),
    **_u("kPa|kpa|kilopascal|kilopascals", "pressure", 1e3),
    **_u("MPa|mpa|megapascal|megapascals", "pressure", 1e6),
    **_u("mbar|millibar|millibars", "pressure", 100),
    **_u("bar|bars", "pressure", 1e5),
    **_u("psi", "pressure", 6894.757),
    **_u("atm|atmospheres", "pressure", 101325),
    **_u("mV|mv|millivolt|millivolts", "voltage", 1e-3),
    **_u("V|volt|volts", "voltage", 1),
    **_u("kV|kv|kilovolt|kilovolts", "voltage", 1e3),
    **_u("mA|ma|milliamp|milliamps|milliampere", "current", 1e-3),
    **_u("A|amp|amps|ampere|amperes", "current", 1),
    **_u("Nm|newton metres|newton meters|newton-metres", "torque", 1),
    **_u("%|percent|per cent|pct|percentage", "ratio", 1),
    **_u("percentage points|percentage point|pp", "ratio", 1),
    **_u("fraction|ratio", "ratio", 100),
    **_u("permille|‰", "ratio", 0.1),
    **_u("B|byte|bytes", "data", 1),
    **_u("kB|kb|kilobyte|kilobytes", "data", 1e3),
    **_u("MB|mb|megabyte|megabytes|megs|meg", "data", 1e6),
    **_u("GB|gb|gigabyte|gigabytes|gigs|gig", "data", 1e9),
    **_u("TB|tb|terabyte|terabytes", "data", 1e12),
    **_u("KiB|kib|ki|kibibyte|kibibytes", "data", _GI),
    **_u("MiB|mib|mi_b|mebibyte|mebibytes", "data", _GI**2),
    **_u("GiB|gib|gibibyte|gibibytes", "data", _GI**3),
    **_u("TiB|tib|tebibyte|tebibytes", "data", _GI**4),
    **_u("EUR|euro|euros|€|eur", "money:EUR", 1),
    **_u("cents|cent", "money:minor", 1),
    **_u("USD|dollar|dollars|$|usd|bucks", "money:USD", 1),
    **_u("GBP|£|gbp|quid", "money:GBP", 1),
    **_u("degrees|degree|deg|°", "degrees", 1),
    **_u("rad|radian|radians", "angle", 57.29577951308232),
    **_u("ppm", "ppm", 1),
    **_u("dB|db|decibel|decibels", "level", 1),
    **_u("lux|lx", "illuminance", 1),
    **_u("mol/l|molar", "concentration", 1),
    **_u("mm/h|millimetres per hour", "rain", 1),
    **_u("dozen", "count", 12),
}
#: Short names that mean something else in lower case, or are ordinary words: matched in this case only.
_CASED: Final = frozenset({"C", "F", "K", "W", "V", "A", "B", "Pa", "MW", "mW", "mA", "MPa"})
#: Names that are words or letters of their own in prose: a unit only directly behind a number.
_ONLY_AFTER_NUMBER: Final = frozenset(
    {
        "s",
        "h",
        "d",
        "m",
        "g",
        "t",
        "l",
        "C",
        "F",
        "K",
        "A",
        "V",
        "W",
        "B",
        "mi",
        "ft",
        "min",
        "sec",
        "second",
        "kn",
        "cent",
        "ma",
    }
    | {
        "pound",
        "pounds",
        "bar",
        "bars",
        "foot",
        "feet",
        "ki",
        "meg",
        "gig",
        "kilo",
        "cup",
        "revolutions",
        "pp",
        "ratio",
        "deg",
        "€",
        "$",
    }
    | {"fraction", "K", "nm", "atm", "day", "°", "level"}
)
_FOLDED: Final[dict[str, Unit]] = {name.lower(): unit for name, unit in UNITS.items() if name not in _CASED}


def unit_named(name: str) -> Unit | None:
    """The unit that is called `name` behind a number, or None."""
    return (
        UNITS.get(name)
        or _FOLDED.get(name.lower())
        or (UNITS.get(name.upper()) if name in ("c", "f") else None)
    )


@lru_cache(maxsize=2048)
def unit_in_words(words: tuple[str, ...]) -> Unit | None:
    """The unit that a name or description speaks of, such as ("seconds",) or ("in", "°C"); None if there is none."""
    for i, word in enumerate(words):
        for width in (3, 2, 1):
            phrase = " ".join(words[i : i + width])
            unit = unit_named(phrase)
            if unit is None or (width == 1 and i + width > len(words)):
                continue
            introduced = i > 0 and words[i - 1].lower() in ("in", "(", "unit", "per")
            if (
                phrase not in _ONLY_AFTER_NUMBER
                or introduced
                or (len(words) > 1 and i == len(words) - 1 and len(word) > 2)
            ):
                return unit
    return None


def convert(value: float, source: Unit | None, target: Unit | None) -> float | None:
    """`value` of `source` in `target`; None if they measure different things. No unit on a side changes nothing."""
    if source is None or target is None:
        return value
    if source.dimension == "degrees" and target.dimension in ("temperature", "angle"):
        return value
    if target.dimension == "degrees" and source.dimension in ("temperature", "angle"):
        return value
    if source.dimension == "money:minor" and target.dimension.startswith("money:"):
        return value / 100
    if target.dimension == "money:minor" and source.dimension.startswith("money:"):
        return tidy(value * 100)
    if source.dimension != target.dimension:
        return None
    if source is target:
        return value
    base = value * source.factor + source.offset
    return tidy((base - target.offset) / target.factor)


def tidy(value: float) -> float:
    """Take the dust of floating point off, at nine significant digits."""
    rounded = float(f"{value:.9g}")
    return float(round(rounded)) if abs(rounded - round(rounded)) < 1e-9 * max(1.0, abs(rounded)) else rounded


def plain(value: float) -> str:
    """A number as people write it: 1200, 7.1."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
