"""rlrun's transformer under the names of transformers' Llama, which computes the same."""

from torch import Tensor

from rlrun.models.language.transformer import Block, Decoder


def llama_weights(decoder: Decoder) -> dict[str, Tensor]:
    """Return a decoder's weights as those of a ``LlamaForCausalLM`` with a tied head, by name."""
    weights = {
        "model.embed_tokens.weight": decoder.embedding.weight,
        "model.norm.weight": decoder.norm.weight,
    }
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        queries, keys, values = block.query_key_value.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        layer = {
            "input_layernorm": block.attention_norm.weight,
            "self_attn.q_proj": queries,
            "self_attn.k_proj": keys,
            "self_attn.v_proj": values,
            "self_attn.o_proj": block.attention_out.weight,
            "post_attention_layernorm": block.perceptron_norm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.perceptron_out.weight,
        }
        weights |= {f"model.layers.{number}.{name}.weight": each for name, each in layer.items()}
    return {name: weight.detach().contiguous() for name, weight in weights.items()}
