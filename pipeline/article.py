"""English nouns with their indefinite article, for captions and prompts that are generated from class names.

The article depends on the sound: a unicorn, an hour, an X-ray. The rules go by the spelling; the exceptions are those
among words that label images. Plurals, which have no article, are not recognised.
"""

from __future__ import annotations

import re
import unicodedata

# Initial vowels that sound as consonants: unicorn (but not unidentified), user, utensil, uranium, euro, ewe, one-way.
_AS_CONSONANT = re.compile(r"uni(?![dmn])|us[abeu]|ut[eio]|ur[aeiou]|uk|ufo|uv|ugand|eu|ew|on(e|ce)\b|onesie|ouija")
# Initial consonants that are silent, and numbers that begin with a vowel.
_AS_VOWEL = re.compile(r"hour|honest|honou?r|heir|8|1[18](?!\d)")
# Abbreviations with vowels that are read letter by letter.
_SPELLED = frozenset({"led", "mri", "nba", "suv"})
# Abbreviations without vowels that are read as words.
_READ_IN_FULL = frozenset({"mr", "mrs", "ms", "mt", "st"})
# Letters whose names begin with a vowel.
_VOWEL_NAMES = frozenset("aefhilmnorsx")
# A hyphen after "a" makes it a letter (A-line), but "the-moon" and "an-apple" are a noun with its article.
_HAS_ARTICLE = re.compile(r"a\s|(an|the)(\s|-[a-z])")


def with_article(noun: str) -> str:
    """The noun with "a" or "an" before it; a noun that has an article stays as it is.

    Args:
        noun: with its hyphens, without which "A-line skirt" would be a skirt of one line.
    """
    plain = "".join(char for char in unicodedata.normalize("NFD", noun.lower()) if not unicodedata.combining(char))
    words = re.findall(r"[^\W_]+", plain)
    if not words or _HAS_ARTICLE.match(plain):
        return noun
    return f"{'an' if _begins_with_vowel(words[0]) else 'a'} {noun}"


def _begins_with_vowel(word: str) -> bool:
    """Whether the first sound of a lower-case word is a vowel."""
    if _AS_VOWEL.match(word):
        return True
    if word in _READ_IN_FULL:
        return False
    if len(word) == 1 or word in _SPELLED or not re.search("[aeiouy]", word):
        return word[0] in _VOWEL_NAMES
    return word[0] in "aeiou" and not _AS_CONSONANT.match(word)
