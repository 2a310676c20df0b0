"""The parts of `train.py`: its rows and arms, what runs in an arm's process, how windows are measured, the table."""
