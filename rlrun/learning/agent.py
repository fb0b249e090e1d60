"""The agent of the policy gradient: a policy, the critics that Ψ needs, and their normalisers.

It turns transitions into a rollout that can be learned from, and Ψ out of that.
"""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from rlrun.advantages.columns import COLUMNS
from rlrun.advantages.trial import made_up_rollout, prepare
from rlrun.data.normalize import Normalization, ObservationNormalizer, RewardNormalizer
from rlrun.data.rollout import Rollout, Transitions
from rlrun.errors import UserError
from rlrun.learning.contract import Context, Stateful
from rlrun.models.actor import Actor
from rlrun.models.language.networks import TokenPolicy
from rlrun.models.networks import Networks


class AgentSettings(Protocol):
    """The hyperparameters of an algorithm that concern its agent.

    Attributes:
        gamma: discount γ of the return.
        normalization: what is brought to unit scale.
    """

    @property
    def gamma(self) -> float: ...  # noqa: D102

    @property
    def normalization(self) -> Normalization: ...  # noqa: D102


class Agent:
    """Networks, normalisers and an actor.

    Attributes:
        device: where the networks are.
        networks: policy and critics.
        actor: who acts, where the environments are.
        estimate: rollout -> advantage Ψ and value target, each [T, N].
        parts: what decides the future beside the weights, by name.
        weighs_steps: whether the estimator weighs each step with a ratio of policies of its own.
    """

    def __init__(
        self,
        context: Context,
        settings: AgentSettings,
        *,
        critics: bool,
        recorded: bool = False,
    ):
        """Build the networks.

        Args:
            context: the other parts of the run.
            settings: the algorithm's hyperparameters.
            critics: whether the algorithm learns critics, if the estimator asks for them.
            recorded: whether it can learn from what others did.

        Raises:
            UserError: the estimator asks for what this run cannot have, or returns what no update
                can use.
        """
        problem, shape, streams = context.problem, context.shape, context.streams
        if critics and shape.may_be_empty:
            raise UserError(
                "dynamic sampling sometimes returns no episode, which an algorithm with critics "
                "cannot go on from: collector=groups, or collector.refill=null where responses are "
                "written"
            )
        if shape.recorded and not recorded:
            raise UserError(
                "collector=pairs has responses of others, with probabilities that nobody knows: "
                "algo=dpo or ipo, say"
            )
        self._context = context
        self.device = context.hardware.torch_device()
        self.estimate, self._columns = prepare(
            context.estimator,
            critics=critics,
            gamma=settings.gamma,
            problem=problem,
            shape=shape,
            device=self.device,
        )
        self.weighs_steps = "policy_logp" in self._columns
        needed = {COLUMNS[name].network for name in self._columns}
        model, generator = context.model, streams.init
        self.networks = Networks(
            model.policy(problem, generator),
            model.critic(problem, generator) if "critic" in needed else None,
            model.action_critic(problem, generator) if "action_critic" in needed else None,
        )
        self.networks.to(self.device).requires_grad_(False)
        if context.initial is not None and not context.resumed:
            initial = context.load_policy(context.initial, self.device, "model.init").policy
            try:
                self.networks.policy.load_state_dict(initial.state_dict())
            except RuntimeError as error:  # names or shapes of weights differ
                raise UserError(
                    f"model.init={context.initial} is a network of other sizes than model=…"
                ) from error
        scales = settings.normalization
        if shape.sequences:
            self._require_tokens(scales)
        self.observation_normalizer = ObservationNormalizer(
            problem.obs_size, clip=scales.clip, enabled=scales.observation
        )
        self.reward_normalizer = RewardNormalizer(
            None if shape.whole_episodes else shape.num_envs,
            gamma=settings.gamma,
            clip=scales.clip,
            enabled=scales.reward,
        )
        # Responses are written where the policy learns; environments are stepped on the CPU.
        place = self.device if shape.sequences else torch.device("cpu")
        self.actor = Actor(self.networks.policy, self.observation_normalizer, streams.action, place)
        self.parts: dict[str, Stateful] = {
            "observation_normalizer": self.observation_normalizer,
            "reward_normalizer": self.reward_normalizer,
            "actor": self.actor,
        }

    def _require_tokens(self, scales: Normalization) -> None:
        """Refuse what can do nothing with sequences of tokens."""
        if not isinstance(self.networks.policy, TokenPolicy):
            raise UserError("collector=generation: this model reads no tokens: model=transformer")
        if scales.observation:
            raise UserError(
                "algo.normalization.observation must be false: a token is no number that has a "
                "scale"
            )

    @torch.no_grad()
    def rollout(self, transitions: Transitions) -> Rollout:
        """Make a rollout of what was collected, scaled and with the columns that Ψ needs.

        Observations are scaled by the statistics under which the policy acted; then these learn.
        """
        device, done = self.device, transitions.done
        reward = self.reward_normalizer(transitions.reward, done, transitions.mask)
        rollout = Rollout(
            obs=self.observation_normalizer(transitions.obs).to(device),
            next_obs=self.observation_normalizer(transitions.next_obs).to(device),
            raw_obs=transitions.obs,
            action=transitions.action.to(device),
            logp=transitions.logp.to(device),
            reward=reward.to(device),
            raw_reward=transitions.reward.to(device),
            terminated=transitions.terminated.to(device),
            truncated=transitions.truncated.to(device),
            mask=transitions.mask.to(device),
            whole_episodes=transitions.whole_episodes,
            group=None if transitions.group is None else transitions.group.to(device),
            importance=None
            if transitions.importance is None
            else transitions.importance.to(device),
        )
        self.observation_normalizer.learn(transitions.obs_moments)
        return self.judge(rollout)

    @torch.no_grad()
    def judge(self, rollout: Rollout) -> Rollout:
        """Fill in what the networks say now of a rollout."""
        networks, generator = self.networks, self._context.streams.action
        columns = {
            name: COLUMNS[name].compute(networks, rollout, generator) for name in self._columns
        }
        return replace(rollout, columns=columns)

    def publish(self) -> None:
        """Let the actor act with the present weights."""
        self.actor.publish()

    @torch.no_grad()
    def example(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a minibatch of observations [B, D], actions [B] or [B, A], and zeros [B].

        Of the right shapes and types to compile for.
        """
        obs = torch.zeros(size, self._context.problem.obs_size, device=self.device)
        action = self.networks.policy(obs).mode()
        return obs, action, torch.zeros(size, device=self.device)

    def made_up_rollout(self) -> Rollout:
        """Return a short rollout with zeros for columns, to try an estimator on."""
        rollout = made_up_rollout(self._context.problem, self._context.shape, self.device)
        columns = {name: torch.zeros_like(rollout.reward) for name in self._columns}
        return replace(rollout, columns=columns)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the networks' weights by name: what is shared of a trained policy."""
        return {name: tensor.clone() for name, tensor in self.networks.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""
        self.networks.load_state_dict(weights)
        self.actor.refresh()


def refuse_second_ratio(agent: Agent) -> None:
    """Check, for a surrogate with a ratio π/μ, that an estimator's recomputed Ψ has none as well.

    Raises:
        UserError: once the policy has moved, each step would be weighed twice.
    """
    if agent.weighs_steps:
        raise UserError(
            "advantage: it weighs each step with the ratio of the policies, which the algorithm "
            "does too: algo.recompute_advantage=false"
        )
