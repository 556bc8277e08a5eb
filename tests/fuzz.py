# SPDX-License-Identifier: BSD-2-Clause
"""Fuzzes what reads others' bytes: ``python -m tests.fuzz --help``.

Valid files are mutated. Whatever they have become, a reader returns, or raises one of the errors
that it documents. Mutants that are refused at a place where none was before are mutated further;
with ``--atheris`` the coverage of the code guides, too.
"""

import contextlib
import inspect
import io
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from golden import (
    Quantized,
    command,
    dequantize,
    quantize_activations,
    quantize_weights,
)
from golden.checkpoint import planes
from golden.checkpoint.convert import main as convert
from golden.checkpoint.model import Model
from golden.checkpoint.safetensors import BadFile, Reader
from golden.checkpoint.sources import plan
from golden.checkpoint.values import open_rows
from golden.codec.quantized import Blocks
from golden.command import Failure
from golden.formats import FORMATS
from golden.models import language
from golden.models.accuracy import Record
from golden.units import decoder, quantization_engine, weight_encoder
from hw import kit, registry
from hw.boards import identity
from hw.flow import cell_functions, mapped_library
from hw.flow.liberty import find_library
from hw.tools.errors import ToolError
from hw.tools.files import write
from sim import link
from tests.support import speakers
from tests.support.checkpoints import raw
from tests.support.mutations import mutated, random_bytes

SLOW = 20
"""Seconds of one input after which it counts as a fault."""

MEMORY = 6 << 30
"""Bytes of address space, so that a length that is taken from a file shows."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that reads others' bytes.

    Attributes
    ----------
    seeds : callable
        Takes an empty folder; returns valid inputs.
    read : callable
        Takes an input and a folder for files.
    errors : tuple of type
        What it may raise.
    share : int
        Its share of the inputs of a run over all targets.
    words : tuple of bytes
        Of the language.
    framed : bool
        As in `tests.support.mutations.mutated`.
    """

    seeds: Callable
    read: Callable
    errors: tuple
    share: int
    words: tuple = ()
    framed: bool = False


def _file(folder, data, name):
    path = folder / name
    path.write_bytes(data)
    return path


def _rng():
    return np.random.default_rng(0)


def _tensor_seeds(folder):
    x = _rng().standard_normal((2, 64)).astype("f4")
    made = quantize_activations(x), quantize_weights(x), quantize_weights(x[:, :40])
    for number, q in enumerate(made):
        q.save(folder / str(number))
    return [(folder / str(number)).read_bytes() for number in range(len(made))]


def _read_tensor(data, folder):
    Quantized.load(_file(folder, data, "q.safetensors")).dequantize()


def _blocks_seeds(folder):
    x = _rng().standard_normal((2, 64)).astype("f4")
    made = []
    for name in ("MXFP4", "NVFP4", "MXFP6 E2M3", "RaZeR weights", "MXINT8", "SMX4", "HiF4", "IF4",
                 "M2-NVFP4 Sg-EM-4", "MXFP4+", "M2XFP Sg-special", "M2XFP Sg-special64"):
        FORMATS[name].quantize(x).save(folder / name)
        made.append((folder / name).read_bytes())
    return made


def _read_blocks(data, folder):
    """Tensors of all formats, whose decoders get whatever planes a file has."""
    Blocks.load(_file(folder, data, "b.safetensors")).dequantize()


def _checkpoint_seeds(folder):
    rng = _rng()
    plain = raw(folder / "0", {"a.weight": ("F32", rng.standard_normal((4, 64)).astype("<f4")),
                               "norm": ("F16", np.ones(7, "<f2")),
                               "ids": ("I64", np.arange(4))}, {"format": "pt"})
    codes = rng.integers(0, 256, (4, 32), np.uint8)
    packed = raw(folder / "1", {
        "b.weight_packed": ("U8", codes), "b.weight_scale": ("F8_E4M3", codes[:, :4] & 0x77),
        "b.weight_global_scale": ("F32", np.ones(1, "<f4")),
        "c_blocks": ("U8", codes.reshape(1, 4, 2, 16)), "c_scales": ("U8", codes[None, :, :2]),
        "d.weight": ("F8_E4M3", codes), "d.weight_scale_inv": ("F32", np.ones((1, 1), "<f4"))})
    return [plain.read_bytes(), packed.read_bytes()]


