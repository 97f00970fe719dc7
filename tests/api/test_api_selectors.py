from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkube.api.selectors import (
    EVERYTHING,
    NOTHING,
    LabelSelector,
    Requirement,
    format_label_selector,
    label_selector_of,
    parse_label_selector,
    validate_label_selector,
)
from raftkube.api.status import ApiError

WEB = {"app": "web", "tier": "front", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("app=web", True), ("app==web", True), ("app = web", True), ("app=db", False),
        ("app!=db", True), ("app!=web", False), ("other!=x", True), ("app", True), ("other", False),
        ("!other", True), ("!app", False), ("! other", True), ("app in (web,db)", True),
        ("app in ( web , db )", True), ("app in (db)", False), ("app notin (db)", True),
        ("other notin (db)", True), ("app notin (web)", False), ("app=web,tier=front", True),
        ("app=web,tier=back", False), ("app=web, !other ,tier", True), ("n>4", True), ("n<5", False),
        ("app>1", False), ("empty=", True), ("empty", True), ("empty in ()", True), ("empty in (,a)", True),
        ("app=", False), ("missing>1", False), ("in", False), ("in=x", False),
    ],
)  # fmt: skip
def test_the_text_form(text: str, selected: bool) -> None:
    assert parse_label_selector(text).matches(WEB) is selected


@pytest.mark.parametrize(
    "text",
    ["=web", "app in web", "app in (web", "app=web,", ",", "app=web,,tier=x", "app=(x)", "app!web", "app>x",
     "a b", "-app=x", "app=-x", "a/b/c=d", "app=" + "x" * 64, "!", "!app=web", "app in", "app=a=b"],
)  # fmt: skip
def test_what_is_no_selector_is_a_400_that_names_the_text(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_label_selector(text)
    assert caught.value.code == 400
    assert caught.value.reason == "BadRequest"
    assert "unable to parse requirement" in caught.value.message
    assert text in caught.value.message


_KEYS = st.from_regex(r"[a-z]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True).filter(
    lambda key: key not in ("in", "notin")
)
_VALUES = st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True).filter(lambda value: value not in ("in", "notin"))


@st.composite
def _requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(["=", "!=", "in", "notin", "exists", "!"]))
    if operator in ("exists", "!"):
        return Requirement(draw(_KEYS), operator)
    count = 3 if operator in ("in", "notin") else 1
    return Requirement(draw(_KEYS), operator, frozenset(draw(st.sets(_VALUES, min_size=1, max_size=count))))


@given(st.lists(_requirements(), max_size=4))
def test_a_selector_survives_its_own_text(requirements: list[Requirement]) -> None:
    selector = LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))
    assert parse_label_selector(str(selector)) == selector


@given(_requirements(), st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_each_operator_has_an_opposite(requirement: Requirement, labels: dict[str, str]) -> None:
    opposite = {"=": "!=", "!=": "=", "in": "notin", "notin": "in", "exists": "!", "!": "exists"}
    negated = Requirement(requirement.key, opposite[requirement.operator], requirement.values)
    assert requirement.matches(labels) is not negated.matches(labels)


@given(st.text(alphabet="ab=!(),<> inot-", max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        selector = parse_label_selector(text)
    except ApiError as error:
        selector, code = None, error.code
    if selector is None:
        assert code == 400
    else:
        assert parse_label_selector(str(selector)) == selector


def test_selector_objects() -> None:
    selector = label_selector_of(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "n", "operator": "Exists"},
                {"key": "zone", "operator": "NotIn", "values": ["a"]},
            ],
        }
    )
    assert selector.matches(WEB)
    assert not selector.matches({**WEB, "zone": "a"})
    assert not selector.matches({**WEB, "old": ""})
    assert str(selector) == "app=web,n,!old,tier in (back,front),zone notin (a)"


def test_nothing_and_everything() -> None:
    assert label_selector_of(None) is NOTHING
    assert not NOTHING.matches(WEB)
    assert label_selector_of({}) == EVERYTHING
    assert EVERYTHING.matches(None)
    assert EVERYTHING.empty
    assert not NOTHING.empty


def test_the_selector_column() -> None:
    assert format_label_selector({"matchLabels": {"b": "2", "a": "1"}}) == "a=1,b=2"
    assert format_label_selector({}) == "<none>"
    assert format_label_selector(None) == "<none>"
    assert format_label_selector({"matchExpressions": [{"key": "a", "operator": "Bad"}]}) == "<error>"


def test_what_is_wrong_with_a_selector_object() -> None:
    selector = {
        "matchLabels": {"app": "we b"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "b", "operator": "Exists", "values": ["x"]},
            {"key": "c", "operator": "Like"},
        ],
    }
    assert [str(error) for error in validate_label_selector(selector, "spec.selector")] == [
        'spec.selector.matchLabels: Invalid value: "we b": a valid label must be an empty string or '
        "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
        "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
        "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' "
        "or 'NotIn'",
        "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is "
        "'Exists' or 'DoesNotExist'",
        'spec.selector.matchExpressions[2].operator: Invalid value: "Like": not a valid selector operator',
    ]
