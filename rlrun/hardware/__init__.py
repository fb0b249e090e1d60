"""Where a run computes: device, threads, compilation."""
