"""TRL's trainers on tasks of language, in this process; other benchmarks run it.

    python benchmarks/token_peers.py speed '{"layers": 2, "width": 64, ...}'
    python benchmarks/token_peers.py losses DIRECTORY

``speed`` times GRPO (of a `token_throughput.Setting` as JSON, with the file of the first weights),
and prints the seconds of each update and the mean reward of each, as a line of JSON. ``losses``
makes two models with random weights in the directory, ``policy`` and ``reference``, and prints what
TRL's losses are on the examples that are there (`token_losses.py`). The models are Llamas, and the
tokeniser has one token for each character, so that both sides read and write the same.
"""

import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

CHARACTERS = "C0123456789="

MODELS = ("policy", "reference")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokeniser with a token for each character, one for the end, and one for nothing."""
    vocabulary = {token: number for number, token in enumerate([*CHARACTERS, "<end>", "<pad>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )


def make_model(
    setting: dict, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0
) -> LlamaForCausalLM:
    """Return a Llama of the size of rlrun's transformer."""
    width = setting["width"]
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=-(-8 * width // 24) * 8,
            num_hidden_layers=setting["layers"],
            num_attention_heads=setting["heads"],
            max_position_embeddings=64,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def fraction_right(prompts: list[str], completions: list[str], **_) -> list[float]:
    """Return the share of places, the end being one, at which each is the copy of its digits."""
    rewards = []
    for prompt, completion in zip(prompts, completions, strict=True):
        answer = prompt[1:-1]
        right = sum(one == other for one, other in zip(completion, answer, strict=False))
        rewards.append(right / (max(len(answer), len(completion)) + 1))
    return rewards


class Watch(TrainerCallback):
    """Notes when each update ends, and its reward."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.rewards: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args, state, control, **_) -> None:
        """Look at the clock."""
        self.times.append(time.perf_counter())

    def on_log(self, args, state, control, logs=None, **_) -> None:
        """Keep reward and loss."""
        for name, values in (("reward", self.rewards), ("loss", self.losses)):
            if logs and name in logs:
                values.append(float(logs[name]))


def train(setting: dict) -> Watch:
    """Train by GRPO for some updates."""
    tokenizer = make_tokenizer()
    generator = random.Random(setting["seed"])
    count = setting["prompts"] * setting["updates"]
    prompts = [
        f"C{''.join(generator.choice('0123456789') for _ in range(setting['digits']))}="
        for _ in range(count)
    ]
    model, watch = make_model(setting, tokenizer), Watch()
    lost, unknown = model.load_state_dict(load_file(setting["weights"]), strict=False)
    if (lost, unknown) != (["lm_head.weight"], []):  # which is tied
        raise ValueError(f"weights of another model: without {lost}, with {unknown}")
    with tempfile.TemporaryDirectory() as directory:
        responses = setting["prompts"] * setting["group_size"]
        config = GRPOConfig(
            output_dir=directory,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=responses,
            num_generations=setting["group_size"],
            max_completion_length=setting["digits"] + 2,
            max_steps=setting["updates"],
            learning_rate=setting["learning_rate"],
            lr_scheduler_type="constant",
            adam_epsilon=1e-5,
            weight_decay=0.0,
            max_grad_norm=setting["max_grad_norm"],
            beta=0.0,
            loss_type="grpo",
            epsilon=0.2,
            temperature=1.0,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=setting["seed"],
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=fraction_right,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[watch],
        )
        trainer.train()
    return watch


# Of one step that moves nothing.
ONE_STEP = {
    "use_cpu": True,
    "bf16": False,
    "max_steps": 1,
    "learning_rate": 0.0,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


def losses(directory: Path) -> dict[str, float]:
    """Return TRL's losses of the first step, of a policy and a reference that are written down.

    Args:
        directory: has pairs.jsonl and answers.jsonl, and gets the models.
    """
    tokenizer = make_tokenizer()
    size = {"layers": 2, "width": 64, "heads": 4}
    models = {name: make_model(size, tokenizer, seed=n) for n, name in enumerate(MODELS)}
    for name, model in models.items():
        with torch.no_grad():  # further apart than weights are that are drawn anew
            for weight in model.parameters():
                weight.mul_(2.0)
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    pairs, answers = (
        [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]
        for name in ("pairs", "answers")
    )
    found = {}
    for name, loss in (("dpo", "sigmoid"), ("ipo", "ipo")):
        watch = Watch()
        config = DPOConfig(
            output_dir=str(directory / name),
            per_device_train_batch_size=len(pairs),
            loss_type=[loss],
            beta=0.1,
            **ONE_STEP,
        )
        DPOTrainer(
            model=LlamaForCausalLM.from_pretrained(directory / "policy"),
            ref_model=LlamaForCausalLM.from_pretrained(directory / "reference"),
            args=config,
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
            callbacks=[watch],
        ).train()
        (found[name],) = watch.losses[:1]
    watch = Watch()
    SFTTrainer(
        model=LlamaForCausalLM.from_pretrained(directory / "policy"),
        args=SFTConfig(
            output_dir=str(directory / "sft"),
            per_device_train_batch_size=len(answers),
            completion_only_loss=True,
            **ONE_STEP,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": each["prompt"], "completion": each["answer"]} for each in answers]
        ),
        processing_class=tokenizer,
        callbacks=[watch],
    ).train()
    (found["sft"],) = watch.losses[:1]
    return found


def main() -> None:
    """Do what was asked for, and print what was seen."""
    if sys.argv[1] == "losses":
        print(json.dumps(losses(Path(sys.argv[2]))))
        return
    setting = json.loads(sys.argv[2])
    torch.set_num_threads(setting["threads"])
    watch = train(setting)
    seconds = [after - before for before, after in pairwise(watch.times)]
    print(json.dumps({"seconds": seconds, "rewards": watch.rewards}))


if __name__ == "__main__":
    main()
