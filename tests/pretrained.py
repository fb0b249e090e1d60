"""Data sets, and pretrained models with a tokeniser of their own, small and of random weights."""

import json
from pathlib import Path
from typing import Any

import torch

# What the tokeniser has a token for each of.
LETTERS = "0123456789+-=?. abcdefghijklmnopqrstuvwxyz<>{}\\"

SUMS = [
    {"prompt": f"{one}+{other}=", "answer": str(one + other)}
    for one in range(10)
    for other in range(10)
]

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>"


def write_examples(path: Path, examples: list[Any] = SUMS) -> Path:
    """A file of examples, one a line; what is text already stays as it is."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in examples]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def make_tokenizer(directory: Path, *, end: bool = True, chat: bool = False) -> int:
    """A tokeniser of characters; its size."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["<pad>", "<end>", *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<pad>"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>" if end else None
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(directory)
    return len(fast)


def make_model(
    directory: Path,
    kind: str = "llama",
    *,
    seed: int = 0,
    end: bool = True,
    chat: bool = False,
    context: int = 64,
    spare: int = 0,
    width: int = 32,
) -> Path:
    """A model of two layers whose draws are far from uniform.

    Args:
        directory: where it is written.
        kind: llama (head of its own), gpt2 (tied, learned positions), qwen2 (tied, biases), gptj
            (a head with a bias), gpt_neo (it has no place for a longer row), or bloom (it cannot be
            told of positions).
        seed: of its weights.
        end: whether its tokeniser has an end token.
        chat: whether it has a chat template.
        context: tokens that it reads at most.
        spare: rows of its embedding that are for no token.
        width: numbers that are said of a token, by four heads.
    """
    import transformers
    from transformers.utils import logging

    size = make_tokenizer(directory, end=end, chat=chat) + spare
    common = {"vocab_size": size, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    llama = {**common, **heads, "hidden_size": width, "intermediate_size": 64}
    gpt = {**common, "n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": context}
    config = {
        "llama": lambda: transformers.LlamaConfig(**llama, max_position_embeddings=context),
        "gpt2": lambda: transformers.GPT2Config(**gpt),
        "qwen2": lambda: transformers.Qwen2Config(
            **llama, max_position_embeddings=context, tie_word_embeddings=True
        ),
        "gptj": lambda: transformers.GPTJConfig(**gpt, rotary_dim=8),
        "gpt_neo": lambda: transformers.GPTNeoConfig(
            **common,
            hidden_size=width,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=64,
            max_position_embeddings=context,
        ),
        "bloom": lambda: transformers.BloomConfig(**common, hidden_size=width, n_layer=2, n_head=4),
    }[kind]()
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(std=0.15)  # norms and biases, too
    model.save_pretrained(directory)
    return directory