def _read_checkpoint(data, folder):
    path = _file(folder, data, "in.safetensors")
    with Reader(path):
        pass
    _read_model(path)


def _read_model(path):
    with Model(path) as model:
        found = plan(model)
        for weight in found.weights:
            if math.prod(weight.shape) < 1 << 20:
                rows = open_rows(model, weight)
                rows(0, min(2, weight.rows))


def _gguf_seeds(folder):
    from tests.golden.checkpoint.test_gguf import gguf
    rng = _rng()
    first = gguf(folder / "0", {
        "a.weight": ("F32", (2, 32), rng.standard_normal((2, 32)).astype("<f4")),
        "b.weight": ("MXFP4", (2, 32), rng.bytes(34)), "c": ("Q8_0", (1, 32), bytes(34))})
    second = gguf(folder / "1", {"a.weight": ("BF16", (3, 4), bytes(24))}, {}, alignment=8)
    return [first.read_bytes(), second.read_bytes()]


def _read_gguf(data, folder):
    _read_model(_file(folder, data, "in.gguf"))


def _planes_seeds(folder):
    rng = _rng()
    source = raw(folder / "in", {"a.weight": ("F32", rng.standard_normal((2, 64)).astype("<f4")),
                                 "n": ("F32", np.ones(3, "<f4"))})
    made = []
    for number, form in enumerate(("m2xfp", "mxfp4")):
        target = folder / f"{number}.safetensors"
        with contextlib.redirect_stdout(io.StringIO()):
            convert([str(source), str(target), "--format", form, "--threads", "1"])
        made.append(target.read_bytes())
    return made


def _read_planes(data, folder):
    planes.check(_file(folder, data, "planes.safetensors"), threads=1)


