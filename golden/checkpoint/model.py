# SPDX-License-Identifier: BSD-2-Clause
"""A checkpoint as it is published: one file, or a folder with shards and a configuration."""

import fnmatch
import json
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .gguf import GgufReader, is_gguf
from .safetensors import BadFile, Reader, Tensor

INDEX = ".safetensors.index.json"
"""Ending of the file that names the shard of every tensor."""

CONFIG = "config.json"

_MODELOPT = "hf_quant_config.json"
"""Where ModelOpt describes how weights were quantized."""

# Weights in files that are not read, by their endings.
_OTHER_WEIGHTS = (".safetensors", INDEX, ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf",
                  ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".npz", ".tflite")


class Model:
    """An open checkpoint: the tensors of all its shards, and what lies beside them.

    It is a context manager, which closes the files.

    Parameters
    ----------
    path : path-like
        A safetensors or GGUF file; an index of shards, NAME.safetensors.index.json; or a folder
        that holds such an index or safetensors files.

    Attributes
    ----------
    path : Path
    folder : Path or None
        That of a model of shards; None for one file.
    index : str
        Name of the index in the folder; "" if there is none.
    shards : dict of str to Reader
        By name.
    tensors : dict of str to Tensor
        Of all shards.
    metadata : dict of str to str
        Of all shards.
    config : dict
        What config.json holds; empty if there is none.
    quantization : dict
        How weights were quantized: ``quantization_config`` in config.json, or what ModelOpt writes
        beside it.

    Raises
    ------
    BadFile
        If a file is not what it must be, or the shards do not fit each other.
    OSError
        If a file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.folder: Path | None = None
        self.index = ""
        self.shards: dict[str, Reader] = {}
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, str] = {}
        self.config: dict[str, Any] = {}
        self.quantization: dict[str, Any] = {}
        self._shard_of: dict[str, str] = {}
        with ExitStack() as stack:
            for name in self._find():
                shard = self.path if self.folder is None else self.folder / name
                self.shards[name] = stack.enter_context(_reader(shard))
            self._files = stack.pop_all()
        try:
            self._join()
            if self.folder is not None:
                self._read_configs(self.folder)
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Reads bytes of a tensor, all or those from ``start`` to ``stop``."""
        return self.shards[self._shard_of[name]].read(name, start, stop)

    def shard_of(self, name: str) -> str:
        """The shard that holds a tensor."""
        return self._shard_of[name]

    def ignored(self, name: str) -> str:
        """The pattern of the configuration by which a tensor was not quantized, or "".

        Patterns are names of modules, from the start or at the end; wildcards, as ModelOpt's; or
        regular expressions after "re:", as those of compressed-tensors.
        """
        module = name.rpartition(".")[0] or name
        for pattern in self._ignored:
            if pattern.startswith("re:"):
                try:
                    if re.match(pattern[3:], module) or re.match(pattern[3:], name):
                        return pattern
                except re.error as error:
                    raise BadFile(f"{self.path}: the configuration ignores {pattern!a}, which is "
                                  f"no regular expression: {error}") from None
            elif (module == pattern or f"{name}.".startswith(f"{pattern}.")
                  or module.endswith(f".{pattern}") or fnmatch.fnmatchcase(module, pattern)
                  or fnmatch.fnmatchcase(name, pattern)):
                return pattern
        return ""

    def others(self) -> tuple[list[str], list[str]]:
        """Files of the folder that are copied, and those that are not.

        Not copied are weights in files that were not read, and ModelOpt's description.

        Returns
        -------
        copied, left : list of str
            Names below the folder.
        """
        copied: list[str] = []
        left: list[str] = []
        if self.folder is None:
            return copied, left
        for folder, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(self.folder).as_posix()
                if file.startswith(".") or name in (*self.shards, self.index, CONFIG):
                    continue
                if any(name == f"{shard}.json" for shard in self.shards):
                    # The manifest beside a converted shard.
                    continue
                other = file.endswith(_OTHER_WEIGHTS) or name == _MODELOPT or not path.is_file()
                (left if other else copied).append(name)
        return copied, left

    def _find(self) -> Iterable[str]:
        """Names of the shards."""
        if not self.path.is_dir():
            if not self.path.name.endswith(INDEX):
                return [self.path.name]
            self.folder = self.path.parent
            self.index = self.path.name
            return self._indexed(self.path)
        self.folder = self.path
        files = sorted(path.name for path in self.path.iterdir())
        indices = [name for name in files if name.endswith(INDEX)]
        if len(indices) > 1 and f"model{INDEX}" in indices:
            indices = [f"model{INDEX}"]
        if len(indices) > 1:
            raise BadFile(f"{self.path} must hold one index of shards, not {len(indices)}: name "
                          f"one, such as {self.path / indices[0]}")
        if indices:
            self.index, = indices
            return self._indexed(self.path / self.index)
        if not (shards := [name for name in files if name.endswith(".safetensors")]):
            raise BadFile(f"{self.path} holds neither NAME{INDEX} nor a safetensors file")
        return shards

    def _indexed(self, path):
        index = _json(path)
        names = index.get("weight_map")
        if not (isinstance(names, dict) and names
                and all(isinstance(shard, str) for shard in names.values())):
            raise BadFile(f"{path} must have a weight_map of names to shards")
        for shard in names.values():
            # A name that cannot be printed, such as one with a null byte, can no file have.
            if (Path(shard).name != shard or shard.startswith(".")
                    or not shard.isprintable()):
                raise BadFile(f"{path} must name shards in its own folder, not {shard!a}")
        self._shard_of = names
        return dict.fromkeys(sorted(names.values()))

    def _join(self):
        stated = self._shard_of
        self._shard_of = {}
        for shard, reader in self.shards.items():
            for name, tensor in reader.tensors.items():
                if name in self.tensors:
                    raise BadFile(f"{reader.path} has a tensor {name!a}, and so has "
                                  f"{self._shard_of[name]}")
                self.tensors[name] = tensor
                self._shard_of[name] = shard
            self.metadata |= reader.metadata
        for name, shard in stated.items():
            if self._shard_of.get(name) != shard:
                raise BadFile(f"{shard} has no tensor {name!a}, though {self.index} says so")

    def _read_configs(self, folder):
        if (folder / CONFIG).exists():
            self.config = _json(folder / CONFIG)
        found = self.config.get("quantization_config")
        if found is None and isinstance(text := self.config.get("text_config"), dict):
            found = text.get("quantization_config")
        if found is None and (folder / _MODELOPT).exists():
            found = _json(folder / _MODELOPT).get("quantization")
        if found is not None:
            if not isinstance(found, dict):
                raise BadFile(f"{folder} must have a quantization_config that is a JSON object")
            self.quantization = found

    @property
    def _ignored(self):
        for key in ("ignore", "exclude_modules", "modules_to_not_convert",
                    "llm_int8_skip_modules", "ignored_layers"):
            patterns = self.quantization.get(key)
            if isinstance(patterns, list):
                yield from (p for p in patterns if isinstance(p, str) and p)

    @property
    def block(self) -> tuple[int, int] | None:
        """Rows and columns of a weight that share a scale of FP8, as the configuration says."""
        stated = self.quantization.get("weight_block_size")
        groups = self.quantization.get("config_groups")
        if stated is None and isinstance(groups, dict):
            for group in groups.values():
                weights = group.get("weights") if isinstance(group, dict) else None
                if isinstance(weights, dict) and weights.get("block_structure"):
                    stated = weights["block_structure"]
        if (isinstance(stated, list) and len(stated) == 2
                and all(type(n) is int and n >= 1 for n in stated)):
            return stated[0], stated[1]
        return None


def _reader(path):
    if path.is_file() and is_gguf(path):
        return GgufReader(path)
    return Reader(path)


def _json(path):
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} must be JSON ({type(error).__name__}: "
                      f"{str(error)[:100]!a})") from None
    if not isinstance(found, dict):
        raise BadFile(f"{path} must be a JSON object")
    return found
