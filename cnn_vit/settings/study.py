"""Recipes of studies: those that are no training, and name the command that they are of (`COMMAND = "compare"`).

What such a recipe sets is not the settings of one run. It is read as it stands, under dotted names, with the command
line over it; the part of the package that does the study knows the keys and checks them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn_vit.settings import recipes
from cnn_vit.settings.load import split_override
from cnn_vit.settings.values import parse_any


@dataclass(frozen=True)
class StudyRecipe:
    """What a recipe of a study sets.

    Attributes:
        values: by dotted key; None is a value that is left open.
        texts: what the command line sets, as it was written; its keys stand in `values` too.
        file: the recipe's file as the user wrote it.
        recipe: name of the recipe without folder and words, `compare_digits`.
        words: the words behind the recipe, smoke last.
    """

    values: dict[str, Any]
    texts: dict[str, str]
    file: str
    recipe: str
    words: tuple[str, ...]


def load_study(recipe: str, overrides: Sequence[str] = (), *, command: str) -> StudyRecipe:
    """Loads a recipe of a study with its words and puts the command line over it.

    Args:
        recipe: file of the recipe with its words, "configs/compare_digits.py:data,smoke".
        overrides: settings of the command line, ["seeds=5"].
        command: of the study, which the recipe must name.

    Raises:
        UserError: an error in the file, a recipe of another command, an unknown word.
    """
    path, words = recipes.split_name(recipe)
    file = recipe.partition(".py:")[0].removesuffix(".py") + ".py"
    own_words = [word for word in words if word != recipes.SMOKE]
    _, values = recipes.read_layers(path, own_words, name=file, command=command)[-1]
    texts = dict(map(split_override, overrides))
    parsed = {key: parse_any(text) for key, text in texts.items()}
    return StudyRecipe({**values, **parsed}, texts, file, path.stem, words)