_INDEX = {"metadata": {"total_size": 96}, "weight_map": {"a.weight": "model-1.safetensors"}}
_CONFIGS = [
    {"model_type": "x", "quantization_config": {
        "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
        "ignore": ["lm_head", "re:.*norm", "model.*.q"], "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "block_structure": [128, 128]}}}}},
    {"text_config": {"quantization_config": {"weight_block_size": [128, 128],
                                             "modules_to_not_convert": ["a"]}}}]


def _index_seeds(folder):
    return [json.dumps([_INDEX, config]).encode() for config in _CONFIGS]


def _read_index(data, folder):
    """An index and a configuration, of which the input is a list."""
    try:
        parts = json.loads(data)
        index, config = (json.dumps(part).encode() for part in parts)
    except (ValueError, TypeError, RecursionError):
        index, _, config = data.partition(b"\n")
    shard = folder / "model-1.safetensors"
    if not shard.exists():
        raw(shard, {"a.weight": ("F32", _rng().standard_normal((2, 32)).astype("<f4")),
                    "a.weight_scale": ("F32", np.ones((1, 1), "<f4"))})
    _file(folder, index, "model.safetensors.index.json")
    _file(folder, config, "config.json")
    _read_model(folder)


_CONFIG = b"""columns = 4
weights = 4
activations = 16
outputs = 8
"""


def _config_seeds(folder):
    from dataclasses import asdict

    from hw.accelerator.config import CONFIGS
    made = []
    for config in CONFIGS.values():
        lines = []
        for name, value in asdict(config).items():
            text = json.dumps("none" if value is None else value)
            lines.append(f"{name} = {text}\n")
        made.append("".join(lines).encode())
    return made


def _read_config(data, folder):
    path = _file(folder, data, "config.toml")
    registry.parameters("accelerator", [f"config={path}"])


def _settings_seeds(folder):
    return [b"accelerator\nconfig=tiny\nconfig.columns=8", b"mac_array\ncolumns=8",
            b"quantization_engine\nrule=ceil\ninput=bfloat16", b"top1\nlanes=16"]


def _read_settings(data, folder):
    name, *words = data.decode(errors="replace").split("\n")
    with contextlib.suppress(MemoryError):
        registry.parameters(name, words)


def _liberty_seeds(folder):
    from tests.hw.flow.test_liberty_mutants import BASE
    from tests.support.netlists import liberty
    return [liberty().encode(), BASE.encode()]


def _read_liberty(data, folder):
    mapped_library.text(find_library(str(_file(folder, data, "cells.lib"))))


def _function_seeds(folder):
    return [b"!(A & B) | C ^ D'", b"(A*B)' + !C D", b"0", b"((A|B)&(C|D))^E[3]"]


def _read_function(data, folder):
    text = data.decode("latin-1")
    pins, evaluate = cell_functions.function(text)
    values = {pin: number % 4 for number, pin in enumerate(sorted(pins))}
    values |= {"0": 0, "1": -1}
    right = evaluate(values)
    if cell_functions.function(cell_functions.plain(text))[1](values) != right:
        raise AssertionError("written plainly it is another function")
    if 0 < len(pins) < 5:
        cell_functions.sense(text, min(pins))


def _link_seeds(folder):
    frames = [link.Frame(kind=link.Kind.READY, session=7, position=link.PROTOCOL),
              link.Frame(kind=link.Kind.DATA, stream=1, session=7, payload=b"abcdefgh"),
              link.Frame(kind=link.Kind.ACK, stream=0, session=7, position=3, payload=b"\x40\0"),
              link.Frame(kind=link.Kind.REJECT, stream=0, session=7, position=2, payload=b"\x09\0")]
    return [b"".join(map(link.encode, frames)), link.encode(frames[0])]


def _read_link(data, folder):
    """The bytes that come from a device, and in between what the host does."""
    host = link.Link(7, timeout=2.0)
    host.send(0, bytes(300))
    for now, start in enumerate(range(0, len(data), 16)):
        host.receive(data[start: start + 16], float(now))
        host.poll(float(now))
    if host.acknowledged(0) > 300 or host.taken > 300 or len(host.received(1)) > len(data):
        raise AssertionError("more came than was sent")


def _identity_seeds(folder):
    return [identity.encode("top1", ["lanes=8"], buffer=512),
            identity.encode("accelerator", ["config=lite"], buffer=2048)]


def _read_identity(data, folder):
    identity.decode(data)


def _language_seeds(folder):
    return [json.dumps(speakers.CONFIG).encode(), json.dumps(speakers.CONFIG | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "head_dim": 16}).encode()]


def _read_language(data, folder):
    if not (folder / "tokenizer.json").exists():
        speakers.folder(folder)
    _file(folder, data, "config.json")
    language.load(str(folder)).__exit__()


def _record_seeds(folder):
    return [json.dumps({"settings": {"a": 1}, "figures": {"x": [1, 2]}}).encode()]


def _read_record(data, folder):
    with contextlib.redirect_stderr(io.StringIO()):
        Record(_file(folder, data, "record.json"), {"a": 1}).has("x")


def _bender_seeds(folder):
    return [json.dumps({"unit": "u", "files": {"verilog": ["u.v", "m.v"], "memory_models": ["m.v"],
                                               "testbench": ["u_tb.sv"]}}).encode()]


def _read_bender(data, folder):
    for name in ("u.v", "m.v", "u_tb.sv"):
        if not (folder / name).exists():
            (folder / name).touch()
    _file(folder, data, "u.json")
    kit.bender(folder)


def _codec_seeds(folder):
    return [_rng().standard_normal(64).astype("<f4").tobytes(), bytes(128),
            np.array([np.inf, -np.nan, 1e-45, 3e38] * 16, "<f4").tobytes()]


def _read_codec(data, folder):
    """Any float32 and any codes; the fast code and the definition agree, bit for bit."""
    x = np.frombuffer(data[:len(data) // 4 * 4][:1024], "<f4").reshape(1, -1)
    for fast, slow in () if not x.size else ((quantize_activations, quantization_engine.definition),
                       (quantize_weights, weight_encoder.definition)):
        one, other = fast(x), slow(x)
        if one != other:
            raise AssertionError("the fast code differs from the definition")
        again = Quantized.unpack(*one.pack(), kind=one.kind, shape=one.shape)
        if again != one:
            raise AssertionError("planes do not round-trip")
        y, z = dequantize(one), decoder.definition(one)
        if y.tobytes() != z.tobytes():
            raise AssertionError("the fast decoder differs from the definition")
    groups = len(data) // 18
    if groups:
        parts = (data[:16 * groups], data[16 * groups: 17 * groups],
                 data[17 * groups: 18 * groups])
        q = Quantized.unpack(*parts, kind="weight", shape=(groups, 32))
        if dequantize(q).tobytes() != decoder.definition(q).tobytes():
            raise AssertionError("the fast decoder differs from the definition")


TARGETS = {
    "tensor": Target(seeds=_tensor_seeds, read=_read_tensor, errors=(ValueError,), share=10,
                     framed=True, words=(b'"kind"', b'"U8"', b'"F32"', b"[", b"{")),
    "blocks": Target(seeds=_blocks_seeds, read=_read_blocks, errors=(ValueError,), share=5,
                     framed=True, words=(b'"kind"', b'"U8"', b'"F32"', b"[", b"{", b"MXFP8")),
    "safetensors": Target(seeds=_checkpoint_seeds, read=_read_checkpoint, errors=(BadFile,),
                          share=12, framed=True, words=(b'"F4"', b'"BF16"', b"[", b"{", b".weight",
                                                        b"_scale", b"_blocks")),
    "gguf": Target(seeds=_gguf_seeds, read=_read_gguf, errors=(BadFile,), share=12,
                   words=(b"GGUF", b"general.alignment", b"\x09\0\0\0", b"\x08\0\0\0")),
    "planes": Target(seeds=_planes_seeds, read=_read_planes, errors=(BadFile,), share=6,
                     framed=True, words=(b"[", b"{", b"transposed")),
    "index": Target(seeds=_index_seeds, read=_read_index, errors=(BadFile, OSError), share=6,
                    words=(b'"re:("', b'"re:.*"', b"[", b"{", b"..", b"/")),
    "config": Target(seeds=_config_seeds, read=_read_config, errors=(ValueError,), share=8,
                     words=(b"[", b"{", b"=", b'"', b"columns", b"1979-05-27", b"true", b"inf")),
    "settings": Target(seeds=_settings_seeds, read=_read_settings, errors=(ValueError,), share=6,
                       words=(b"config.", b"=", b"config=lite", b"columns=", b"depth=")),
    "liberty": Target(seeds=_liberty_seeds, read=_read_liberty, errors=(ToolError, ValueError),
                      share=2, words=(b"{", b"}", b"(", b")", b";", b'"', b"\\\n", b"/*", b"*/",
                                      b"include_file (cells.lib);", b"cell", b"pin", b"timing")),
    "function": Target(seeds=_function_seeds, read=_read_function, errors=(ValueError,), share=14,
                       words=(b"!", b"(", b")", b"'", b"^", b"&", b"|", b"0", b"1", b"[", b"]")),
    "link": Target(seeds=_link_seeds, read=_read_link, errors=(link.ProtocolVersionError,),
                   share=8, words=(bytes([link.FLAG]), bytes([link.ESCAPE]))),
    "identity": Target(seeds=_identity_seeds, read=_read_identity, errors=(ToolError,), share=6,
                       words=(b"[", b"{", b"lanes=", b"config.columns=")),
    "language": Target(seeds=_language_seeds, read=_read_language, errors=(Failure,), share=2,
                       words=(b"[", b"{", b'"default"', b"null", b"-1", b"1e400")),
    "record": Target(seeds=_record_seeds, read=_read_record, errors=(ValueError,), share=4,
                     words=(b"[", b"{", b'"settings"', b'"figures"')),
    "bender": Target(seeds=_bender_seeds, read=_read_bender, errors=(), share=3,
                     words=(b"[", b"{", b"null", b'"files"')),
    "codec": Target(seeds=_codec_seeds, read=_read_codec, errors=(), share=3),
}
"""By name: the reader of quantized tensors, of checkpoints and their parts, of configurations, cell
libraries and their functions, of frames on a serial line, and so on."""


READERS = ("golden.checkpoint.gguf", "golden.checkpoint.layout", "golden.checkpoint.model",
           "golden.checkpoint.planes", "golden.checkpoint.safetensors", "golden.checkpoint.sources",
           "golden.checkpoint.values", "golden.codec.quantized", "golden.codec.tensor_file",
           "golden.models.accuracy", "hw.accelerator.config", "hw.boards.identity",
           "hw.flow.cell_functions", "hw.flow.liberty", "hw.flow.liberty_text",
           "hw.kit.manifests", "hw.registry", "sim.link")
"""Modules whose coverage guides atheris."""


@command.run
def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m tests.fuzz",
        description="Feeds mutated files to what reads files, and says what raises an error that "
                    "is not documented.")
    parser.add_argument("targets", metavar="TARGET", nargs="*",
                        help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--count", metavar="N", type=int, default=10_000,
                        help="inputs of all targets together (default: 10000)")
    parser.add_argument("--seed", metavar="N", type=int, default=0,
                        help="of the mutations (default: 0)")
    parser.add_argument("--minutes", metavar="N", type=float, help="stop after this time")
    parser.add_argument("--keep", metavar="DIR", type=Path,
                        help="folder for the inputs that are faults")
    parser.add_argument("--atheris", action="store_true",
                        help="let coverage guide, for one target (pip install atheris)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    options = parser.parse_args(arguments)
    for name in options.targets:
        if name not in TARGETS:
            raise ValueError(f"TARGET must be one of {', '.join(TARGETS)}, not {name}")
    for name in ("count", "minutes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} must be above 0, not {value}")
    if options.json:
        command.check_output(options.json, "--json")
    names = options.targets or [*TARGETS]
    if options.atheris:
        if len(names) != 1:
            raise ValueError(f"--atheris needs exactly one target, not {len(names)}")
        return guided(names[0], options.count, options.seed)
    print(f"{options.count} inputs, seed {options.seed}", flush=True)
    rows = fuzz_all(names, options.count, options.seed, options.minutes)
    print(table(rows))
    faults = [(row["target"], fault) for row in rows for fault in row["faults"]]
    for name, fault in faults:
        print(f"{name}: {fault['error']}: {bytes.fromhex(fault['input'])[:200]!r}")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{name}.{abs(hash(fault['error'])):x}").write_bytes(
                bytes.fromhex(fault["input"]))
    if options.json:
        write(options.json, json.dumps({"seed": options.seed, "targets": rows}, indent=1) + "\n")
    if faults:
        raise command.Failure(f"{len(faults)} kinds of faults")


def table(rows):
    """Inputs by target, as a table in Markdown."""
    lines = ["| target | inputs | refused | kinds of refusal | faults | seconds |",
             "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(f"| {row['target']} | {row['inputs']:,} | {row['refused']:,} | "
                     f"{row['kinds']} | {len(row['faults'])} | {row['seconds']:.0f} |")
    total = sum(row["inputs"] for row in rows)
    return "\n".join([*lines, f"| all | {total:,} | | | | |"])


def fuzz_all(names, count, seed, minutes=None):
    """What became of the inputs of each target, as dictionaries."""
    limit = time.monotonic() + 60 * minutes if minutes else None
    shares = sum(TARGETS[name].share for name in names)
    rows = []
    with bounded(), tqdm(total=count, desc="inputs", disable=None, mininterval=2) as bar:
        for name in names:
            rows.append(fuzz(name, max(1, count * TARGETS[name].share // shares), seed, limit,
                             bar.update))
    return rows


@contextlib.contextmanager
def bounded():
    """Bounds the memory, and the time of one input, of this process."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, _too_slow)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


class TooSlow(BaseException):
    """One input took too long; no handler of a reader catches this."""


def _too_slow(number, frame):
    raise TooSlow(f"takes more than {SLOW} s")


def fuzz(name, count, seed, limit=None, progress=lambda number: None):
    """What became of the inputs of a target, as a dictionary."""
    target = TARGETS[name]
    generator = random.Random(f"{name} {seed}")
    start, refused, kinds, faults, done = time.monotonic(), 0, {}, {}, 0
    with tempfile.TemporaryDirectory(prefix="fuzz.") as scratch:
        seeds, work = Path(scratch, "seeds"), Path(scratch, "work")
        seeds.mkdir()
        work.mkdir()
        corpus = target.seeds(seeds)
        for data in corpus:
            # A seed must be read.
            target.read(data, work)
        for done in range(1, count + 1):
            if generator.random() < 0.002:
                data = random_bytes(generator)
            else:
                data = mutated(generator.choice(corpus), generator, words=target.words,
                               others=corpus, framed=target.framed)
            signal.alarm(SLOW)
            try:
                target.read(data, work)
            except target.errors as error:
                refused += 1
                place = _place(error)
                if place not in kinds and len(corpus) < 2000 and len(data) < 20_000:
                    corpus.append(data)
                kinds[place] = kinds.get(place, 0) + 1
            except (Exception, TooSlow) as error:
                place = _place(error)
                if place not in faults or len(data) < len(faults[place][1]):
                    text = f"{type(error).__name__}: {str(error)[:200]} at {place[1]}"
                    faults[place] = text, data
            finally:
                signal.alarm(0)
            if not done % 100:
                progress(100)
                if limit and time.monotonic() > limit:
                    break
    return {"target": name, "inputs": done, "refused": refused, "kinds": len(kinds),
            "faults": [{"error": text, "input": data.hex()} for text, data in faults.values()],
            "seconds": time.monotonic() - start}


def _place(error):
    """Type of an error and the line that raised it."""
    lines = []
    # Where a reader wraps an error, the place of the first one tells kinds apart.
    for each in (error.__context__, error):
        trace = each and each.__traceback__
        while trace:
            lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
    # So does how it was called, but not a recursion's depth.
    return type(error).__name__, lines[-1], tuple(sorted({*lines[:40]}))


def guided(name, count, seed):
    """Runs atheris, which ends the process."""
    try:
        import atheris
    except ImportError:
        raise command.Failure("--atheris needs atheris: pip install atheris") from None
    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix="fuzz."))
    for part in ("seeds", "work", "corpus"):
        (folder / part).mkdir()
    for number, data in enumerate(target.seeds(folder / "seeds")):
        (folder / "corpus" / str(number)).write_bytes(data)
        target.read(data, folder / "work")
    for module in map(sys.modules.get, READERS):
        for thing in [*vars(module).values()]:
            for function in [thing, *(vars(thing).values() if inspect.isclass(thing) else ())]:
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)

    def one(data):
        with contextlib.suppress(*target.errors):
            target.read(data, folder / "work")

    atheris.Setup([sys.argv[0], f"-runs={count}", f"-seed={seed + 1}", "-max_len=8192",
                   f"-timeout={SLOW}", f"-artifact_prefix={os.getcwd()}/", str(folder / "corpus")],
                  one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
