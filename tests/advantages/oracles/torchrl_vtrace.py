"""Records what torchrl's V-trace makes of a rollout, for ``tests/advantages/test_vtrace.py``.

python -m venv peer && peer/bin/pip install torch==2.13.0 torchrl==0.14.1
cd tests/advantages/oracles && peer/bin/python torchrl_vtrace.py > torchrl_vtrace.json
"""

import json

import torch
import torchrl
from torchrl.objectives.value.functional import vtrace_advantage_estimate

STEPS, ENVS, GAMMA = 13, 3, 0.97


def main() -> None:
    """Draw a rollout of another policy with both kinds of episode ends; print torchrl's answers."""
    generator = torch.Generator().manual_seed(0)
    shape = (STEPS, ENVS)
    reward, value, final, policy_logp, logp = (
        torch.randn(shape, generator=generator, dtype=torch.float64).round(decimals=2)
        for _ in range(5)
    )
    terminated = torch.rand(shape, generator=generator) < 0.15
    truncated = ~terminated & (torch.rand(shape, generator=generator) < 0.15)
    terminated[-1], truncated[-1] = torch.eye(ENVS, dtype=torch.bool)[:2]
    done = terminated | truncated
    # V(s_{t+1}): of the final observation where an episode ended, else of the next row.
    next_value = torch.where(done, final, torch.cat([value[1:], final[-1:]]))
    answers = []
    for rho_bar, c_bar in ((1.0, 1.0), (2.0, 0.5), (1e9, 1e9)):
        # torchrl 0.14.1 describes log_pi and log_mu the wrong way round; its ratio is π/μ.
        advantage, target = vtrace_advantage_estimate(
            GAMMA,
            policy_logp,
            logp,
            value,
            next_value,
            reward,
            done,
            terminated,
            rho_thresh=rho_bar,
            c_thresh=c_bar,
        )
        answers.append(
            {
                "rho_bar": rho_bar,
                "c_bar": c_bar,
                "advantage": advantage.tolist(),
                "target": target.tolist(),
            }
        )
    record = {
        "torchrl": torchrl.__version__,
        "gamma": GAMMA,
        "reward": reward.tolist(),
        "value": value.tolist(),
        "next_value": next_value.tolist(),
        "policy_logp": policy_logp.tolist(),
        "logp": logp.tolist(),
        "terminated": terminated.tolist(),
        "truncated": truncated.tolist(),
        "answers": answers,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
