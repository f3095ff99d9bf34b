"""What is done to a file: it is cut, its bits, bytes or values are changed, its header is forged, or all of it."""

import json
from typing import Any

import yaml
from hypothesis import strategies as st

HOSTILE = st.sampled_from(
    ["../outside", "/etc/passwd", "__import__('os').system('true')", "!!python/object/apply:os.system ['true']", "\0"]
)
ODD = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**4)
    | st.sampled_from([2**31, 2**62, 2**64, 10**30])
    | st.floats()
    | st.text(max_size=20)
    | HOSTILE
)
VALUES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
NESTED = st.integers(10, 100_000).map(lambda depth: b"[" * depth)


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    """The file's bytes, damaged or forged."""
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "insert", "json", "header", "anything", "nested"]))
    start = draw(st.integers(0, max(len(original) - 1, 0)))
    match kind:
        case "cut":
            return original[:start]
        case "flip":
            flipped = bytearray(original)
            for place in draw(st.lists(st.integers(0, 8 * len(original) - 1), min_size=1, max_size=3, unique=True)):
                flipped[place // 8] ^= 1 << place % 8
            return bytes(flipped)
        case "overwrite":
            other = draw(st.binary(min_size=1, max_size=16))
            return original[:start] + other + original[start + len(other) :]
        case "insert":
            return original[:start] + draw(st.binary(min_size=1, max_size=16)) + original[start:]
        case "anything":
            return draw(st.binary(max_size=200))
        case "nested":
            return draw(NESTED)
    size = int.from_bytes(original[:8], "little")
    if kind == "header" and size < len(original):  # of safetensors: its length alone, or what it says
        if draw(st.booleans()):
            return (
                draw(st.integers(0, 2**64 - 1) | st.sampled_from([size + 1, 10**8, 2**63])).to_bytes(8, "little")
                + (original[8:])
            )
        header = json.dumps(replaced(draw, json.loads(original[8 : 8 + size]))).encode()
        return len(header).to_bytes(8, "little") + header + original[8 + size :]
    try:
        content = yaml.safe_load(original)  # JSON too
    except (ValueError, yaml.YAMLError):
        content = draw(VALUES)
    return json.dumps(replaced(draw, content)).encode()


def replaced(draw: st.DrawFn, content: Any) -> Any:
    """The same with one value, somewhere in it, replaced or taken out, or one more."""
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    if isinstance(content, list):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], replaced(draw, content[place]), *content[place + 1 :]]
    name = draw(st.sampled_from(sorted(content)))
    match draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"])):
        case "remove":
            return {key: value for key, value in content.items() if key != name}
        case "rename":
            other = draw(st.text(max_size=8) | HOSTILE)
            return {other if key == name else key: value for key, value in content.items()}
        case "add":
            return {**content, draw(st.text(max_size=8) | HOSTILE): draw(VALUES)}
    return {**content, name: replaced(draw, content[name])}
