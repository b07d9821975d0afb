"""A serialized ONNX model without its large weights, which protobuf would copy one after the other.

Source: the encoding of protobuf's messages (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import GraphProto, ModelProto, TensorProto

_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types: of numbers in as many bytes as they need, of what tells its length, and by type the bytes of
numbers of one size."""

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_OUTSIDE = TensorProto(data_location=TensorProto.EXTERNAL).SerializeToString()


def without_weights(content: memoryview, least_bytes: int) -> bytes:
    """A model in which large initializers have no values, and say that these lie in another file.

    Args:
        content: a serialized ModelProto.
        least_bytes: of an initializer's values from which on they are left out.

    Returns:
        A serialized ModelProto.

    Raises:
        ValueError: it is none.
    """

    def tensor(message: memoryview) -> bytes:
        parts = []
        for number, field, value in _fields(message):
            is_left_out = number == _RAW_DATA and len(value) >= least_bytes
            parts.append(_OUTSIDE if is_left_out else bytes(field))
        return b"".join(parts)

    return _changed(content, _GRAPH, lambda graph: _changed(graph, _INITIALIZER, tensor))


def _changed(message: memoryview, changing: int, change: Callable[[memoryview], bytes]) -> bytes:
    """A message whose fields of one number, messages themselves, are changed."""
    parts = []
    for number, field, value in _fields(message):
        if number == changing:
            inner = change(value)
            parts += [_encoded(number << 3 | _LENGTH), _encoded(len(inner)), inner]
        else:
            parts.append(bytes(field))
    return b"".join(parts)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a message: number, all of its bytes, and its value without tag and length."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _decoded(message, at)
        kind = tag & 7
        if kind == _LENGTH:
            size, at = _decoded(message, at)
        elif kind == _VARINT:
            size = _decoded(message, at)[1] - at
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"a field of type {kind} at byte {start}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {start}, which is cut off")
        yield tag >> 3, message[start : at + size], message[at : at + size]
        at += size


def _decoded(message: memoryview, at: int) -> tuple[int, int]:
    """A number in as many bytes as it needs, seven bits in each, and where it ends."""
    number = shift = 0
    while at < len(message):
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError(f"a number at byte {at}, which is cut off")


def _encoded(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
