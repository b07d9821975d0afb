"""Read from a .dex file which methods and classes its code names.

Source: Android Open Source Project, "Dalvik executable format" (string_ids, type_ids, proto_ids, method_ids).
"""

import struct
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, order=True)
class MethodReference:
    """A method that code names: its class like ``java/net/Socket``, and its descriptor like ``(I)V``."""

    owner: str
    name: str
    descriptor: str


class DexFile:
    """One .dex file."""

    def __init__(self, content: bytes) -> None:
        if content[:4] != b"dex\n":
            raise ValueError("not a dex file")
        self._content = content

    @cached_property
    def strings(self) -> list[str]:
        """Every string: names and constants."""
        return [self._string(offset) for (offset,) in self._table(56, "<I")]

    @cached_property
    def types(self) -> list[str]:
        """Every type by its descriptor, like ``Ljava/net/Socket;``."""
        return [self.strings[index] for (index,) in self._table(64, "<I")]

    @cached_property
    def defined(self) -> set[str]:
        """Classes that this file holds, like ``java/net/Socket``."""
        return {_class_name(self.types[row[0]]) for row in self._table(96, "<8I")}

    @cached_property
    def methods(self) -> list[MethodReference]:
        """Every method that is defined or called."""
        descriptors = [
            self._descriptor(returned, parameters) for _, returned, parameters in self._table(72, "<III")
        ]
        return [
            MethodReference(_class_name(self.types[owner]), self.strings[name], descriptors[proto])
            for owner, proto, name in self._table(88, "<HHI")
        ]

    def _descriptor(self, returned: int, parameters: int) -> str:
        listed: list[str] = []
        if parameters:
            (count,) = struct.unpack_from("<I", self._content, parameters)
            listed = [
                self.types[index] for index in struct.unpack_from(f"<{count}H", self._content, parameters + 4)
            ]
        return f"({''.join(listed)}){self.types[returned]}"

    def _table(self, at: int, row: str) -> list[tuple[int, ...]]:
        count, offset = struct.unpack_from("<II", self._content, at)
        size = struct.calcsize(row)
        return list(struct.iter_unpack(row, self._content[offset : offset + count * size]))

    def _string(self, offset: int) -> str:
        while self._content[offset] & 0x80:  # its length in UTF-16 units, 7 bits a byte
            offset += 1
        end = self._content.index(0, offset + 1)
        return self._content[offset + 1 : end].decode("utf-8", "surrogatepass")


def _class_name(descriptor: str) -> str:
    return descriptor.removeprefix("L").removesuffix(";")
