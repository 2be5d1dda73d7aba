"""The list of attacks: each has a name and tests, and all of those are there."""

from attacks import ATTACKS
from test_requirements import names_of_tests


def test_every_attack_has_a_name_and_tests_that_there_are() -> None:
    missing = [
        f"{attack.number}: {test}"
        for attack in ATTACKS
        for test in attack.tests
        if test.partition("::")[2] not in names_of_tests(test.partition("::")[0])
    ]
    assert missing == []
    assert all(attack.name and attack.tests for attack in ATTACKS)


def test_no_number_is_left_out_or_given_twice() -> None:
    assert [attack.number for attack in ATTACKS] == [f"T{number}" for number in range(1, 29)]
