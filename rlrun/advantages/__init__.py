"""Advantage estimators Ψ: what weighs the score ∇ log π(a_t|s_t) of each step.

Each is a pure function ``estimator(rollout, *, gamma, own constants)`` of time-major tensors that
returns ``(advantage [T, N], value target [T, N])``. What it needs of the rollout it asks for with
:func:`rlrun.advantages.columns.column`, :func:`~rlrun.advantages.columns.groups` and
:func:`~rlrun.advantages.columns.require_whole_episodes`; an algorithm finds out before the first
step. Rows outside the rollout's mask hold numbers that mean nothing; who uses the result leaves
them out.
"""
