"""Settings: a recipe, its words and the command line become one checked, explained, fingerprinted set of values.

load("configs/cifar_resnet.py:56", ["seed=1"])    the settings of a run, flat
steps("20 epochs", ...), Every("1 epochs", ...)   durations in steps
fingerprint, differences                          whether two runs are the same
to_json, from_json                                a run folder's config.json
signatures.read_keywords(module, name)            what a function or a class takes, read from the text of its file
read_rule("optimizer", "lion")                    an optimizer, schedule or loss with its keywords
load_study("configs/compare_digits.py", ...)      what a recipe that is no training sets
run_keys(values)                                  the table of a run: KEYS and the keywords of its rules
"""

from cnn_vit.settings.durations import Every, count_steps
from cnn_vit.settings.keys import KEYS, REQUIRED, Key, is_keyword
from cnn_vit.settings.load import Settings, load
from cnn_vit.settings.recipes import describe_recipe, read_command, recipe_names
from cnn_vit.settings.record import deciding_settings, differences, explain, fingerprint, from_json, is_record, to_json
from cnn_vit.settings.rules import Rule, read_rule, rule_names, run_keys
from cnn_vit.settings.study import StudyRecipe, load_study
from cnn_vit.settings.values import accepted_values, quote_value

__all__ = [
    "KEYS",
    "REQUIRED",
    "Every",
    "Key",
    "Rule",
    "Settings",
    "StudyRecipe",
    "accepted_values",
    "count_steps",
    "deciding_settings",
    "describe_recipe",
    "differences",
    "explain",
    "fingerprint",
    "from_json",
    "is_keyword",
    "is_record",
    "load",
    "load_study",
    "quote_value",
    "read_command",
    "read_rule",
    "recipe_names",
    "rule_names",
    "run_keys",
    "to_json",
]  # fmt: skip
