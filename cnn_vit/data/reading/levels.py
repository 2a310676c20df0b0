"""Says where images of 16 bits use so few of their levels that they would be nearly black."""

from cnn_vit.data.decode.pixel_rules import WHITE

USUAL_LEVELS = (255, 1023, 4095, 16383)  # highest of 8, 10, 12 and 14 bits, as scanners and cameras give them


def describe_dark_levels(highest_level: int | None, levels: int | None, *, is_sampled: bool) -> str | None:
    """Says in a sentence that images of 16 bits are probably of fewer, with the remedy; None where they are not.

    Args:
        highest_level: of all images of 16 bits; None where all have fewer bits.
        levels: the setting `data.levels`.
        is_sampled: whether only some images were looked at.
    """
    if highest_level is None:
        if levels is None or is_sampled:
            return None
        return f"data.levels={levels} says what is white in images of 16 bits, and there are none"
    if levels is not None:
        return None
    for usual in USUAL_LEVELS:
        if highest_level <= usual:
            limit = " as far as they were looked at" if is_sampled else ""
            return (
                f"images of 16 bits have levels of 0 to {highest_level:,}{limit}, so that they are nearly black where "
                f"{WHITE:,} is white; if the data have {usual.bit_length()} bits, set data.levels={usual}"
            )
    return None
