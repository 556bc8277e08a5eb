# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The units of the project.

This is the one list that generation, synthesis, co-simulation, proofs and documentation read.
"""

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field

from golden import reference, stimuli

from .accelerator.accelerator import Accelerator
from .accelerator.config import CONFIGS, Config, configuration
from .bus.axi_accelerator import AxiAccelerator
from .lib.formats import SUBGROUPS, record_of
from .units.decoder import Decoder
from .units.group_accumulator import GroupAccumulator
from .units.group_mac import GroupMac
from .units.mac_array import MacArray
from .units.nvfp4_array import Nvfp4Array
from .units.nvfp4_pe_tile import Nvfp4PETile
from .units.nvfp4_quantizer import Nvfp4Quantizer
from .units.pe_tile import PETile
from .units.quantization_engine import QuantizationEngine
from .units.sg_engine import SgEngine
from .units.sg_pe_tile import SgPETile
from .units.top1 import Top1
from .units.top1_decode import Top1Decode
from .units.weight_encoder import WeightEncoder


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit, with all that the tools need to know of it.

    Attributes
    ----------
    component : callable
        Component class; ``component(**parameters)`` builds it.
    summary : str
        One line that says what the unit does.
    reference : callable
        Golden reference: ``reference(inputs, **parameters)`` returns the transfers on the output
        ports for those on the input ports, see `golden.reference`.
    stimuli : callable
        ``stimuli(rng, count, **parameters)`` returns random transfers on the input ports, see
        `golden.stimuli`.
    parameters : dict of str to tuple
        Each parameter with the values that are offered, the default first.
    tiles : callable, optional
        ``tiles(**parameters)`` is the number of 8-MAC tiles, for figures per tile.
    hierarchical : bool
        Whether synthesis maps the unit module by module, as it is too large to be mapped at once.
    same_job : frozenset of str
        Parameters that change what the unit costs and not what it computes. Points that differ in
        others do not compete.
    """

    component: Callable
    summary: str
    reference: Callable
    stimuli: Callable
    parameters: dict[str, tuple] = field(default_factory=dict)
    tiles: Callable | None = None
    hierarchical: bool = False
    same_job: frozenset = frozenset({"depth"})


