#!/usr/bin/env python3
"""Makes tiny random Qwen2 and Qwen3 with transformers, as folders of the hub, with what transformers computes of them; and writes
each again as llama.cpp's files have it, with gguf: models.py FOLDER"""

import json
import pathlib
import shutil
import sys

import gguf
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCABULARY, LENGTH, GREEDY = 320, 48, 24
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=VOCABULARY - 2,
    initializer_range=0.3,
)
MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True, rope_theta=1e4)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=24, tie_word_embeddings=False, rope_theta=1e6)),
    # Every head of queries has its own keys, and all of them one.
    "qwen3-heads": (Qwen3ForCausalLM, Qwen3Config(**{**SHAPE, "num_key_value_heads": 4}, head_dim=32)),
    "qwen2-shared": (Qwen2ForCausalLM, Qwen2Config(**{**SHAPE, "num_key_value_heads": 1}, tie_word_embeddings=False)),
}


def vocabulary():
    """The bytes as GPT-2 writes them, two pairs that merge, two ends, and rows that no token has."""
    shown = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    hidden = [byte for byte in range(256) if byte not in shown]
    character = {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}
    tokens = [character[byte] for byte in range(256)] + ["th", "the"]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    while len(tokens) < VOCABULARY - 2:
        types.append(gguf.TokenType.UNUSED)
        tokens.append(f"[PAD{len(tokens)}]")
    tokens += ["<|im_end|>", "<|endoftext|>"]
    types += [gguf.TokenType.CONTROL] * 2
    return tokens, types, ["t h", "th e"]


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def llama_name(name):
    module, kind = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, block, module = module.split(".", 3)
        return f"blk.{block}.{NAMES[module]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def write_gguf(path, architecture, config, tensors, more=lambda writer: None):
    """As llama.cpp's convert_hf_to_gguf.py writes a model: float32, matrices and vectors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    more(writer)
    for name, tensor in tensors.items():
        writer.add_tensor(llama_name(name), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer):
    tokens, types, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(VOCABULARY - 2)


def main():
    out = pathlib.Path(sys.argv[1])
    for number, (name, (kind, config)) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        model = kind(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            tokens = torch.randint(0, VOCABULARY - 2, (2, LENGTH))
            logits = model(tokens).logits
            prompt = tokens[:1, :5]
            greedy = model.generate(prompt, max_new_tokens=GREEDY, do_sample=False, eos_token_id=None, pad_token_id=0)
        folder = out / name
        model.save_pretrained(folder)
        written = config.to_dict()
        theta = written.get("rope_theta") or written["rope_parameters"]["rope_theta"]
        save_file({"prefix": tokens.int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
        (folder / "golden.json").write_text("{}")
        (folder / "greedy.json").write_text(json.dumps({"prompt": prompt[0].tolist(), "text": greedy[0].tolist()}))
        tensors = {k: v for k, v in model.state_dict().items() if not (k == "lm_head.weight" and config.tie_word_embeddings)}
        write_gguf(folder / "llama.gguf", name[:5], {**written, "rope_theta": theta}, tensors, add_vocabulary)


def wedlm(folder, out):
    """A model of tests/golden as llama.cpp would have it, without a word on its mask, with the logits of its tokens one by one; and
    its folder with words and a chat template."""
    out.mkdir()
    with safe_open(folder / "golden.safetensors", "pt") as file:
        tokens, logits = file.get_tensor("ar.tokens"), file.get_tensor("ar.logits")
    save_file({"prefix": tokens.int()[None], "logits": logits.float()[None]}, out / "golden.safetensors")
    (out / "golden.json").write_text("{}")

    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        with safe_open(shard, "pt") as file:
            tensors.update({key: file.get_tensor(key) for key in file.keys()})
    write_gguf(out / "llama.gguf", "qwen3" if config["qk_norm"] else "qwen2", config, tensors)

    asked = out / "asked"
    shutil.copytree(folder, asked)
    tokens, _, merges = vocabulary()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    words = tokens[:258] + [f"[PAD{i}]" for i in range(258, 509)] + ["<|im_end|>"]
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(words)}, "merges": merges}
    end = {"id": 509, "content": "<|im_end|>", "special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer = {"version": "1.0", "model": model, "pre_tokenizer": level, "decoder": level, "added_tokens": [end]}
    (asked / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    (asked / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "chat_template": template}))


if __name__ == "__main__":
    main()
    for kind in ("qwen3", "qwen25"):
        wedlm(pathlib.Path("tests/golden") / f"wedlm-{kind}", pathlib.Path(sys.argv[1]) / f"wedlm-{kind}")
