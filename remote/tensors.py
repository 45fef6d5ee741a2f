"""The tensors of a checkpoint, by name, shape and dtype: from its header, without running its code.

safetensors: the JSON header, and whether the file is as long as it says. torch's zip format: the
opcodes of its pickle are walked by a small machine that knows tensors, plain values and containers;
whatever else the pickle names stays a name. Nothing is imported and nothing is called.
"""

from __future__ import annotations

import json
import os
import pickletools
import struct
import zipfile
import zlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

HEADER_MAX = 100 * 1024 * 1024
PICKLE_MAX = 64 * 1024 * 1024
OPCODES_MAX = 5_000_000
TENSORS_MAX = 200_000
NODES_MAX = 1_000_000
DEPTH_MAX = 8
ROOTS = ("state_dict", "model_state_dict", "model", "module")

_SAFE = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
_STORAGE = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}  # fmt: skip

Tensors = Dict[str, Tuple[List[int], str]]


class Unreadable(Exception):
    """The file is no checkpoint that can be read; the message says why."""


class Tensor(NamedTuple):
    shape: Tuple[int, ...]
    dtype: str


class Name(NamedTuple):
    """Something the pickle names in a module: never imported."""

    module: str
    name: str


class Storage(NamedTuple):
    dtype: str


class Opaque:
    """A value of no interest."""


