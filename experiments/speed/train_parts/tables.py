"""The table and the plot of the results, made from the file of the results alone."""

import statistics
from collections.abc import Sequence
from typing import Any

from train_parts.rows import ROWS, WORKS, order_of_arm

NOTHING = "Nothing is measured yet."
TITLES = {
    "step": "Training step (with its optimizer), images a second",
    "inference": "Inference, images a second",
    "end_to_end": "From JPEG files on the disk to a trained epoch, images a second",
}
TRAINING_FLOPS = 6  # per multiply-accumulate of the forward pass: forward, and two products as large backward
GIB = 2**30


def format_results(results: Sequence[dict[str, Any]]) -> str:
    """Returns the tables of all results as Markdown: for each environment those of the works, options, and costs."""
    if not results:
        return NOTHING
    blocks = []
    for environment in unique([environment_line(result) for result in results]):
        here = sort_results([result for result in results if environment_line(result) == environment])
        blocks.append(environment)
        for work in WORKS:
            plain = [result for result in here if result["work"] == work and not has_options(result)]
            if plain:
                blocks.append(f"{TITLES[work]}\n\n{format_arms(plain)}")
                ratio = median_ratio(plain)
                if ratio is not None:
                    blocks.append(f"The median row's ratio to torch's best arm is {ratio:.2f}.")
            chosen = [result for result in here if result["work"] == work and has_options(result)]
            if chosen:
                blocks.append(f"{TITLES[work]}, by options of the compiler\n\n{format_options(chosen)}")
        steps = [result for result in here if result["work"] == "step" and not has_options(result)]
        if steps:
            blocks.append(f"Memory, compilation and work of the training step\n\n{format_costs(steps)}")
    return "\n\n".join(blocks)


def unique(texts: Sequence[str]) -> list[str]:
    """Returns the different texts in the order in which they come."""
    return list(dict.fromkeys(texts))


