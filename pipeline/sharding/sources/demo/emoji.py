"""Emoji: concepts that several artists have drawn, with names, tags and a taxonomy.

A concept is an emoji without skin tone that every chosen pack contains (1,570 with all five packs). Its label is its
subgroup ("animal-bird") if that has enough concepts; its taxonomy path is (group, subgroup). An image's family is its
artist: Fluent flat and Fluent 3D are one family, because they render the same drawing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from pipeline.config import digest, unkeyed
from pipeline.errors import InputError, UnknownNameError
from pipeline.progress import Progress
from pipeline.sharding.sources.base import Collection, Item, SourceConfig, SourceDescription
from pipeline.sharding.sources.demo.emoji_packs import (
    FAMILIES,
    STYLES,
    TABLE_PACK,
    Drawing,
    EmojiStyle,
    normalise_hexcode,
    openmoji_table,
)
from pipeline.sharding.sources.demo.npm_packs import Pack, check_packs, fetch_packs

GROUPS = (
    "smileys-emotion",
    "people-body",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
    "symbols",
    "flags",
)

_ZWJ = "200d"
_GENDER_SIGNS = {"2640", "2642"}
_FACING_RIGHT = "27a1"
# A man or woman in a role is mapped to person.
_TO_PERSON = {"1f468": "1f9d1", "1f469": "1f9d1"}
# Concepts that differ only in gender or age, which their code points do not show.
_SAME_CONCEPT = {
    "1f466": "1f9d2",  # boy -> child
    "1f467": "1f9d2",  # girl -> child
    "1f474": "1f9d3",  # old man -> older person
    "1f475": "1f9d3",  # old woman -> older person
    "1f934": "1fac5",  # prince -> person with crown
    "1f478": "1fac5",  # princess -> person with crown
    "1f930": "1fac4",  # pregnant woman -> pregnant person
    "1fac3": "1fac4",  # pregnant man -> pregnant person
    "1f385": "1f9d1-1f384",  # Santa Claus -> Mx Claus
    "1f936": "1f9d1-1f384",  # Mrs. Claus -> Mx Claus
    "1f57a": "1f483",  # man dancing -> woman dancing
}


@dataclass(frozen=True, slots=True)
class Concept:
    """An emoji without skin tone: its normalised hexcode, CLDR name, tags, group and subgroup."""

    hexcode: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str

    @property
    def content_group(self) -> str:
        """The concept's hexcode without gender and direction: equal for "man running" and "person running"."""
        points = self.hexcode.split("-")
        if _ZWJ in points:
            points = [point for point in points if point not in _GENDER_SIGNS | {_ZWJ, _FACING_RIGHT}]
        code = "-".join(_TO_PERSON.get(point, point) for point in points)
        return _SAME_CONCEPT.get(code, code)


class EmojiConfig(SourceConfig):
    """Which emoji to read, in which designs, and their image size."""

    about: ClassVar[SourceDescription] = SourceDescription(
        "emoji in four designs, with names, tags and a taxonomy (demo)",
        "the extra `demo`: pip install 'tutelage[demo]'; downloads 26 MB once",
        ("max_concepts=200",),
    )
    kind: Literal["emoji"] = "emoji"
    size: int = Field(72, ge=16, le=512, description="Width and height of the images in pixels.")
    families: tuple[str, ...] = Field(
        FAMILIES, min_length=1, description="Families (designs of one artist) to include."
    )
    groups: tuple[str, ...] = Field(GROUPS, min_length=1, description="Unicode emoji groups to include.")
    max_concepts: int | None = Field(
        None,
        ge=1,
        description="Maximum number of concepts (distinct emoji), chosen evenly from all subgroups. null: all.",
    )
    min_concepts: int = Field(
        12,
        ge=2,
        le=1000,
        description="Minimum number of concepts for a subgroup to be a class. Emoji of smaller subgroups have "
        "captions but no label.",
    )
    packs: Path | None = unkeyed(
        None, description="Folder with the emoji packages, if already downloaded. null: download them once with npm."
    )
    fingerprint: str | None = Field(None, description="Digest of the emoji packages; set by the program.")

    @field_validator("families")
    @classmethod
    def _known_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        return _known("family", families, FAMILIES)

    @field_validator("groups")
    @classmethod
    def _known_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        return _known("emoji group", groups, GROUPS)

    @property
    def styles(self) -> tuple[EmojiStyle, ...]:
        return tuple(style for style in STYLES if style.family in self.families)

    @property
    def holdout_families(self) -> tuple[str, ...]:
        return self.families

    def check(self, downloads: Path) -> None:
        if find_spec("resvg_py") is None:
            raise InputError("drawing emoji needs resvg-py: pip install 'tutelage[demo]'")
        check_packs(_packs(self.styles, TABLE_PACK), self.packs, downloads / "emoji")

    def resolved(self) -> Self:
        packs = {pack.spec: pack.integrity for pack in _packs(self.styles, TABLE_PACK)}
        return self.model_copy(update={"fingerprint": digest(packs)})

    def collect(self, downloads: Path, progress: Progress) -> Collection:
        return collect_emoji(self, self.styles, TABLE_PACK, downloads / "emoji", progress)


