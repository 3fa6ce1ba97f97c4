"""The roles of the members of tars, inferred from the first sample: where captions and labels are."""

from __future__ import annotations

from typing import Any

from pipeline.sharding.format.file_addresses import FoundFile
from pipeline.sharding.sources.foreign_json import parse_json
from pipeline.sharding.sources.tar_bytes import open_tar
from pipeline.sharding.sources.tar_listing import MAX_TEXT_BYTES, MEMBER_NAME, META_NAME, MemberRoles
from pipeline.sharding.sources.tar_members import Member, tar_members

_MAX_BYTES = 1 << 40  # so that no member is rejected for its size
_CAPTIONS, _LABELS = ("captions", "caption"), ("label", "cls")


def member_roles(tar: FoundFile) -> MemberRoles:
    """The roles of a tar's members: .txt and .cls, or else fields of the .json. A tar with a faulty end is read too.

    A list of captions in the .json, as in Tutelage's own tars, takes precedence over the .txt.

    Raises:
        InputError: the tar is damaged before the end of its first sample.
    """
    members, metadata = _first_sample(tar)
    caption = next((name for name in _CAPTIONS if metadata.get(name)), None)
    label = next((name for name in _LABELS if name in metadata), None)
    in_json = caption is not None and ("txt" not in members or isinstance(metadata[caption], list))
    return MemberRoles(
        captions="json" if in_json else "txt",
        caption_field=caption or "caption",
        labels="json" if "cls" not in members and label is not None else "cls",
        label_field=label or "label",
        ends="read",
        max_bytes=_MAX_BYTES,
    )


def _first_sample(tar: FoundFile) -> tuple[set[str], dict[str, Any]]:
    """The extensions of the first sample, and the content of its .json; {} unless it is a readable JSON object."""
    extensions: set[str] = set()
    key: str | None = None
    json_member: Member | None = None
    with open_tar(tar) as read:
        for member in tar_members(tar.url, tar.size, read, max_bytes=_MAX_BYTES, on_end=lambda _: None):
            match = None if META_NAME.match(member.name) else MEMBER_NAME.fullmatch(member.name)
            if match is None:
                continue
            if key not in (None, match.group(1)):
                break
            key = match.group(1)
            extensions.add(match.group(2).lower())
            if match.group(2).lower() == "json":
                json_member = member
        if json_member is None or json_member.length > MAX_TEXT_BYTES:
            return extensions, {}
        try:
            value = parse_json(read(json_member.offset, json_member.length))
        except (ValueError, RecursionError):
            return extensions, {}
    return extensions, value if isinstance(value, dict) else {}