UNITS = {
    "top1": Unit(
        component=Top1,
        summary="Lane of the largest FP4 code of a subgroup",
        reference=reference.top1,
        stimuli=stimuli.top1,
        parameters={"lanes": (8, 2, 4, 16, 32)},
    ),
    "top1_decode": Unit(
        component=Top1Decode,
        summary="Top-1 of an activation subgroup and its refinement as a signed shift",
        reference=reference.top1_decode,
        stimuli=stimuli.top1_decode,
    ),
    "decoder": Unit(
        component=Decoder,
        summary="Group record to its float32 values",
        reference=reference.decoder,
        stimuli=stimuli.decoder,
        parameters={"kind": ("activation", "weight", "special", "special64")},
    ),
    "quantization_engine": Unit(
        component=QuantizationEngine,
        summary="32 values to an activation's group record (Elem-EM)",
        reference=reference.quantization_engine,
        stimuli=stimuli.quantization_engine,
        parameters={"input": ("float32", "bfloat16", "float16"),
                    "rule": ("floor", "ceil", "rtn1", "rtn2"), "metadata": (True, False),
                    "depth": (2, 0, 3, 8)},
    ),
    "weight_encoder": Unit(
        component=WeightEncoder,
        summary="32 values to a group record with subgroup factors (Sg-EM), serially",
        reference=reference.weight_encoder,
        stimuli=stimuli.weight_encoder,
        parameters={"encoding": ("sg-em", "sg-threshold")},
    ),
    "sg_engine": Unit(
        component=SgEngine,
        summary="Values to an activation's group record with subgroup factors, in few cycles",
        reference=reference.sg_engine,
        stimuli=stimuli.sg_engine,
        parameters={"cycles": (4, 1, 2, 8, 16), "input": ("float32", "bfloat16", "float16"),
                    "encoding": ("sg-threshold", "sg-em", "sg-special", "sg-special64")},
    ),
    "pe_tile": Unit(
        component=PETile,
        summary="Refined dot product of a subgroup times the weights' factor, exact",
        reference=reference.pe_tile,
        stimuli=stimuli.pe_tile,
        parameters={"depth": (0, 1, 2), "metadata": (True, False)},
    ),
    "sg_pe_tile": Unit(
        component=SgPETile,
        summary="Dot product of a subgroup times the factors of both operands, exact",
        reference=reference.sg_pe_tile,
        stimuli=stimuli.sg_pe_tile,
        parameters={"depth": (0, 1), "special": (False, True), "exponent": (False, True)},
    ),
    "nvfp4_quantizer": Unit(
        component=Nvfp4Quantizer,
        summary="16 float32 values to a group of NVFP4, for comparison",
        reference=reference.nvfp4_quantizer,
        stimuli=stimuli.nvfp4_quantizer,
    ),
    "nvfp4_pe_tile": Unit(
        component=Nvfp4PETile,
        summary="Dot product of NVFP4 lanes times both block scales, exact, for comparison",
        reference=reference.nvfp4_pe_tile,
        stimuli=stimuli.nvfp4_pe_tile,
        parameters={"lanes": (8, 16)},
    ),
    "group_accumulator": Unit(
        component=GroupAccumulator,
        summary="Adds a scaled group sum to a float32 accumulator with one rounding",
        reference=reference.group_accumulator,
        stimuli=stimuli.group_accumulator,
        parameters={"metadata": (True, False), "depth": (3, 8, 10),
                    "encoding": ("elem-em", "sg-em", "sg-special", "sg-special64")},
    ),
    "group_mac": Unit(
        component=GroupMac,
        summary="Dot product of two group records, accumulated: one column of the array",
        reference=reference.group_mac,
        stimuli=stimuli.group_mac,
        parameters={"depth": (5, 13, 17),
                    "encoding": ("elem-em", "sg-em", "sg-special", "sg-special64")},
    ),
    "mac_array": Unit(
        component=MacArray,
        summary="Weight-stationary array: an activation group times a tile of weights per cycle",
        reference=reference.mac_array,
        stimuli=stimuli.mac_array,
        parameters={"columns": (32, 1, 4, 16), "weight_width": (1, 8),
                    "metadata": (True, False), "depth": (5, 13, 17),
                    "encoding": ("elem-em", "sg-em", "sg-special", "sg-special64")},
        tiles=lambda columns, encoding="elem-em", **_:
            record_of(encoding)["metadata"].shape.length * columns,
        hierarchical=True,
    ),
    "nvfp4_array": Unit(
        component=Nvfp4Array,
        summary="Weight-stationary array for NVFP4 or RaZeR: two or four groups times a tile per "
                "cycle, for comparison",
        reference=reference.nvfp4_array,
        stimuli=stimuli.nvfp4_array,
        parameters={"columns": (32, 1, 4, 16), "weight_width": (1, 8),
                    "encoding": ("nvfp4", "razer"), "groups": (2, 4)},
        tiles=lambda columns, groups=2, **_: SUBGROUPS * groups // 2 * columns,
        hierarchical=True,
    ),
    "accelerator": Unit(
        component=Accelerator,
        summary="Matrix products of any size: array, buffers, quantization engines and control",
        reference=reference.accelerator,
        stimuli=stimuli.accelerator,
        parameters={"config": tuple(CONFIGS)},
        tiles=lambda config: (configuration(config).record["metadata"].shape.length
                              * configuration(config).columns),
        hierarchical=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Units connected for use in a larger design.

    Generation and documentation read these. There are no references of their own, as their parts
    have them.

    Attributes
    ----------
    component, summary, parameters
        As in `Unit`.
    """

    component: Callable
    summary: str
    parameters: dict[str, tuple] = field(default_factory=dict)


ASSEMBLIES = {
    "axi_accelerator": Assembly(
        component=AxiAccelerator,
        summary="The accelerator with its commands in registers on an AXI4-Lite bus",
        parameters={"config": tuple(CONFIGS)},
    ),
}


def offered():
    """Units and assemblies by name: all that can be generated.

    Returns
    -------
    dict of str to Unit or Assembly
        Also those that a program of its own has put into `UNITS`.
    """
    return UNITS | ASSEMBLIES


def each_alone(name):
    """Settings of a unit that differ from the defaults in one parameter.

    Parameters
    ----------
    name : str
        Name of a unit or an assembly.

    Returns
    -------
    list of list of str
        One for each offered value that is no default.
    """
    return [[f"{parameter}={value}"] for parameter, values in offered()[name].parameters.items()
            for value in values[1:]]


def parameters(name, settings=(), *, units=UNITS):
    """Parameters of a unit: the defaults, overridden by settings.

    The values that the registry offers are those that are tested. A parameter that offers integers
    takes every other one that the unit takes. The accelerator's ``config`` is a name, or a TOML
    file with the fields of `hw.accelerator.config.Config`; ``config.FIELD`` overrides one of them.

    Parameters
    ----------
    name : str
        Name of the unit.
    settings : iterable of str
        Texts of the form "parameter=value", each of another parameter.
    units : dict of str to Unit or Assembly
        The units that are offered.

    Returns
    -------
    dict of str to object
        Value of every parameter. ``config`` is a `Config` unless it is one that the registry names.

    Raises
    ------
    ValueError
        If the unit, a parameter or a value is not offered or does not fit the others, or a
        parameter is given twice. The message names what is allowed.
    OSError
        If the file of a configuration cannot be read.
    """
    if name not in units:
        raise ValueError(f"Unit must be one of {', '.join(units)}, not {name!r}")
    choices = units[name].parameters
    chosen = {parameter: values[0] for parameter, values in choices.items()}
    given, fields, untested = set(), {}, False
    for setting in settings:
        parameter, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"Setting must be of the form parameter=value, not {setting!r}")
        if parameter in given:
            raise ValueError(f"{name}'s {parameter} must be set once, not again to {text!r}")
        given.add(parameter)
        if parameter.startswith("config.") and "config" in choices:
            fields[parameter.partition(".")[2]] = text
            continue
        if parameter not in choices:
            allowed = ", ".join(choices) or "none"
            raise ValueError(f"Parameter of {name} must be one of: {allowed}, not {parameter!r}")
        values = {str(value): value for value in choices[parameter]}
        if text in values:
            chosen[parameter] = values[text]
        elif parameter == "config" and text.endswith(".toml"):
            chosen[parameter] = _read_config(text)
        elif all(type(value) is int for value in choices[parameter]) and _is_integer(text):
            chosen[parameter], untested = int(text), True
        else:
            other = ", a file that ends in .toml" * (parameter == "config")
            raise ValueError(f"{name}'s {parameter} must be one of {', '.join(values)}{other}, "
                             f"not {text!r}")
    if fields:
        chosen["config"] = _override(chosen["config"], fields)
    if untested:
        _check(name, units[name], chosen)
    return chosen


def _is_integer(text):
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 8


def _check(name, unit, chosen):
    """Raises ValueError unless the unit takes values that the registry does not offer."""
    try:
        unit.component(**chosen)
    except (TypeError, ValueError) as error:
        tested = "; ".join(f"{parameter}: {', '.join(map(str, values))}"
                           for parameter, values in unit.parameters.items())
        raise ValueError(f"{name}: {error} (tested are {tested})") from None


def _read_config(path):
    """Reads the configuration in a TOML file."""
    try:
        with open(path, "rb") as file:
            fields = tomllib.load(file)
    except (ValueError, RecursionError) as error:
        # A number may have too many digits, too.
        raise ValueError(f"config {path} must be TOML: {error}") from None
    return _config(f"config {path}", fields)


def _override(config, texts):
    """A configuration with fields replaced by those of these texts."""
    fields = {field: text if field == "input" else int(text) if _is_integer(text) else text
              for field, text in texts.items()}
    return _config("config." + ", config.".join(texts),
                   dataclasses.asdict(configuration(config)) | fields)


def _config(where, fields):
    known = {field.name: field.default is dataclasses.MISSING
             for field in dataclasses.fields(Config)}
    if wrong := [field for field in fields if field not in known]:
        raise ValueError(f"{where} must have fields out of {', '.join(known)}, not {wrong[0]!r}")
    if missing := [field for field, needed in known.items() if needed and field not in fields]:
        raise ValueError(f"{where} must have the fields {', '.join(missing)}, too")
    # TOML has no None, nor has a command line, which has no truth values either.
    fields = fields | {name: None for name in ("input", "engine") if fields.get(name) == "none"}
    if fields.get("framed") in ("true", "false"):
        fields = fields | {"framed": fields["framed"] == "true"}
    try:
        return Config(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def add_settings(parser, *, parameter="PARAMETER"):
    """Adds the options ``--set`` and ``--config`` to a command line; `settings_of` reads them.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    parameter : str
        What ``--set`` sets, for the help.
    """
    parser.add_argument("--set", metavar=f"{parameter}=VALUE", action="append", default=[],
                        help="set a parameter of the unit (repeatable); config.FIELD=VALUE sets "
                             "one size of the accelerator")
    parser.add_argument("--config", metavar="NAME|FILE.toml",
                        help=f"sizes of the accelerator: {', '.join(CONFIGS)}, or a file with the "
                             f"fields of hw.accelerator.Config (default: {next(iter(CONFIGS))})")


def settings_of(options):
    """The settings of a command line that has the options of `add_settings`, as a list of str."""
    return [f"config={options.config}"] * (options.config is not None) + options.set


def unique(names):
    """Returns names as a list.

    Raises
    ------
    ValueError
        If there is one twice.
    """
    names = list(names)
    if twice := [name for position, name in enumerate(names) if name in names[:position]]:
        raise ValueError(f"Each unit must be given once, not {twice[0]!r} again")
    return names


def select(names, settings=(), *, units=UNITS):
    """Parameters of the units that a command line names.

    Parameters
    ----------
    names : iterable of str
        Names of units.
    settings : list of str
        From `settings_of`.
    units : dict of str to Unit or Assembly
        Where to look.

    Returns
    -------
    dict of str to dict of str to object
        Parameters by the unit's name, in the order of the names.

    Raises
    ------
    ValueError
        If there are settings and not exactly one unit, as `unique` does, or as `parameters` does.
    """
    names = unique(names)
    if settings and len(names) != 1:
        raise ValueError(f"--set {settings[0]} needs exactly one unit, not {len(names)}")
    return {name: parameters(name, settings, units=units) for name in names}


def build(name, settings=(), *, units=UNITS):
    """Component of a unit; arguments and errors are those of `parameters`."""
    chosen = parameters(name, settings, units=units)
    return units[name].component(**chosen)
