"""What `doctor` says of the compiler options in force, and of faults of jaxlib that they avoid or bring about."""

from cnn_vit import compilation
from cnn_vit.compilation import ProgramKind

REMEDY = "Python 3.12 or later installs a sound jaxlib"


def collect_options(devices: dict[str, str]) -> dict[str, str]:
    """Returns the compiler options of each kind of program, and what goes wrong without them where something does.

    Args:
        devices: platform and kind of each device by its name, or only "none".
    """
    platform = read_platform(devices)
    if platform is None:
        return {"none": "there is no device to compile for"}
    lines = {}
    for kind in compilation.all_kinds(platform):
        name = "convolutional" if kind.convolutional else "other"
        lines[f"{name}, {kind.dtype}"] = compilation.options_as_text(compilation.options_in_force(kind))
    fault = compilation.describe_fault(platform)
    if fault and not find_unsafe_kinds(platform):
        where = f"under the defaults of jaxlib {compilation.installed_jaxlib()}"
        lines["fault avoided"] = f"{where}, {fault}; programs here are compiled without the part at fault; {REMEDY}"
    return lines


def find_problems(devices: dict[str, str], environment: dict[str, str]) -> list[str]:
    """Returns a warning where numbers may come out wrong under the options in force, else nothing.

    Args:
        devices: platform and kind of each device by its name, or only "none".
        environment: the variables that bear on a run, as the user set them.
    """
    platform = read_platform(devices)
    if platform is None or not find_unsafe_kinds(platform):
        return []
    if environment.get("CNN_VIT_TUNE") == "0":
        cause = "CNN_VIT_TUNE=0 brings this back: unset it"
    elif compilation.YNN in environment.get("XLA_FLAGS", ""):
        cause = f"{compilation.YNN} in XLA_FLAGS brings this back: leave it out"
    else:
        cause = "no option avoids it"
    fault = compilation.describe_fault(platform)
    return [f"numbers may be wrong: under jaxlib {compilation.installed_jaxlib()}, {fault}; {cause}; {REMEDY}"]


def read_platform(devices: dict[str, str]) -> str | None:
    """Returns the platform of devices, such as "cpu"; None where there are none."""
    return None if "none" in devices else next(iter(devices.values())).split()[0]


def find_unsafe_kinds(platform: str) -> list[ProgramKind]:
    """Returns the kinds of programs in which a known fault of this jaxlib may occur."""
    if not compilation.describe_fault(platform):
        return []
    return [kind for kind in compilation.all_kinds(platform) if not compilation.is_fault_avoided(kind)]
