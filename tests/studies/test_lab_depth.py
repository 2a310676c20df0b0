"""The experiment on depth: its tables are of what was measured, also where a quick run measured less."""

from pathlib import Path

from cnn_vit.studies import lab

DEPTH = Path(__file__).parents[2] / "experiments" / "depth"


def test_a_quick_run_has_no_empty_column_and_no_number_of_steps_that_were_not_taken():
    module = lab.load_experiment(DEPTH).module
    rows = []
    for arm in module.ARMS:
        rows.append(
            {"what": "gradient", "arm": arm, "layers": 8, "log_ratio": -1.0, "log_sizes": [0.0], "per_layer": 0.9}
        )
    gradients, trained = module.tabulate(rows)
    assert gradients.columns == ("network", "8 layers", "factor of a layer", "in theory")
    assert {len(row) for row in gradients.rows} == {4}
    assert trained.title == "digits after the training"
