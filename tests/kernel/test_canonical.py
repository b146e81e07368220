import json
import math
import struct

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel import canonical
from paroma.kernel.canonical import Limits, NotCanonical, NotStrictJson

WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class Note(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    at: float
    names: tuple[str, ...]
    head: bytes = b"\x00\xff"


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_reading_what_was_written_gives_the_same_value_and_the_same_bytes(value):
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert canonical.encode(canonical.decode(data)) == data
    assert json.loads(data, parse_int=float) == value  # as JavaScript reads it


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(TEXT, WHOLE, max_size=8))
def test_the_order_of_the_keys_does_not_matter(value):
    assert canonical.encode(dict(reversed(value.items()))) == canonical.encode(value)
    keys = list(json.loads(canonical.encode(value)))
    assert keys == sorted(keys, key=lambda key: key.encode("utf-16-be"))  # RFC 8785, 3.2.3


def test_the_example_of_rfc_8785_comes_out_as_printed_there():
    # sections 3.2.2 and 3.2.4
    given_there = (
        '{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        ' "string": "\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/", "literals": [null, true, false]}'
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical.encode(canonical.decode(given_there.encode())) == expected.encode()


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        # RFC 8785, appendix B
        (0x0000000000000000, "0"),
        (0x8000000000000000, "0"),
        (0x0000000000000001, "5e-324"),
        (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e+308"),
        (0x44B52D02C7E14AF5, "9.999999999999997e+22"),
        (0x44B52D02C7E14AF6, "1e+23"),
        (0x444B1AE4D6E2EF4E, "999999999999999700000"),
        (0x444B1AE4D6E2EF4F, "999999999999999900000"),
        (0x444B1AE4D6E2EF50, "1e+21"),
        (0x3EB0C6F7A0B5ED8C, "9.999999999999997e-7"),
        (0x3EB0C6F7A0B5ED8D, "0.000001"),
        (0x41B3DE4355555554, "333333333.33333325"),
        (0x43143FF3C1CB0959, "1424953923781206.2"),
    ],
)
def test_numbers_come_out_as_in_appendix_b_of_rfc_8785(bits, expected):
    (number,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    assert canonical.encode(number) == expected.encode()


def test_a_struct_has_one_form():
    note = Note(at=2.0, names=("a", "b"))
    assert canonical.encode(note) == b'{"at":2,"head":"AP8=","names":["a","b"],"type":"Note"}'
    assert canonical.decode_as(canonical.encode(note), Note) == note
    assert canonical.digest(note) == canonical.digest(Note(names=("a", "b"), at=2))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="not a number"),
        pytest.param([math.inf], id="infinity"),
        pytest.param(2**53 + 1, id="an integer no float holds"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param({"\udfff": 1}, id="a lone surrogate in a key"),
        pytest.param({1: 2}, id="a key that is no text"),
        pytest.param(object(), id="an object"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(NotCanonical):
        canonical.encode(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b'{"a":1,"b":2,"a":1}', "`a` stands twice", id="a key twice"),
        pytest.param(b'{"a":{"\\u0062":1,"b":2}}', "`b` stands twice", id="a key twice, once escaped"),
        pytest.param(b"NaN", "no number", id="NaN"),
        pytest.param(b"[-Infinity]", "no number", id="minus infinity"),
        pytest.param(b"1e999", "too large", id="a float that is none"),
        pytest.param(b'"\\ud800"', "no characters", id="a lone surrogate"),
        pytest.param(b'{"\\udc00\\ud800":1}', "no characters", id="surrogates the wrong way round"),
        pytest.param(b'"\xff"', "no characters", id="not UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "no characters", id="a surrogate as UTF-8"),
        pytest.param(b"\xef\xbb\xbf1", "goes wrong", id="a byte order mark"),
        pytest.param(b"", "goes wrong", id="nothing"),
        pytest.param(b"1 2", "extra data", id="something after the value"),
        pytest.param(b"[1,]", "goes wrong", id="a comma too many"),
        pytest.param(b"{'a':1}", "goes wrong", id="single quotes"),
        pytest.param(b"01", "extra data", id="a leading zero"),
        pytest.param(b'"a\nb"', "control character", id="a line break in a text"),
        pytest.param(b"[" * 33 + b"]" * 33, "deeper than 32", id="33 levels"),
        pytest.param(b"[" * 10_000, "deeper than 32", id="10,000 levels and no end"),
        pytest.param(b'{"a":' * 500_000, "bytes", id="two megabytes"),
        pytest.param(b'{"a":' * 200_000, "more than 100000 values", id="a million bytes of brackets"),
        pytest.param(b"1" * 5_000, "more than 64 characters", id="5,000 digits"),
        pytest.param(b"0." + b"1" * 65, "more than 64 characters", id="a long fraction"),
        pytest.param(b"[" + b"1," * 100_000 + b"1]", "more than 100000 values", id="too many values"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(data, why):
    with pytest.raises(NotStrictJson, match=why) as refused:
        canonical.decode(data)
    assert refused.value.do


def test_brackets_and_digits_inside_texts_are_not_counted():
    text = "[{" * 100 + "9" * 200 + '"\\'
    data = json.dumps([text, text]).encode()
    assert canonical.decode(data, limits=Limits(most_depth=1, most_digits=3, most_items=4)) == [text, text]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}",:\\ud8-+.eE019 truefalsn', max_size=40).map(str.encode))
def test_whatever_comes_in_is_read_or_refused(data):
    try:
        value = canonical.decode(data)
    except NotStrictJson:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def test_content_that_does_not_fit_names_the_place():
    with pytest.raises(NotStrictJson, match=r"names\[0\]"):
        canonical.decode_as(b'{"type":"Note","at":1,"names":[5]}', Note)
    with pytest.raises(NotStrictJson, match="unknown field"):
        canonical.decode_as(b'{"type":"Note","at":1,"names":[],"more":5}', Note)
