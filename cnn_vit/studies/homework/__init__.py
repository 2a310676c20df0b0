"""Backpropagation by hand as homework: a skeleton to fill, and a check that says which mistake was made.

    skeleton.py     the file to fill: each function of `analysis/backprop.py` without its body
    exercises.py    what each function is called with, from the simplest case to all of it together
    learner.py      the process that runs the learner's functions, within limits of time and memory
    running.py      starts that process, again where it died, and collects what the functions returned
    mistakes/       what known mistakes would return
    grading.py      compares, and says in sentences what is wrong: read `check_file`

The right answers are those of `analysis/backprop.py`. A mistake is recognized by computing what it would give and
comparing: so a message is never a guess from the text of the file.
"""
