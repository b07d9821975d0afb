"""Read from a native library what memory pages it can be loaded with."""

import struct

_PT_LOAD = 1


def load_alignment(content: bytes) -> int:
    """The smallest alignment of a library's loadable segments, in bytes.

    Raises:
        ValueError: it is no little-endian ELF file.
    """
    if content[:4] != b"\x7fELF" or content[5] != 1:
        raise ValueError("not a little-endian ELF file")
    wide = content[4] == 2
    (table,) = struct.unpack_from("<Q", content, 32) if wide else struct.unpack_from("<I", content, 28)
    size, count = struct.unpack_from("<HH", content, 54 if wide else 42)
    alignments = []
    for number in range(count):
        at = table + number * size
        if struct.unpack_from("<I", content, at)[0] == _PT_LOAD:
            alignments.append(
                struct.unpack_from("<Q", content, at + 48)[0]
                if wide
                else struct.unpack_from("<I", content, at + 28)[0]
            )
    if not alignments:
        raise ValueError("no loadable segment")
    return int(min(alignments))
