"""Gymnasium's MuJoCo tasks, N simulations in lockstep on CPU threads."""
