"""Compiler options: which library computes what in a compiled program, by platform, jaxlib and kind of program.

On a CPU, XLA hands convolutions, products and reductions to one of three libraries: YNN, oneDNN or Eigen. Which one
decides over a factor of two in speed and, in some versions of jaxlib, over right or wrong numbers: the faults of YNN
that are known stand in KNOWN_FAULTS. TABLE holds the choice, and `jit` compiles by it. Options that the user sets in
XLA_FLAGS stay as they are, CNN_VIT_TUNE=0 leaves all to XLA, and what this jaxlib does not know is left out.

Options belong to a whole program, so that only an outermost `jit` takes them: what `jit` returns can be called, and
lowered, but not traced inside another transformation.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from cnn_vit import process

if TYPE_CHECKING:
    import jax

# Names of the options, as XLA has them; so they are written in XLA_FLAGS too, behind two dashes.
YNN = "xla_cpu_experimental_ynn_fusion_type"  # what goes to YNN, by default convolutions, products and reductions
ONEDNN = "xla_cpu_experimental_onednn_custom_call"  # whether oneDNN gets the convolutions and products that YNN leaves
NOTHING = ""  # the value of YNN that gives it nothing

Options = dict[str, str | bool]


@dataclass(frozen=True)
class ProgramKind:
    """What decides over the compiler options of a program.

    Attributes:
        platform: that it runs on, as jax names it: "cpu", "gpu", "tpu".
        convolutional: whether it runs a network with a convolution.
        dtype: that it computes in, "float32" or "bfloat16".
    """

    platform: str
    convolutional: bool
    dtype: str


@dataclass(frozen=True)
class Row:
    """Options, and the programs that are compiled with them.

    Attributes:
        platform: the platform of these programs.
        jaxlib: versions of jaxlib, written as for pip.
        convolutional: True for convolutional programs alone, False for the others alone, None for both.
        dtype: of the arithmetic; None for any.
        options: values of compiler options by name.
    """

    platform: str
    jaxlib: str
    convolutional: bool | None
    dtype: str | None
    options: Options


# The first row that fits a program counts; a program that no row fits is left to XLA.
#
# Images a second of the training step on jaxlib 0.12.0.1 with the forms of nn/, 2 cores with AVX-512: the best of 3
# windows of 3 s, as a share of that of XLA's own choice in the same call of
#
#     python experiments/speed/train.py ROW --rounds=3 --seconds=3 --arms=ours,ours:none,ours:R,...
#
# (R: YNN for reductions; E: for elementwise loops; D: for single products). Two calls of the same arm differed by up
# to a sixth on that machine, so that differences below that say nothing.
#
#                      XLA's own   none    R    E,R    D     with oneDNN: XLA's own   none    R    E,R    D
#     LeNet              8,078     1.01  0.89  0.90  0.86                     1.71    1.87  1.76  1.56  1.82
#     small CNN          3,992     1.03  1.07  0.85  1.00                     0.87    0.90  0.93  0.75  0.88
#     ResNet-20            347     1.00  0.94  0.89  0.95                     0.97    0.81  0.89  0.84  0.91
#     ViT p4 d192 L9      82.9     0.98  1.03  0.79  0.99                     0.98    0.96  0.93  0.76  0.90
#     ResNet-50           4.84     0.98  1.04  0.99  0.88                     0.95    0.89  0.88  1.01  0.94
#     ResNeXt-50          4.40     0.91  1.01  0.89  1.00                     0.99    0.94  0.95  0.95  0.96
#     ViT-Ti/16           17.5     0.92  0.98  0.84  1.02                     0.99    0.90  1.12  0.91  1.04
#     ViT-S/16            5.17     1.01  0.93  0.89  0.99                     1.18    1.15  1.18  1.05  1.27
#
# So from 0.12 on every kind of program is left to XLA's own choice. The one clear gain, oneDNN's on LeNet, is not
# taken: a program that calls oneDNN cannot be written to the compilation cache, so that each start compiles anew (3 s,
# of a network whose whole run takes minutes). ViT-S/16's is within what two calls differed by (5.17 and 4.49 for one
# arm). On 0.10.2 the option of oneDNN changes nothing: the compiled program calls it neither with it nor without.
#
# On 0.10.2 only D shows none of the known faults beside what the table takes. In the same figures, as a share of the
# table's (--arms=ours,ours:INDIVIDUAL_DOT):
#
#     LeNet 0.94    small CNN 1.01    ResNet-20 1.00    ViT p4 1.04    ResNet-50 1.03    ResNeXt-50 1.16
#     ViT-Ti/16 1.03    ViT-S/16 1.03
#
# All of it lies within what two calls differ by, so that the way without YNN, which is surely sound, stays.
TABLE = (
    # Eigen for everything: YNN computes wrong sums or ends the process in some of these versions (KNOWN_FAULTS).
    Row("cpu", "<0.12", None, None, {YNN: NOTHING}),
)


@dataclass(frozen=True)
class KnownFault:
    """Something that goes wrong on a CPU under the default options of some versions of jaxlib.

    Attributes:
        jaxlib: these versions, written as for pip.
        sentence: what goes wrong, as the end of a sentence, with the issue that reports it.
    """

    jaxlib: str
    sentence: str


# YNN is at fault in each of these; without it (YNN: NOTHING) none occurs, which tests/test_compilation.py holds.
KNOWN_FAULTS = (
    KnownFault("==0.10.2", "sums over more than 32,768 rows come out wrong (jax issue 39103)"),
    KnownFault(">=0.10.2,<0.11.1", "some sums over arrays of many axes end the process (jax issues 39257, 40412)"),
)


def compiler_options(platform: str, jaxlib: str, *, convolutional: bool, dtype: str) -> Options:
    """Looks up the options of a program in TABLE.

    Args:
        platform: that the program runs on, as jax names it.
        jaxlib: the version of jaxlib.
        convolutional: whether it runs a network with a convolution.
        dtype: that it computes in.

    Returns:
        Values of compiler options by name; {} leaves all of them to XLA.
    """
    for row in TABLE:
        if (
            row.platform == platform
            and row.convolutional in (None, convolutional)
            and row.dtype in (None, dtype)
            and is_version_in(jaxlib, row.jaxlib)
        ):
            return dict(row.options)
    return {}


def is_version_in(version: str, bounds: str) -> bool:
    """Whether a version lies within bounds; a pre-release counts as the release that it leads to.

    A version that is not written as PEP 440 asks, such as that of a jaxlib built by hand, lies within none.
    """
    try:
        return SpecifierSet(bounds).contains(Version(version).base_version)
    except InvalidVersion:
        return False


# In force -------------------------------------------------------------------------------------------------------------


def jit(function: Callable, kind: ProgramKind, **keywords: Any) -> "jax.stages.Wrapped":
    """Compiles a function as `jax.jit` does, with the options in force for a kind of program.

    Every outermost program of cnn_vit is compiled through here.

    Args:
        function: a pure function of arrays.
        kind: what it is compiled for.
        keywords: of `jax.jit`.
    """
    import jax  # here, because a program that only reads a run folder needs no jax

    return jax.jit(function, compiler_options=options_to_set(kind) or None, **keywords)


def options_to_set(kind: ProgramKind) -> Options:
    """The options of TABLE that this jaxlib knows and that the user leaves to us."""
    environment = process.compiler_environment()
    if not environment.is_tuned:
        return {}
    options = compiler_options(kind.platform, installed_jaxlib(), convolutional=kind.convolutional, dtype=kind.dtype)
    to_set = {name: value for name, value in options.items() if name not in environment.flags}
    return keep_known(to_set)


def options_in_force(kind: ProgramKind) -> Options:
    """All that is known of the options of a program: those that `jit` sets, and those of YNN and oneDNN in XLA_FLAGS.

    The former are written as the compiler takes them, the latter as the user wrote them.
    """
    flags = process.compiler_environment().flags
    from_user = {name: value for name, value in flags.items() if name in (YNN, ONEDNN)}
    return options_to_set(kind) | from_user


def all_kinds(platform: str) -> list[ProgramKind]:
    """Lists the kinds of programs that a platform runs."""
    kinds = []
    for convolutional in (True, False):
        for dtype in ("float32", "bfloat16"):
            kinds.append(ProgramKind(platform, convolutional, dtype))
    return kinds


def installed_jaxlib() -> str:
    """The version of jaxlib that runs here."""
    import jaxlib

    return jaxlib.__version__


def keep_known(options: Options) -> Options:
    """Returns those of the options that this jaxlib compiles with.

    Each is tried at most once in a process, by compiling nothing, which takes about 20 ms.
    """
    if not options or is_compilable(tuple(options.items())):  # nearly always, so that one trial serves them all
        return options
    return {name: value for name, value in options.items() if is_compilable(((name, value),))}


@functools.cache
def is_compilable(options: tuple[tuple[str, str | bool], ...]) -> bool:
    """Whether this jaxlib compiles with these pairs of name and value: it refuses names and values that it lacks."""
    import jax

    try:
        jax.jit(lambda: None, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


# In words -------------------------------------------------------------------------------------------------------------


def options_as_text(options: Mapping[str, str | bool]) -> str:
    """Writes options in a line, in the order of their names: "xla_cpu_experimental_ynn_fusion_type=none"."""
    words = []
    for name, value in sorted(options.items()):
        text = str(value).lower() if isinstance(value, bool) else value
        words.append(f"{name}={text or 'none'}")
    return ", ".join(words) or "those of jaxlib"


def describe_fault(platform: str) -> str:
    """Says what goes wrong under the defaults of this jaxlib, as the end of a sentence; "" where nothing does."""
    sentences = [fault.sentence for fault in KNOWN_FAULTS if is_version_in(installed_jaxlib(), fault.jaxlib)]
    return " and ".join(sentences) if platform == "cpu" else ""


def is_fault_avoided(kind: ProgramKind) -> bool:
    """Whether programs of this kind, on a CPU and a jaxlib at fault, are compiled without the part at fault."""
    return options_in_force(kind).get(YNN) == NOTHING