def read(path: str, root: Optional[str] = None) -> Tensors:
    """{name: (shape, dtype)}; `root` is the dotted place of the state dict in a torch file."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        if path.endswith(".json"):
            return _sharded(path)
        if start[:4] == b"PK\x03\x04":
            return _torch(path, root)
        return _safetensors(path, start)
    except OSError as exc:
        raise Unreadable(str(exc.strerror or exc)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise Unreadable("a zip file that cannot be read: %s" % exc) from None


# --- safetensors ----------------------------------------------------------------------------------


def _safetensors(path: str, start: bytes) -> Tensors:
    size = os.stat(path).st_size
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(HEADER_MAX, size):
        raise Unreadable("neither a safetensors file nor a zip file of torch.save")
    with open(path, "rb") as file:
        file.seek(8)
        header = _object(file.read(length))
    header.pop("__metadata__", None)
    found: Tensors = {}
    end = 0
    for name, entry in header.items():
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _is_shape(shape) or not _is_shape(offsets) or len(offsets) != 2:
            raise Unreadable("the header's entry %r is no tensor" % name[:80])
        found[name] = (shape, _SAFE.get(str(entry.get("dtype")), str(entry.get("dtype"))[:20]))
        end = max(end, offsets[1])
    if 8 + length + end > size:
        raise Unreadable("the file is cut: %d of %d bytes are there" % (size, 8 + length + end))
    return found


def _object(raw: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable("its header is no JSON") from None
    lawful = isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())
    if not lawful or len(value) > TENSORS_MAX:
        raise Unreadable("its header is no list of tensors")
    assert isinstance(value, dict)
    return value


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _sharded(path: str) -> Tensors:
    """An index of safetensors shards that lie beside it."""
    with open(path, "rb") as file:
        index = _object(file.read(HEADER_MAX))
    shards = {str(name) for name in index.get("weight_map", {}).values()}
    found: Tensors = {}
    for shard in sorted(shards):
        if "/" in shard or not shard.endswith(".safetensors"):
            raise Unreadable("the index names %r, which is no shard beside it" % shard[:80])
        found.update(read(os.path.join(os.path.dirname(path), shard)))
    return found


# --- torch ----------------------------------------------------------------------------------------


def _torch(path: str, root: Optional[str]) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise Unreadable("a zip file, but none of torch.save (no data.pkl)")
        if archive.getinfo(names[0]).file_size > PICKLE_MAX:
            raise Unreadable("its data.pkl is larger than %d bytes" % PICKLE_MAX)
        with archive.open(names[0]) as file:
            raw = file.read(PICKLE_MAX + 1)
    try:
        value = Machine().run(raw)
    except Unreadable:
        raise
    except Exception as exc:  # whatever a made-up pickle brings the machine to
        raise Unreadable("its pickle is damaged (%s)" % type(exc).__name__) from None
    return dict(_flat(_at(value, root), "", [NODES_MAX]))


def _at(value: Any, root: Optional[str]) -> Any:
    if root is None:
        if isinstance(value, dict):
            for name in ROOTS:
                below = value.get(name)
                has_any = next(_flat(below, "", [NODES_MAX]), None) is not None
                if isinstance(below, dict) and has_any:
                    return below
        return value
    for step in root.split("."):
        if not isinstance(value, dict) or step not in value:
            raise Unreadable("it has no %r" % root[:80])
        value = value[step]
    return value


def _flat(
    value: Any, above: str, left: List[int], depth: int = 0
) -> Iterator[Tuple[str, Tuple[List[int], str]]]:
    """`left` bounds the walk: a dict may be in itself, or in many others."""
    left[0] -= 1
    if left[0] < 0:
        raise Unreadable("it has more than %d values" % NODES_MAX)
    if isinstance(value, Tensor):
        yield above.rstrip("."), (list(value.shape), value.dtype)
    elif isinstance(value, dict) and depth < DEPTH_MAX:
        for name, below in value.items():
            if isinstance(name, (str, int)):
                yield from _flat(below, "%s%s." % (above, name), left, depth + 1)


class Machine:
    """Carries out pickle opcodes on inert values."""

    def __init__(self) -> None:
        self.stack: List[Any] = []
        self.marks: List[int] = []
        self.memo: Dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if count > OPCODES_MAX:
                raise Unreadable("its pickle has more than %d opcodes" % OPCODES_MAX)
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise Unreadable("its pickle has no end")

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSH_ARGUMENT:
            self.stack.append(argument)
        elif name in _PUSH:
            self.stack.append(_PUSH[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        else:
            getattr(self, "_" + name.lower())(argument)

    def _pops(self, count: int) -> List[Any]:
        if count > len(self.stack):
            raise Unreadable("its pickle is damaged")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _marked(self) -> List[Any]:
        return self._pops(len(self.stack) - self.marks.pop())

    def _pop(self, _: Any) -> None:
        self._pops(1)

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, _: Any) -> None:
        self.stack.append(tuple(self._pops(1)))

    def _tuple2(self, _: Any) -> None:
        self.stack.append(tuple(self._pops(2)))

    def _tuple3(self, _: Any) -> None:
        self.stack.append(tuple(self._pops(3)))

    def _list(self, _: Any) -> None:
        self.stack.append(self._marked())

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(_pairs(items[0::2], items[1::2]))

    def _append(self, _: Any) -> None:
        (item,) = self._pops(1)
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: List[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        key, value = self._pops(2)
        self._update([key], [value])

    def _setitems(self, _: Any) -> None:
        items = self._marked()
        self._update(items[0::2], items[1::2])

    def _update(self, keys: List[Any], values: List[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(keys, values))

    def _additems(self, _: Any) -> None:
        self._marked()

    def _frozenset(self, _: Any) -> None:
        self._marked()
        self.stack.append(Opaque())

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self.stack.append(Name(module, name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._pops(2)
        self.stack.append(Name(str(module), str(name)))

    def _inst(self, _: Any) -> None:
        self._marked()
        self.stack.append(Opaque())

    _obj = _inst

    def _newobj(self, _: Any) -> None:
        self._pops(2)
        self.stack.append(Opaque())

    def _newobj_ex(self, _: Any) -> None:
        self._pops(3)
        self.stack.append(Opaque())

    def _build(self, _: Any) -> None:
        self._pops(1)  # the state of an object: none of ours has one

    def _binpersid(self, _: Any) -> None:
        (about,) = self._pops(1)
        kind = about[1] if isinstance(about, tuple) and len(about) > 1 else None
        known = isinstance(kind, Name) and kind.name in _STORAGE
        self.stack.append(Storage(_STORAGE[kind.name] if known and kind else "unknown"))

    def _persid(self, _: Any) -> None:
        self.stack.append(Opaque())

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pops(2)
        given = arguments if isinstance(arguments, tuple) else ()
        self.stack.append(_reduced(function, given))


def _reduced(function: Any, given: Tuple[Any, ...]) -> Any:
    name = function.name if isinstance(function, Name) else ""
    if name == "OrderedDict" or name == "defaultdict":
        return {}
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3") and len(given) > 3:
        dtype = given[0].dtype if isinstance(given[0], Storage) else "unknown"
        named = [each.name for each in given if isinstance(each, Name) and each.module == "torch"]
        return _tensor(given[2], named[0] if name.endswith("v3") and named else dtype)
    if name in ("_rebuild_parameter", "_rebuild_parameter_with_state") and given:
        return given[0]
    if name == "_rebuild_meta_tensor_no_storage" and len(given) > 1:
        return _tensor(given[1], given[0].name if isinstance(given[0], Name) else "unknown")
    if name == "Size" and given:
        return given[0]
    return Opaque()


def _tensor(shape: Any, dtype: str) -> Any:
    lawful = isinstance(shape, (tuple, list)) and all(type(each) is int for each in shape)
    return Tensor(tuple(shape), dtype) if lawful else Opaque()


def _pairs(keys: List[Any], values: List[Any]) -> Dict[Any, Any]:
    return {key: value for key, value in zip(keys, values) if isinstance(key, (str, int))}


_PUSH_ARGUMENT = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_PUSH: Dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": Opaque,
    "EXT1": Opaque, "EXT2": Opaque, "EXT4": Opaque, "NEXT_BUFFER": Opaque,
}  # fmt: skip
