"""The article of a class name follows its first sound."""

from __future__ import annotations

import pytest

from pipeline.article import with_article


@pytest.mark.parametrize(
    "noun",
    [
        *("a cat", "an ankle boot", "an apple", "an Egyptian cat", "an ice cream", "an orange", "an umbrella"),
        *("a unicorn", "a uniform", "a university", "a user", "a utensil", "a ukulele", "a European bee", "a ewe"),
        *(
            "a one-way street",
            "a onesie",
            "a St Bernard",
            "an NBA jersey",
            "an A-frame",
            "an onion",
            "an unidentified object",
            "an urn",
            "an urchin",
            "an usher",
            "a UFO",
        ),
        *("an hour glass", "a horse", "an heirloom", "an honour guard", "a honeycomb", "a yak", "a house"),
        *("an X-ray", "a T-shirt", "a U-turn", "an SUV", "a TV", "an MP3 player", "an LED lamp", "a CD", "an éclair"),
        *("an A-line skirt", "an e-reader", "a U-boat", "an i-beam", "an F-16", "an hour", "an An-225", "a D-pad"),
        *("an 8-ball", "an 11", "an 18-wheeler", "an 80", "a 110", "a 7", "a 1"),
    ],
)
def test_the_article_is_the_one_that_is_spoken(noun: str) -> None:
    assert with_article(noun.partition(" ")[2]) == noun


@pytest.mark.parametrize("noun", ["the moon", "the-moon", "an-apple", "A cat", "an old man", "", "?"])
def test_a_noun_with_an_article_and_no_noun_stay_as_they_are(noun: str) -> None:
    assert with_article(noun) == noun


def test_a_letter_and_a_word_of_another_script_are_nouns() -> None:
    assert with_article("a") == "an a"
    assert with_article("猫") == "a 猫"
