"""`rlrun --help SETTING`."""

import pytest

from rlrun.cli.help.setting import Composed, find, keys_of, setting_text
from rlrun.config.files import conf_directory

CONF = conf_directory()


def test_a_setting_has_its_comment_type_range_and_value(rlrun):
    assert rlrun("--help", "algo.clip") == (
        0,
        "algo.clip\n"
        "  Half the width of the band of ratios around 1 (Schulman et al. 2017, §3).\n"
        "\n"
        "  type   a number, positive\n"
        "  value  0.2  from conf/algo/ppo.yaml\n",
        "",
    )


LINES = {
    "--help total_steps": ["type   a whole number, at least 1", "1_000_000  from conf/config.yaml"],
    "--help evaluation.episodes": [
        "type   a whole number, at least 1",
        "10  from conf/config.yaml",
    ],
    "--help hardware.compile": ["type   one of auto, off, on"],
    "--help algo.value_clip": ["or null", "value  null  from conf/algo/ppo.yaml"],
    "--help model.hidden_sizes": ["type   a list, each a whole number, at least 1"],
    "--help algo.optimizer.learning_rate": ["type   a number, positive, finite", "3e-4  from"],
    "algo=trpo --help algo.trust_region.max_kl": ["type   a number", "from conf/algo/trpo.yaml"],
    "--help advantage.lam algo=ppo": ["type   a number, in [0, 1]", "conf/advantage/gae.yaml"],
    "--help advantage.lam env=swimmer advantage.lam=0.5": [
        "value  0.95  from conf/advantage/gae.yaml",
        "then   0.98  from conf/tuned/ppo_swimmer/gae.yaml",
        "then   0.5  from the command line",
    ],
    "--help collector.horizon": ["value  ${algo.horizon}  from conf/collector/seg", "is     128"],
    "--help env.options.healthy_angle_range": ["Healthy angles", "[-0.2, 0.2]  from conf/env/hop"],
    "--help env.id env=gym": ["Gymnasium id.", "type   text", "???  from conf/env/gym.yaml"],
    "--help logger.wandb.mode logger=wandb": ["one of auto, online, offline"],
    "--help algo.optimizer": ["How gradients", "  algo.optimizer.learning_rate  ", "Step size"],
    "--help env": ["env: the environment", "\n* hopper ", "\n  walker2d ", "\n  env.id "],
    "--help env env=walker2d": ["\n  hopper ", "\n* walker2d "],
    "--help tuned": ["\n  ppo_swimmer "],
    "--help logger": ["\n* none ", "\n  wandb "],
    "train -h seed tags": ["\nseed\n", "\ntags\n"],
}


@pytest.mark.parametrize("words", LINES)
def test_what_is_asked_for_is_told(rlrun, words):
    code, out, err = rlrun(*words.split())
    assert (code, err) == (0, "")
    for line in LINES[words]:
        assert line in f"\n{out}"


MISTAKES = {
    "--help algo.clp": "algo.clp: no such setting; did you mean 'algo.clip'?",
    "--help evn": "evn: no such setting; did you mean 'env'?",
    "--help clip": "clip: no such setting; did you mean 'algo.clip'?",
    "--help algo.lr": "algo.lr: no such setting; did you mean 'algo.optimizer.learning_rate'?",
    "--help algo.gamma.x": "algo.gamma.x: algo.gamma has no settings of its own",
    "algo=dqn --help algo.noisy.sigma": "algo.noisy.sigma: algo.noisy is null here",
    "algo=sac env=hopper --help algo.temperature.optimizer.epsilon": "optimizer is null here",
    "--help algo.trust_region.max_kl": "rlrun algo=trpo --help algo.trust_region.max_kl",
    "algo=ppoo --help algo.clip": "algo=ppoo: no such algo; did you mean 'ppo'?",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_names_the_nearest(rlrun, words):
    code, _, err = rlrun(*words.split())
    assert code == 2
    assert MISTAKES[words] in err
    assert err.count("\n") == 1


def test_the_users_own_groups_are_explained(rlrun, tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env/mine.yaml").write_text(
        "# Mine\ndefaults:\n  - hopper\n  - _self_\n\n# Longer.\nmax_episode_steps: 2_000\n"
    )
    words = ["--config-dir", str(tmp_path), "env=mine", "--help"]
    assert "\n* mine " in rlrun(*words, "env")[1]
    out = rlrun(*words, "env.max_episode_steps")[1]
    assert "null  from conf/env/hopper.yaml" in out
    assert f"then   2_000  from {tmp_path}/env/mine.yaml" in out
    assert "Steps after which an episode is truncated" in out


def test_every_setting_of_every_algorithm_is_explained():
    for path in sorted((CONF / "algo").glob("*.yaml")):
        algo = f"algo={path.stem}"
        composed = Composed([algo, "~tuned"], [CONF])
        assert path in [file for file, _ in composed.files]
        for key, (comment, value) in keys_of(path).items():
            if key[0] in ("defaults", "_target_") or value is None:
                continue
            name = ".".join(["algo", *key])
            told = setting_text(name, find(composed, name), composed, [algo])
            assert comment.splitlines()[0] in told
            assert f"{value}  from conf/algo/{path.name}" in told
            assert "\n  type   " in told
