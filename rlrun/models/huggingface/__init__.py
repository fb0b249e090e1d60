"""Pretrained causal language models, by the packages transformers and peft."""
