"""Our transformer is a Llama: an implementation of somebody else's says the same."""

import pytest
import torch
from llama import llama_weights

from rlrun.models.language.caches import DecoderShape
from rlrun.models.language.transformer import Decoder

transformers = pytest.importorskip("transformers")


def test_it_says_what_transformers_llama_says():
    shape = DecoderShape(layers=2, width=24, heads=3, vocabulary=11, context=30)
    decoder = Decoder(shape, torch.Generator().manual_seed(0))
    with torch.no_grad():  # norms that are no ones, and logits far apart
        for weight in decoder.parameters():
            weight.mul_(1 + torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)))
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
    )
    llama = transformers.LlamaForCausalLM(config).eval()
    missing, unknown = llama.load_state_dict(llama_weights(decoder), strict=False)
    assert (missing, unknown) == (["lm_head.weight"], [])
    tokens = torch.randint(11, (4, 17), generator=torch.Generator().manual_seed(2))
    ours = decoder(tokens, torch.zeros(4, dtype=torch.int64)) @ decoder.head.T
    theirs = llama(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    gradient = llama.model.layers[0].self_attn.k_proj.weight.grad
    of_keys = decoder.blocks[0].query_key_value.weight.grad.chunk(3)[1]
    torch.testing.assert_close(of_keys, gradient, rtol=1e-3, atol=1e-4)
