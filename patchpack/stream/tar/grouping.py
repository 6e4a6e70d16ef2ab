"""The grouping of tar members into samples. Faults of broken shards are reported.

A sample is a run of members whose names are equal up to the first dot of the file name. The rest of a name is the member's
extension. webdataset groups members in the same way, but does not report losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.tar.members import Member


@dataclass
class Group:
    """The members of one sample by extension. If the sample cannot be used, `fault` is the reason."""

    stem: str
    members: dict[str, Member] = field(default_factory=dict)
    fault: str = ""


class Grouper:
    """A collector of members that returns complete samples. A sample is complete when a member of another sample begins."""

    def __init__(self, asked: SampleFields) -> None:
        self._asked = asked
        self._open: Group | None = None
        self._done: set[str] = set()

    def add(self, member: Member) -> Group | None:
        """Take the next member. If the member begins another sample, return the sample before, which is now complete."""
        if member.fault and not asked_for(member.name, self._asked):
            return None  # a link that is not read begins no sample
        stem, extension = split_name(member.name)
        group, whole = self._open, None
        if group is None or stem != group.stem:
            whole = self.close()
            group = self._open = Group(stem)
            if stem in self._done:
                group.fault = "this key appeared earlier in the same shard: its members are repeated or not adjacent"
        if extension in group.members:
            group.fault = group.fault or f"two members are named {member.name}"
        group.members[extension] = member
        return whole

    def cut(self, name: str) -> None:
        """Mark the sample of a member as incomplete, because the shard ends inside this member."""
        if self._open is None or self._open.stem != split_name(name)[0]:
            return  # no member of the sample arrived; the shard's fault names the member
        if asked_for(name, self._asked):
            self._open.fault = self._open.fault or f"the shard ends inside {name}"

    def close(self) -> Group | None:
        """Return the last sample at the end of the shard, or None if there is none."""
        group, self._open = self._open, None
        if group is not None:
            self._done.add(group.stem)
        return group


def split_name(name: str) -> tuple[str, str]:
    """Split a member name into (stem, extension). The stem ends at the first dot of the file name, except a leading dot.

    >>> split_name("a/b.c/img.seg.PNG")
    ('a/b.c/img', 'seg.png')
    """
    dot = name.find(".", name.rfind("/") + 2)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def asked_for(name: str, asked: SampleFields, size: int = 0) -> bool:
    """Return True if a member will be opened.

    Args:
        name: name of the member.
        asked: the requested image, labels and text, and the limits.
        size: size of the member in bytes, default 0.
    """
    extension = split_name(name)[1]
    limited = asked.is_image(extension) or (asked.text is not None and extension == asked.text.member)
    return (limited and size <= asked.limits.max_bytes) or extension in asked.labels
