"""What passes between the parts: rollouts, minibatches, groups, normalisers, random numbers."""
