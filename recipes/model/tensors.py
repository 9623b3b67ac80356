"""Every tensor of a model by its Hugging Face name, in the order in which files list them. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes.model.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def llama_shapes(model: ModelConfig) -> Shapes:
    """The names of transformers' LlamaForCausalLM; matrices are [out, in]."""
    hidden, kv = model.hidden, model.kv_heads * model.head_dim
    shapes: Shapes = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (hidden, hidden),
            prefix + "self_attn.k_proj.weight": (kv, hidden),
            prefix + "self_attn.v_proj.weight": (kv, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, hidden),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (model.ffn, hidden),
            prefix + "mlp.up_proj.weight": (model.ffn, hidden),
            prefix + "mlp.down_proj.weight": (hidden, model.ffn),
        }
    shapes["model.norm.weight"] = (hidden,)
    return shapes | _output(model)


def gpt2_shapes(model: ModelConfig) -> Shapes:
    """The names of transformers' GPT2LMHeadModel, whose Conv1D matrices are [in, out]."""
    hidden = model.hidden
    shapes: Shapes = {
        "transformer.wte.weight": (model.vocab_size, hidden),
        "transformer.wpe.weight": (model.position_rows, hidden),
    }
    for layer in range(model.layers):
        prefix = f"transformer.h.{layer}."
        shapes |= {
            prefix + "ln_1.weight": (hidden,),
            prefix + "ln_1.bias": (hidden,),
            prefix + "attn.c_attn.weight": (hidden, 3 * hidden),
            prefix + "attn.c_attn.bias": (3 * hidden,),
            prefix + "attn.c_proj.weight": (hidden, hidden),
            prefix + "attn.c_proj.bias": (hidden,),
            prefix + "ln_2.weight": (hidden,),
            prefix + "ln_2.bias": (hidden,),
            prefix + "mlp.c_fc.weight": (hidden, model.ffn),
            prefix + "mlp.c_fc.bias": (model.ffn,),
            prefix + "mlp.c_proj.weight": (model.ffn, hidden),
            prefix + "mlp.c_proj.bias": (hidden,),
        }
    shapes |= {"transformer.ln_f.weight": (hidden,), "transformer.ln_f.bias": (hidden,)}
    return shapes | _output(model)


def _output(model: ModelConfig) -> Shapes:
    return {} if model.tied else {"lm_head.weight": (model.vocab_size, model.hidden)}


SHAPES = {"llama": llama_shapes, "gpt2": gpt2_shapes}
