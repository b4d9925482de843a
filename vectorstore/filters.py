"""Filters of records as conditions in SQL, with every value bound."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vectorstore.checks import check_string
from vectorstore.errors import InvalidArgument

Names = str | Collection[str] | None
Scalar = str | int | float | bool | None
Where = Mapping[str, Any]

_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MOST_VALUES = 500  # bound in one list; any SQLite takes 999 in a statement


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on rows of the table of records. Equal conditions select the same rows.

    Attributes:
        sql: an expression.
        values: what is bound to its question marks, in order.
    """

    sql: str
    values: tuple[Scalar, ...]


EVERYTHING = Condition("TRUE", ())


def make_condition(owner: Names, kind: Names, where: Where | None = None) -> Condition:
    """Return the condition for an owner, a kind and fields of `extra`; what is None or empty does not limit.

    Args:
        owner: one owner, or a collection of owners of which any will do.
        kind: one kind, or a collection of kinds.
        where: for each field of `extra` the value that it must equal, a list of values that it may equal, or a
            dict of comparisons: `{"position": {"ge": 3, "lt": 9}}`, with `eq`, `in`, `lt`, `le`, `gt`, `ge`. A value of
            None asks for a field that is null or missing. Numbers are compared with numbers only, text with text.

    Raises:
        InvalidArgument: a filter has the wrong type, or an unknown comparison.
    """
    parts: list[str] = []
    values: list[Scalar] = []
    for name, wanted in (("owner", owner), ("kind", kind)):
        if wanted is not None:
            chosen = _names(name, wanted)
            parts.append(f"{name} = ?" if len(chosen) == 1 else f"{name} IN ({', '.join('?' * len(chosen))})")
            values += chosen
    if where is not None and not isinstance(where, Mapping):
        raise InvalidArgument(f"where is a {type(where).__name__}; expected a dict of fields of extra")
    for name, wanted in (where or {}).items():
        tests = wanted if isinstance(wanted, Mapping) else {"in" if isinstance(wanted, list | tuple) else "eq": wanted}
        for comparison, value in tests.items():
            sql, bound = _test(name, str(comparison), value)
            parts.append(sql)
            values += bound
    return Condition(" AND ".join(parts), tuple(values)) if parts else EVERYTHING


def field_sql(name: str) -> str:
    """Return the expression for a field of `extra`, the same text each time, so that an index over it is found.

    Raises:
        InvalidArgument: `name` cannot be written in a path of SQLite.
    """
    if not isinstance(name, str) or not name or any(mark in name for mark in "\"'\\") or not name.isprintable():
        raise InvalidArgument(f"field {name!r} cannot be asked for; expected a name without quotes or backslashes")
    label = json.dumps(name)[1:-1]  # as dump_extra writes it: SQLite compares the texts
    return f"json_extract(extra, '$.\"{label}\"')"


def _names(name: str, wanted: Names) -> list[str]:
    if isinstance(wanted, str):
        check_string(name, wanted)
        return [wanted]
    if isinstance(wanted, Mapping) or not isinstance(wanted, Collection):
        raise InvalidArgument(
            f"{name} is {wanted!r} ({type(wanted).__name__}); expected a string, a collection of strings, or None"
        )
    chosen = sorted(set(wanted)) if all(isinstance(one, str) for one in wanted) else list(wanted)
    for one in chosen:
        check_string(f"one of {name}", one)
    _check_count(name, len(chosen))
    return chosen


def _test(name: str, comparison: str, value: Any) -> tuple[str, list[Scalar]]:
    field = field_sql(name)
    if comparison == "eq":
        _check_scalar(name, value)
        return (f"{field} IS NULL", []) if value is None else (f"{field} = ?", [value])
    if comparison == "in":
        if isinstance(value, str | Mapping) or not isinstance(value, Collection):
            raise InvalidArgument(f"where {name!r} in {value!r}; expected a list of values")
        for one in value:
            _check_scalar(name, one)
        _check_count(name, len(value))
        plain = [one for one in value if one is not None]
        inside = f"{field} IN ({', '.join('?' * len(plain))})"
        return (f"({inside} OR {field} IS NULL)" if len(plain) < len(value) else inside), plain
    if comparison in _COMPARISONS:
        _check_scalar(name, value)
        if value is None or isinstance(value, bool):
            raise InvalidArgument(f"where {name!r} {comparison} {value!r}; expected a number or text to compare with")
        types = "('text')" if isinstance(value, str) else "('integer', 'real')"
        return f"(typeof({field}) IN {types} AND {field} {_COMPARISONS[comparison]} ?)", [value]
    raise InvalidArgument(f"where {name!r} has {comparison!r}; expected one of eq, in, {', '.join(_COMPARISONS)}")


def _check_scalar(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str | int | float):
        raise InvalidArgument(
            f"where {name!r} is {value!r} ({type(value).__name__}); expected text, number, bool, None"
        )
    if isinstance(value, str):
        check_string(f"where {name!r}", value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidArgument(f"where {name!r} is {value}; expected an integer of 64 bits, or a float")


def _check_count(name: str, count: int) -> None:
    if count > _MOST_VALUES:
        raise InvalidArgument(f"{name} has {count} values; expected at most {_MOST_VALUES}, ask in parts")
