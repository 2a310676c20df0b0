"""A worker that waits for a random while before each trial."""

import random
import sys
import time

from cnn_vit.studies import worker

do_trial = worker.do_trial


def do_trial_later(*words, **options):
    """Waits for up to a second, and then does a trial."""
    time.sleep(random.uniform(0.0, 1.0))
    do_trial(*words, **options)


worker.do_trial = do_trial_later

if __name__ == "__main__":
    sys.exit(worker.main())
