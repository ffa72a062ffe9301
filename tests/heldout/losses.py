#!/usr/bin/env python3
"""Losses of the default model on stories.txt, written down in losses.json for tests/integration/heldout.rs.

    python3 -m venv target/numpy && target/numpy/bin/pip install numpy tokenizers
    target/numpy/bin/python tests/heldout/losses.py models/stories-q8_0.gguf CHECKPOINT_FOLDER >tests/heldout/losses.json

This is the network once more, in NumPy and f64, and shares nothing with esolm but the files: it reads the weights of the
GGUF file itself, and those of the checkpoint (model.safetensors) that the file was made from, unfolded as they are.

The text is cut into windows of the model's length, each scored by itself. All numbers are nats of a whole window:
  left_to_right   minus log p(token | those before it) of all tokens
  masked          position 37 i mod n is place i of an order; minus log p(token | the first half) of the second half
  bound           means over DRAWS random masks of each window, their sums over the windows and the errors of those; at a
                  time t in 0..1 each token is known with probability alpha = ALPHA_0 (1 - (1 - EPSILON) t)
                  diffusion   minus log p(token | the known) of the unknown, times ALPHA_0 (1 - EPSILON) / (1 - alpha)
                  sequential  minus log p of the unknown at t = 0, from left to right
"""
import json
import pathlib
import struct
import sys

import numpy as np
from tokenizers import Tokenizer

DRAWS = 8
# The alpha_0 that the model was trained with, and where the authors' schedule ends.
ALPHA_0, EPSILON = 0.5, 1e-3
HERE = pathlib.Path(__file__).parent


def read_gguf(path):
    """Metadata, and the tensors in f32: those of type f32 (0), and q8_0 (8), blocks of a scale in f16 and 32 bytes."""
    raw = path.read_bytes()
    at = 8

    def take(form):
        nonlocal at
        at += struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, raw, at - struct.calcsize("<" + form))[0]

    def string():
        nonlocal at
        size = take("Q")
        at += size
        return raw[at - size:at].decode()

    def value(kind):
        if kind == 8:
            return string()
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    tensors, entries = take("Q"), take("Q")
    metadata = {string(): value(take("I")) for _ in range(entries)}
    places = []
    for _ in range(tensors):
        name, dimensions = string(), take("I")
        shape = [take("Q") for _ in range(dimensions)][::-1]
        places.append((name, shape, take("I"), take("Q")))
    align = metadata.get("general.alignment", 32)
    start = -(-at // align) * align
    weights = {}
    for name, shape, kind, offset in places:
        count = int(np.prod(shape))
        if kind == 0:
            values = np.frombuffer(raw, "<f4", count, start + offset)
        else:
            assert kind == 8, f"{name} is of type {kind}"
            block = np.dtype([("scale", "<f2"), ("bytes", "i1", 32)])
            blocks = np.frombuffer(raw, block, count // 32, start + offset)
            values = blocks["scale"].astype("f8")[:, None] * blocks["bytes"]
        weights[name] = values.reshape(shape).astype("f8")
    return metadata, weights


def read_checkpoint(folder, blocks):
    """The weights of a safetensors file under the names of the model file. The condition is constant here and its
    matrices are zero, so that adaLN is its bias alone: shift, scale (plus 1) and gate of attention, then of the MLP."""
    raw = (folder / "model.safetensors").read_bytes()
    size = struct.unpack_from("<Q", raw)[0]
    head = json.loads(raw[8:8 + size])
    head.pop("__metadata__", None)
    t = {}
    for name, entry in head.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "F32"
        t[name] = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"]).astype("f8")
    weights = {"token_embd.weight": t["vocab_embed.embedding"]}
    for i in range(blocks):
        here, there = f"blk.{i}.", f"blocks.{i}."
        assert not t[there + "adaLN_modulation.weight"].any()
        modulation = t[there + "adaLN_modulation.bias"].reshape(6, -1)
        for norm, old, (shift, scale, _) in (("attn_norm", "norm1", modulation[:3]), ("ffn_norm", "norm2", modulation[3:])):
            weights[f"{here}{norm}.weight"] = t[f"{there}{old}.weight"] * (1 + scale)
            weights[f"{here}{norm}.bias"] = shift
        weights[here + "attn_qkv.weight"] = t[there + "attn_qkv.weight"]
        weights[here + "attn_output.weight"] = modulation[2][:, None] * t[there + "attn_out.weight"]
        for new, old in (("ffn_up", "mlp.0"), ("ffn_down", "mlp.2")):
            gate = modulation[5] if new == "ffn_down" else np.ones(1)
            weights[f"{here}{new}.weight"] = gate[:, None] * t[f"{there}{old}.weight"]
            weights[f"{here}{new}.bias"] = gate * t[f"{there}{old}.bias"]
    shift, scale = t["output_layer.adaLN_modulation.bias"].reshape(2, -1)
    weights["output_norm.weight"] = t["output_layer.norm_final.weight"] * (1 + scale)
    weights["output_norm.bias"] = shift
    weights["output.weight"] = t["output_layer.linear.weight"]
    weights["output.bias"] = t["output_layer.linear.bias"]
    return weights


def log_probabilities(metadata, w, tokens, positions, visible, wanted):
    """log p of every token in the rows `wanted` of a run; `visible[i, j]`: row i attends to row j."""
    heads = metadata["esolm.attention.head_count"]
    epsilon = metadata["esolm.attention.layer_norm_epsilon"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)

    x = w["token_embd.weight"][tokens]
    rows, width = x.shape
    half = width // heads // 2
    angle = positions[:, None] * metadata["esolm.rope.freq_base"] ** (-np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)

    def rotate(y):
        return np.concatenate((y[..., :half] * cos - y[..., half:] * sin, y[..., half:] * cos + y[..., :half] * sin), -1)

    for i in range(metadata["esolm.block_count"]):
        block = f"blk.{i}."
        qkv = linear(norm(x, block + "attn_norm"), block + "attn_qkv")
        q, k, v = qkv.reshape(rows, 3, heads, -1).transpose(1, 2, 0, 3)
        scores = np.where(visible, rotate(q) @ rotate(k).transpose(0, 2, 1) / np.sqrt(2 * half), -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (p / p.sum(-1, keepdims=True)) @ v
        x = x + linear(mixed.transpose(1, 0, 2).reshape(rows, width), block + "attn_output")
        h = linear(norm(x, block + "ffn_norm"), block + "ffn_up")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h ** 3)))
        x = x + linear(h, block + "ffn_down")
    logits = linear(norm(x[wanted], "output_norm"), "output")
    logits[:, metadata["esolm.mask_token_id"]] = -np.inf
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def one_by_one(model, tokens, order, known):
    """-log p of the tokens after the first `known` in the order, each given all before it. The rows are all tokens, then
    the masks; the mask of a token attends to the tokens before that one, and to itself."""
    n, m = len(order), len(order) - known
    place = np.arange(n)
    visible = np.zeros((n + m, n + m), bool)
    visible[:n, :n] = place[:, None] >= place
    visible[n:, :n] = place[known:, None] > place
    visible[n:, n:] = np.eye(m, dtype=bool)
    masks = np.full(m, model[0]["esolm.mask_token_id"])
    rows = np.concatenate((tokens[order], masks)), np.concatenate((order, order[known:]))
    found = log_probabilities(*model, *rows, visible, np.arange(n, n + m))
    return -found[np.arange(m), tokens[order[known:]]].sum()


