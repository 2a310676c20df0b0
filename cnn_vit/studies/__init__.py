"""Many runs, one answer: what is made from run folders when training is over."""
