"""A task of language step by step: the prefix is what is observed, an action the next token."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlrun.envs.tokens.vocabulary import padded_above

if TYPE_CHECKING:
    from rlrun.envs.tokens.task import TokenTask


class TokenTaskEnv(gym.Env[NDArray[np.int64], np.int64]):
    """One prompt an episode, and a response to it, token by token.

    What is observed are the P + L tokens that end with the latest one; a place before the prompt
    has the number V, which no token has. The reward, with the last token, is that of the whole
    response. A response that is cut is both terminated and truncated.
    """

    def __init__(self, task: "TokenTask", *, held_out: bool = False):
        """Make it for the prompts of training, or for those that training never sees."""
        self._task = task
        self._held_out = held_out
        self._judge = task.open_judge()
        self._language = language = task.language
        places = language.prompt_rows + language.response_rows
        self.observation_space = spaces.MultiDiscrete([language.size + 1] * places)
        self.action_space = spaces.Discrete(language.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Draw a prompt."""
        super().reset(seed=seed, options=options)
        self._prompt = self._task.prompt(self.np_random, held_out=self._held_out)
        self._response: list[int] = []
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """Write a token."""
        language = self._language
        self._response.append(int(action))
        written = len(self._response)
        complete = int(action) in language.ends or written == language.answer_rows
        cut = not complete and written == language.response_rows
        if not (complete or cut):
            return self._observation(), 0.0, False, False, {}
        text = self._task.vocabulary.decode(language.until_end(self._response))
        (judgement,) = self._judge.judge([self._prompt], [text], [complete])
        reward = judgement.reward(self._task.reward)
        # Nothing follows a response that is cut, either: it has been judged.
        return self._observation(), reward, True, cut, {"judgement": judgement._asdict()}

    def _observation(self) -> NDArray[np.int64]:
        language = self._language
        tokens = [*self._task.encode_prompt(self._prompt), *self._response]
        places = language.prompt_rows + language.response_rows
        return np.array(padded_above([tokens], places, language.size)[0], np.int64)

    def close(self) -> None:
        """Let the judge go."""
        self._judge.close()