def at_once(model, tokens, order, known):
    """-log p of the tokens after the first `known` in the order, each given the known ones: a step of diffusion."""
    n, place = len(order), np.arange(len(order))
    row_tokens = np.where(place < known, tokens[order], model[0]["esolm.mask_token_id"])
    found = log_probabilities(*model, row_tokens, order, place[:, None] >= place, place[known:])
    return -found[np.arange(n - known), tokens[order[known:]]].sum()


def bound(model, windows):
    """See above. The times of a window's draws are spread evenly, with a random shift."""
    random = np.random.default_rng(1)

    def split(n, alpha):
        known = random.uniform(size=n) < alpha
        return random.permutation(np.flatnonzero(known)), np.flatnonzero(~known)

    estimates = {"diffusion": [], "sequential": []}
    for tokens in windows:
        n, shift = len(tokens), random.uniform()
        losses = {"diffusion": [], "sequential": []}
        for draw in range(DRAWS):
            alpha = ALPHA_0 * (1 - (1 - EPSILON) * (draw + shift) / DRAWS)
            first, rest = split(n, alpha)
            loss = at_once(model, tokens, np.concatenate((first, random.permutation(rest))), len(first))
            losses["diffusion"].append(loss * ALPHA_0 * (1 - EPSILON) / (1 - alpha))
            first, rest = split(n, ALPHA_0)
            losses["sequential"].append(one_by_one(model, tokens, np.concatenate((first, rest)), len(first)))
        for part, values in losses.items():
            # Of neighbours in time, so that the trend over the times does not count as an error.
            variance = np.mean(np.diff(values) ** 2) / 2
            estimates[part].append((np.mean(values), variance / DRAWS))
    result = {}
    for part, pairs in estimates.items():
        means, variances = np.array(pairs).T
        result[part] = {"sum": means.sum(), "standard_error": np.sqrt(variances.sum())}
    return result


def main():
    metadata, quantized = read_gguf(pathlib.Path(sys.argv[1]))
    original = read_checkpoint(pathlib.Path(sys.argv[2]), metadata["esolm.block_count"])
    text = (HERE / "stories.txt").read_text()
    tokens = np.array(Tokenizer.from_str(metadata["tokenizer.huggingface.json"]).encode(text).ids)
    length = metadata["esolm.context_length"]
    windows = [tokens[at:at + length] for at in range(0, len(tokens), length)]
    losses = {"how": "tests/heldout/losses.py, NumPy " + np.__version__, "tokens": tokens.tolist()}
    for name, weights in (("file", quantized), ("checkpoint", original)):
        model = metadata, weights
        in_order = [one_by_one(model, window, np.arange(len(window)), 0) for window in windows]
        strided = [(window, np.arange(len(window)) * 37 % len(window)) for window in windows]
        masked = [at_once(model, window, order, len(window) // 2) for window, order in strided]
        losses[name] = {"left_to_right": in_order, "masked": masked}
    losses["file"]["bound"] = bound((metadata, quantized), windows)
    print(json.dumps(losses))


main()