def collect_emoji(
    config: EmojiConfig, styles: Sequence[EmojiStyle], table_pack: Pack, downloads: Path, progress: Progress
) -> Collection:
    """The concepts that all packs draw, each in every style.

    Args:
        table_pack: the pack with names, tags and groups of all emoji.
        downloads: folder for fetched packs.
    """
    wanted = _packs(styles, table_pack)
    archives = fetch_packs(wanted, config.packs, downloads, progress)
    progress(note="reading the packs")
    drawings = {style.name: style.drawings(archives[style.pack.name]) for style in styles}
    concepts = _concepts(config, openmoji_table(archives[table_pack.name]), list(drawings.values()))
    labels = _labels(concepts, config.min_concepts)

    def items() -> Iterator[Item]:
        for concept in concepts:
            for style in styles:
                yield _item(concept, style, partial(drawings[style.name][concept.hexcode], config.size), labels)

    return Collection(
        title="Emoji in several hands",
        items=items,
        total=len(concepts) * len(styles),
        label_names=labels,
        root="emoji",
        credits=tuple(style.credit for style in styles),
    )


def _concepts(
    config: EmojiConfig, table: list[dict[str, Any]], drawings: Sequence[Mapping[str, Drawing]]
) -> list[Concept]:
    concepts = []
    for entry in table:
        hexcode = normalise_hexcode(entry["hexcode"])
        if entry["skintone"] or entry["group"] not in config.groups or not all(hexcode in drawn for drawn in drawings):
            continue
        tags = tuple(tag.strip() for tag in entry["tags"].split(",") if tag.strip())
        concepts.append(Concept(hexcode, entry["annotation"], tags, entry["group"], entry["subgroups"]))
    if config.max_concepts is None or len(concepts) <= config.max_concepts:
        return concepts
    turns: dict[str, int] = defaultdict(int)
    order = []
    for index, concept in enumerate(concepts):
        order.append((turns[concept.subgroup], index))
        turns[concept.subgroup] += 1
    chosen = sorted(index for _, index in sorted(order)[: config.max_concepts])
    return [concepts[index] for index in chosen]


def _item(concept: Concept, style: EmojiStyle, read: Callable[[], bytes], labels: Sequence[str]) -> Item:
    return Item(
        name=f"{concept.name} ({style.name})",
        read=read,
        label=concept.subgroup if concept.subgroup in labels else None,
        key=f"{concept.hexcode}-{style.name}",
        captions=captions(concept.name, concept.tags),
        group=concept.content_group,
        taxonomy=(concept.group, concept.subgroup),
        family=style.family,
        licence=style.credit.licence,
        extra={"hexcode": concept.hexcode, "style": style.name, "tags": list(concept.tags)},
    )


def captions(name: str, tags: Sequence[str]) -> tuple[str, ...]:
    """Captions of a concept, from its CLDR name and tags; the name alone comes first."""
    words = set(name.lower().replace(":", "").split())
    new_tags = [tag for tag in tags if not set(tag.lower().split()) <= words]
    texts = [name, f"an emoji of {name}"]
    if new_tags:
        texts.append(f"{name}, {', '.join(new_tags[:3])}")
    if len(new_tags) > 3:
        texts.append(f"{', '.join(new_tags[3:6])}: {name}")
    return tuple(texts)


def _labels(concepts: Sequence[Concept], min_concepts: int) -> tuple[str, ...]:
    """The subgroups with enough concepts, in Unicode's order; gender variants count once."""
    distinct = {(concept.subgroup, concept.content_group) for concept in concepts}
    counts = Counter(subgroup for subgroup, _ in distinct)
    order = dict.fromkeys(concept.subgroup for concept in concepts)
    return tuple(subgroup for subgroup in order if counts[subgroup] >= min_concepts)


def _packs(styles: Sequence[EmojiStyle], table_pack: Pack) -> list[Pack]:
    return list(dict.fromkeys([table_pack, *(style.pack for style in styles)]))


def _known(kind: str, given: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The given names, each once, in the order of `known`; an unknown one is a ValueError, as pydantic wants."""
    for name in given:
        if name not in known:
            raise ValueError(str(UnknownNameError(kind, name, known)))
    return tuple(name for name in known if name in given)
