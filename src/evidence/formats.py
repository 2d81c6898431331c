"""How numbers are written in tables and sentences: rounded, with signs, and as Markdown."""

import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from statistics import mean, stdev

from . import measures
from .measures import Estimate


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def format_mean(values: Sequence[float]) -> str:
    """Mean ± standard deviation; of a single value, the value; "–" without a number."""
    if not values or any(map(math.isnan, values)):
        return "–"
    text = format_number(mean(values))
    return f"{text} ± {format_number(stdev(values))}" if len(values) > 1 else text


def format_number(value: float) -> str:
    """A number with two decimals; a tie, such as the mean of 99.66 and 99.67, to the even one."""
    return str(_round(value, 2, ROUND_HALF_EVEN))


def format_signed(value: float) -> str:
    """A difference with two decimals and its sign, which it keeps if it rounds to zero."""
    return f"{_round(value, 2, ROUND_HALF_EVEN):+}".replace("-", "−")


def format_interval(low: float, high: float) -> str:
    """The ends of an interval, rounded outward; "one seed" if it is infinite."""
    if math.isinf(low):
        return "one seed"
    return f"{_round(low, 2, ROUND_FLOOR)} to {_round(high, 2, ROUND_CEILING)}"


def format_signed_interval(low: float, high: float) -> str:
    """The ends of an interval of a difference, with their signs, rounded outward."""
    ends = _round(low, 2, ROUND_FLOOR), _round(high, 2, ROUND_CEILING)
    return " to ".join(f"{end:+}".replace("-", "−") for end in ends)


def _round(value: float, decimals: int, direction: str) -> Decimal:
    """The value, rounded to `decimals` decimals; it keeps its sign if it rounds to zero."""
    if not math.isfinite(value):
        return Decimal(value)
    exact = Decimal(f"{value:.9f}")  # without the error of the binary fraction
    rounded = exact.quantize(Decimal(1).scaleb(-decimals), direction)
    return rounded.copy_sign(Decimal(value))


def format_difference(difference: Estimate | None) -> str:
    """A difference in percentage points with its interval, and whether it is resolved."""
    if difference is None:
        return "–"
    gain, low, high = difference
    if math.isinf(low):
        return f"{format_signed(gain)} (one seed)"
    note = "" if low > 0 or high < 0 else ", not resolved"
    return f"{format_signed(gain)} ({format_signed_interval(low, high)}){note}"


def format_share_interval(count: int, total: int) -> str:
    """The exact 95 % interval of a share, rounded outward; 100 % only without a failure."""
    low, high = measures.proportion_interval(count, total)
    decimals = 1
    while count < total and _round(high, decimals, ROUND_CEILING) == 100:
        decimals += 1
    return f"{_round(low, 1, ROUND_FLOOR)} to {_round(high, decimals, ROUND_CEILING)} %"
