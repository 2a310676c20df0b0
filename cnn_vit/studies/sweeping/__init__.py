"""Sweeps: many points of a space of settings, each trained in a trial of its own; none lost, none done twice.

    definition.py   a TOML file, words of the command line or a recipe's `sweep(add)` -> what is swept
    claims.py       space.json: which sweep a folder holds
    keys.py         its keys: sampler, trials, seeds, metric, halving ...
    dimensions.py   its space, every value typed and checked
    space.py        what may vary, and its points
    samplers.py     which point comes next: grid, random, Sobol, Halton, TPE
    ledger.py       plan.jsonl: which trials there are, in files that survive a kill at any moment
    planner.py      points -> rows of the plan
    rungs.py        successive halving: which trials go on
    scheduler.py    hands the trials of the plan to workers
    slurm.py        hands them to a cluster; array_task.py is what runs there, slurm_commands.py asks SLURM
    outcome.py      what the folder says of all trials
    page_process.py writes the page of a sweep
    standing.py     how far a sweep is while it runs, and how long the rest will take
    forecast.py     what a sweep would do and take, before it is started
    cancelling.py   trials that somebody calls off
    tested_best.py  what the test split says of the best setting, read once

Nothing here imports jax but to read a test split: a scheduler waits most of its time and should need little memory.
"""