def sort_results(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the results in the order of the rows."""
    names = list(ROWS)
    return sorted(results, key=lambda result: (names.index(result["row"]), result["batch_size"]))


def environment_line(result: dict[str, Any]) -> str:
    """Says on what a result was measured."""
    environment = result["environment"]
    versions = environment["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("jaxlib", "flax"))
    torch = "torch is not installed" if versions["torch"] == "missing" else f"torch {versions['torch']}"
    cores = f"{environment['cores']} cores of {environment['machine']}"
    device = environment["devices"]["kind"]
    machine = cores if device == "cpu" else f"{environment['devices']['count']} x {device}"
    return f"**Python {versions['python']}, {libraries}, {torch}; {machine}**"


def has_options(result: dict[str, Any]) -> bool:
    """Whether a result compares options of the compiler."""
    return any(":" in name for name in result["arms"])


def key_of(result: dict[str, Any]) -> tuple:
    """What a later measurement must have in common with an earlier one to replace it."""
    return (result["row"], result["work"], result["batch_size"], environment_line(result), has_options(result))


# Ratios ---------------------------------------------------------------------------------------------------------------


def best_torch(result: dict[str, Any], *, is_bfloat16: bool = False) -> str | None:
    """Returns the fastest arm of PyTorch of a type, of those with the allocator settings of `ours` if there are any."""
    names = [name for name in result["arms"] if name.startswith(("torch", "compile"))]
    names = [name for name in names if ("+bf16" in name) == is_bfloat16]
    names = [name for name in names if "+keep" in name] or names
    return max(names, key=lambda name: result["arms"][name]["images_per_second"], default=None)


def best_nnx(result: dict[str, Any]) -> str | None:
    """Returns the arm of flax NNX that counts: the one with the allocator settings of `ours`, if it was measured."""
    names = [name for name in ("nnx+keep", "nnx") if name in result["arms"]]
    return names[0] if names else None


def ratios_by_round(result: dict[str, Any], name: str, base: str) -> list[float]:
    """Returns how many times as fast as another an arm was, round by round; rounds with a noisy window are left out."""
    rates: list[dict[int, float]] = []
    for arm in (name, base):
        quiet = [window for window in result["arms"][arm]["windows"] if not window["noisy"]]
        rates.append({window["round"]: window["images"] / window["seconds"] for window in quiet})
    rounds = sorted(rates[0].keys() & rates[1].keys())
    return [rates[0][number] / rates[1][number] for number in rounds]


def format_ratio(result: dict[str, Any], name: str, base: str | None) -> str:
    """Returns the ratio of two arms' medians, with the least and the largest ratio of a round."""
    if base is None or name not in result["arms"]:
        return ""
    medians = [result["arms"][arm]["images_per_second"] for arm in (name, base)]
    text = f"{medians[0] / medians[1]:.2f}"
    ratios = ratios_by_round(result, name, base)
    if len(ratios) > 1:
        return f"{text} ({min(ratios):.2f} to {max(ratios):.2f})"
    return text if ratios else f"~{text}"


def median_ratio(results: Sequence[dict[str, Any]]) -> float | None:
    """Returns the median over the rows of ours against torch's best arm; None where fewer than two have both."""
    ratios = []
    for result in results:
        base = best_torch(result)
        if base and "ours" in result["arms"]:
            rates = [result["arms"][name]["images_per_second"] for name in ("ours", base)]
            ratios.append(rates[0] / rates[1])
    return statistics.median(ratios) if len(ratios) > 1 else None


def peak_gflops(result: dict[str, Any], arm: str) -> float:
    """Returns the fastest matrix product that was measured in the row's session, of the arm's type."""
    peaks = {name: peak for name, peak in result["peaks"].items() if ("bfloat16" in name) == ("bf16" in arm)}
    return max(peaks.values(), default=max(result["peaks"].values()))


def share_of_peak(result: dict[str, Any], arm: str, images_per_second: float) -> float:
    """Returns which share of the measured peak of matrix products a training step reaches, counting six operations
    per multiply-accumulate of the forward pass."""
    return images_per_second * TRAINING_FLOPS * result["macs"] / 1e9 / peak_gflops(result, arm)


def format_share(result: dict[str, Any], arm: str) -> str:
    """Returns the share of the peak that an arm's training step reaches, and the peak; "" where it was not measured."""
    if arm not in result["arms"]:
        return ""
    share = share_of_peak(result, arm, result["arms"][arm]["images_per_second"])
    return f"{100 * share:.0f} % of {peak_gflops(result, arm):,.0f} GFLOP/s"


# Tables ---------------------------------------------------------------------------------------------------------------


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def compact(number: float) -> str:
    """Writes a number with three digits at least, and none of its whole ones lost."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def format_rate(arm: dict[str, Any]) -> str:
    """Returns median, least and most images a second; with ~ where no window was quiet."""
    mark = "" if arm["quiet_windows"] else "~"
    return f"{mark}{compact(arm['images_per_second'])} ({compact(arm['least'])} to {compact(arm['most'])})"


def arm_names(results: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of the arms of some results, in the order of the table."""
    names = {name for result in results for name in result["arms"]}
    return sorted(names, key=order_of_arm)


def row_title(result: dict[str, Any]) -> str:
    """Names a row, and how many images a batch has."""
    return f"`{result['row']}`, {result['batch_size']}"


def format_arms(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the arms: images a second, ratios, and the share of the peak of matrix products."""
    names = arm_names(results)
    is_step = results[0]["work"] == "step"
    head = ["row, batch", *names, "ours / torch's best", "ours / nnx"]
    if "ours+bf16" in names:
        head.append("ours / torch's best, both in bfloat16")
    if is_step:
        head.append("ours, of the matmul peak")
    rows = []
    for result in results:
        arms = result["arms"]
        cells = [row_title(result), *(format_rate(arms[name]) if name in arms else "" for name in names)]
        cells += [format_ratio(result, "ours", base) for base in (best_torch(result), best_nnx(result))]
        if "ours+bf16" in names:
            cells.append(format_ratio(result, "ours+bf16", best_torch(result, is_bfloat16=True)))
        if is_step:
            cells.append(format_share(result, "ours"))
        rows.append(cells)
    return markdown(head, rows)


def format_options(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the options of the compiler: images a second of each, the fastest in bold type."""
    names = arm_names(results)
    rows = []
    for result in results:
        arms = result["arms"]
        ours = {name: arm["images_per_second"] for name, arm in arms.items() if name.startswith("ours")}
        fastest = max(ours, key=lambda name: ours[name])
        cells = [row_title(result)]
        for name in names:
            text = format_rate(arms[name]) if name in arms else ""
            cells.append(f"**{text}**" if name == fastest else text)
        rows.append(cells)
    return markdown(["row, batch", *names], rows)


def format_costs(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table of memory, seconds of compilation, and seconds from a process's start to its first step."""
    rows = []
    for result in results:
        for name in arm_names([result]):
            arm = result["arms"][name]
            temp_bytes = arm["temp_bytes"]
            peak = max(window["peak_device_bytes"] or window["peak_rss_bytes"] for window in arm["windows"])
            warm = arm.get("warm_first_step_seconds")
            rows.append(
                [
                    row_title(result),
                    name,
                    f"{arm['parameters']:,}",
                    "" if temp_bytes is None else f"{temp_bytes / 2**20:,.0f}",
                    f"{peak / GIB:.2f}",
                    f"{arm['compile_seconds']:.1f}" if arm["compile_seconds"] else "",
                    f"{arm['first_step_seconds']:.1f}" + (f" ({warm:.1f})" if warm else ""),
                    f"{arm['cpu_ms_per_image']:.3g}",
                    format_share(result, name),
                ]
            )
    head = [
        "row, batch",
        "arm",
        "parameters",
        "temporary memory of the program, MiB",
        "peak memory of the process or the GPU, GiB",
        "compiling, s",
        "start to first step, s (programs cached)",
        "CPU-ms an image",
        "of the matmul peak",
    ]
    return markdown(head, rows)


# Plot -----------------------------------------------------------------------------------------------------------------


def draw_shares(results: Sequence[dict[str, Any]]) -> str | None:
    """Returns a plot of the share of the matmul peak that each arm's training step reaches; None without results.

    Each environment has a plot of its own; the line of an arm goes from its least to its most.
    """
    from cnn_vit import plots

    panels, longest = [], 0
    steps = [result for result in results if result["work"] == "step" and not has_options(result)]
    for environment in unique([environment_line(result) for result in steps]):
        here = sort_results([result for result in steps if environment_line(result) == environment])
        spans = []
        names = arm_names(here)
        for result in here:
            for name in arm_names([result]):
                arm = result["arms"][name]
                shares = [share_of_peak(result, name, arm[key]) for key in ("images_per_second", "least", "most")]
                spans.append(plots.Span(f"{result['row']}, {name}", *shares, series=names.index(name)))
        longest = max(longest, len(spans))
        jaxlib = here[0]["environment"]["versions"]["jaxlib"]
        panels.append(plots.draw_intervals(spans, title=f"of the peak, jaxlib {jaxlib}"))
    if not panels:
        return None
    if len(panels) == 1:
        return plots.standalone(panels[0])
    return plots.standalone(plots.side_by_side(panels, "share of the matmul peak", high=26.0 * longest))
