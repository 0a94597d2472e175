"""How the values of options are read."""

import click
import pytest

from dnp.cli.kinds import Names, Numbers, Scales, Seeds, Size, Steps


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Seeds(), "3", [3]),
        (Seeds(), "0-3", [0, 1, 2, 3]),
        (Seeds(), "1,3, 8-10,9", [1, 3, 8, 9, 10]),
        (Size(), "768x512", (768, 512)),
        (Scales(), "7.5", (None, 7.5)),
        (Scales(), "dnp=5", ("dnp", 5.0)),
        (Names(), " plain, dnp,", ["plain", "dnp"]),
        (Numbers(), "3,-5,7.5", [3.0, -5.0, 7.5]),
        (Steps(), "4,16", [4, 16]),
        (Steps(least=0), "0", [0]),
    ],
)
def test_values(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (Seeds(), "x", "is neither a number, a range nor a list of them: write 3, 0-7 or 1,3,8-11"),
        (Seeds(), "-1", "is neither a number"),
        (Seeds(), "1,,2", "is neither a number"),
        (Seeds(), "3-1", "is an empty range: write the smaller seed first"),
        (Seeds(), str(2**63), "is too large: seeds go from 0"),
        (Seeds(), "0-99999,100000", "are 100,001 seeds: give 100,000 at most"),
        (Size(), "768", "is not a width and a height: write 768x512"),
        (Scales(), "dnp=x", "is neither a number nor ARM=NUMBER"),
        (Scales(), "nan", "is neither a number nor ARM=NUMBER"),
        (Numbers(), "3,", "is not a list of numbers: write one as in 3,5,7.5"),
        (Numbers(), "inf", "is not a list of numbers"),
        (Steps(), "0", "is not a list of whole numbers from 1 to 10,000"),
        (Steps(), "2.5", "is not a list of whole numbers"),
        (Names(), ", ,", "names nothing"),
    ],
)
def test_what_cannot_be_read(kind, text, says):
    with pytest.raises(click.BadParameter, match=says):
        kind.convert(text, None, None)
