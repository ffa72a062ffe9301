"""Trains an Eso-LM on text files and writes a folder that `esolm convert` reads. See docs/training.md.

    python training/train.py TEXT.. --out FOLDER --minutes 60
    esolm convert FOLDER -o model.gguf

TEXT is a text file, or a folder with .txt files. A file may hold several documents with <|endoftext|> between them.

The authors' network is modulated by a condition (adaLN). In these models the condition never changes, so the modulations
are constants: the shifts are trained as the biases of the norms, the scales and gates are part of the weights. That is
the form that esolm runs. The file has the authors' names and, for the modulations, constants.
"""
import argparse, copy, json, math, random, time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

END = "<|endoftext|>"
EPS = 1e-3  # At the end of diffusion, t = 1, a token is known with probability EPS * alpha_0.


# ---- The network ----------------------------------------------------------------------------------------------------
class Block(nn.Module):
    """A transformer block with pre-norm. The names are the authors'."""

    def __init__(self, width, heads, bias, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x, rotation, sees):
        batch, rows, width = x.shape
        q, k, v = self.attn_qkv(self.norm1(x)).view(batch, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, rotation), rotate(k, rotation)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=sees, is_causal=sees is None)
        x = x + F.dropout(self.attn_out(a.transpose(1, 2).reshape(batch, rows, width)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


def rotate(x, rotation):
    """Rotary position embedding, pairs (i, i + half)."""
    (cos, sin), (a, b) = (r.to(x.dtype) for r in rotation), x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Network(nn.Module):
    """`variant` is b, a or ar. The mask is the last token of the vocabulary."""

    def __init__(self, variant, vocab, width, blocks, heads, length, dropout=0.0):
        super().__init__()
        self.variant, self.mask, self.length = variant, vocab - 1, length
        self.sizes = {"n_blocks": blocks, "n_heads": heads, "hidden_size": width, "length": length}
        bias = variant != "ar"  # The shift: AR has no condition.
        self.vocab_embed = nn.ParameterDict({"embedding": nn.Parameter(torch.randn(vocab, width) * 0.02)})
        self.blocks = nn.ModuleList(Block(width, heads, bias, dropout) for _ in range(blocks))
        self.output_layer = nn.ModuleDict({"norm_final": nn.LayerNorm(width, bias=bias), "linear": nn.Linear(width, vocab)})
        self.register_buffer("frequencies", 1e4 ** (-torch.arange(0, width // heads, 2) * heads / width), persistent=False)
        # Each block begins as the identity, and every token as equally likely.
        for linear in [m for m in self.modules() if isinstance(m, nn.Linear)]:
            nn.init.normal_(linear.weight, std=width ** -0.5)
        for linear in [self.output_layer["linear"]] + [m for b in self.blocks for m in (b.attn_out, b.mlp[2])]:
            nn.init.zeros_(linear.weight)

    def forward(self, tokens, positions, sees, wanted):
        """Logits of the rows `wanted` (bool [batch, rows]). `sees` is which rows each row attends to (bool, broadcast to
        [batch, heads, rows, rows]), or None: those before it and itself."""
        angles = (positions[..., None].float() * self.frequencies)[:, None]
        x = self.vocab_embed["embedding"][tokens]
        for block in self.blocks:
            x = block(x, (angles.cos(), angles.sin()), sees)
        logits = self.output_layer["linear"](self.output_layer["norm_final"](x[wanted])).float()
        # A mask is never the token that it hides.
        logits[:, self.mask] = -1e6
        return logits


# ---- Losses: -log p of each token -----------------------------------------------------------------------------------
# `order` [batch, length] has the positions in the order of generation, the known ones first; `known` [batch] counts those.
# The results are [batch, length] in that order, and 0 for the known tokens.

def nll(net, tokens, positions, sees, hidden, targets):
    """-log p of `targets` [batch, rows] at the rows `hidden`."""
    loss = F.cross_entropy(net(tokens, positions, sees, hidden), targets[hidden], reduction="none")
    return torch.zeros(hidden.shape, device=loss.device).masked_scatter(hidden, loss)


def diffusion_nll(net, text, order, known):
    """One step of diffusion: all hidden tokens at once, each given the known ones."""
    in_order = text.gather(1, order)
    slots = torch.arange(text.shape[1], device=text.device)
    hidden = slots >= known[:, None]
    # In (A) the known tokens see each other; a mask sees those and the masks before it.
    sees = None if net.variant == "b" else (slots <= slots[:, None]) | ~hidden[:, None, None, :]
    return nll(net, in_order.masked_fill(hidden, net.mask), order, sees, hidden, in_order)


def sequential_nll(net, text, order, known):
    """One token after another: each hidden token given all that come before it in the order. All in one pass: the rows are the
    text in that order, then the masks. A row of the text sees itself and those before it (in (A) the known ones see each other);
    a mask sees the text before the token that it hides, and itself."""
    in_order = text.gather(1, order)
    length, first = text.shape[1], int(known.min())
    slots = torch.arange(length, device=text.device)
    masks = slots[first:]
    of_text = (slots <= slots[:, None])[None, None]
    if net.variant == "a":
        clean = slots < known[:, None, None, None]
        of_text = of_text | (clean & clean.mT)
    of_masks = torch.cat((slots < masks[:, None], masks == masks[:, None]), 1).expand(len(of_text), 1, -1, -1)
    sees = torch.cat((F.pad(of_text, (0, length - first)), of_masks), 2)
    tokens = torch.cat((in_order, torch.full_like(in_order[:, first:], net.mask)), 1)
    hidden = torch.cat((torch.zeros_like(text, dtype=torch.bool), masks >= known[:, None]), 1)
    targets = torch.cat((in_order, in_order[:, first:]), 1)
    loss = nll(net, tokens, torch.cat((order, order[:, first:]), 1), sees, hidden, targets)
    return F.pad(loss[:, length:], (first, 0))


def ar_nll(net, text, begin):
    """Each token given those to its left; `begin` stands before the first one."""
    positions = torch.arange(text.shape[1], device=text.device).expand_as(text)
    tokens = F.pad(text[:, :-1], (1, 0), value=begin)
    return nll(net, tokens, positions, None, torch.ones_like(text, dtype=torch.bool), text)


def left_to_right(net, text, begin):
    if net.variant == "ar":
        return ar_nll(net, text, begin)
    order = torch.arange(text.shape[1], device=text.device).expand_as(text)
    return sequential_nll(net, text, order, torch.zeros_like(text[:, 0]))


# ---- The training loss: the bound on -log p(text) of the paper, in nats per token ------------------------------------
def draw(known, ascending):
    """An order of generation: the known (bool [batch, length]) in random order, then the others, ascending or random."""
    key = torch.rand(known.shape, device=known.device)
    rest = torch.linspace(0, 1, known.shape[1], device=known.device).expand_as(key) if ascending else key
    return torch.where(known, key, 2 + rest).argsort(1), known.sum(1)


def schedule(t, alpha_0):
    """alpha(t), the probability that a token is known at time t of diffusion, and the weight -alpha'(t) / (1 - alpha(t))."""
    alpha = alpha_0 * (1 - (1 - EPS) * t)
    return alpha, alpha_0 * (1 - EPS) / (1 - alpha)


def diffusion_loss(net, text, alpha_0, low_variance=False):
    """A random time per text, spread evenly over the batch. A weight of 1 is no bound, but less noisy."""
    t = (torch.rand(len(text), 1, device=text.device) + torch.arange(len(text), device=text.device)[:, None]) / len(text)
    alpha, weight = schedule(EPS + (1 - EPS) * t, alpha_0)
    loss = diffusion_nll(net, text, *draw(torch.rand(text.shape, device=text.device) < alpha, False))
    return (loss if low_variance else loss * weight).sum() / text.numel()


def sequential_loss(net, text, alpha_0):
    """Each token is known with probability alpha_0; the others left to right."""
    known = torch.rand(text.shape, device=text.device) < alpha_0
    return sequential_nll(net, text, *draw(known, True)).sum() / text.numel()


def losses(net, text, alpha_0, begin, low_variance=False):
    """The two parts of the loss. Each is computed on a half of the batch; a part that alpha_0 leaves out is missing."""
    if net.variant == "ar":
        return {"left to right": ar_nll(net, text, begin).mean()}
    if alpha_0 == 1:
        return {"diffusion": diffusion_loss(net, text, 1.0, low_variance)}
    if alpha_0 == 0:
        return {"sequential": sequential_loss(net, text, 0.0)}
    half = len(text) // 2
    return {"diffusion": diffusion_loss(net, text[:half], alpha_0, low_variance),
            "sequential": sequential_loss(net, text[half:], alpha_0)}


# ---- Files ----------------------------------------------------------------------------------------------------------
def save(net, folder, alpha_0, end):
    """Writes model.safetensors and config.json in the authors' layout."""
    width, weights = net.sizes["hidden_size"], {name: w.detach().float().cpu() for name, w in net.state_dict().items()}
    esolm = {"name": "esolm", "backbone": "esolm_dit", "alpha_0": alpha_0, "diffusion_shuffle": True}
    algo = {"time_conditioning": False, "causal_attention": net.variant == "ar", "T": 0} | {
        "b": esolm | {"diffusion_attn_mode": "causal", "sequential_attn_mode": "causal", "sequential_shuffle": True},
        "a": esolm | {"diffusion_attn_mode": "mixed2", "sequential_attn_mode": "mixed", "sequential_shuffle": False},
        "ar": {"name": "ar", "backbone": "dit", "prepend_token": "bos"}}[net.variant]
    config = {"algo": algo, "model": net.sizes | {"cond_dim": 1, "dropout": 0.0, "scale_by_sigma": True,
              "tie_word_embeddings": False}, "vocab_size": net.mask + 1, "mask_index": net.mask, "bos_token_id": end,
              "eos_token_id": end}
    tensors = {name: w for name, w in weights.items() if "norm" not in name or "weight" in name}
    tensors["rotary_emb.inv_freq"] = net.frequencies.cpu()
    if net.variant != "ar":
        zero, one = torch.zeros(width), torch.ones(width)
        tensors |= {"sigma_map.mlp.0.weight": torch.zeros(1, 256), "sigma_map.mlp.2.weight": torch.zeros(1, 1),
                    "sigma_map.mlp.0.bias": torch.zeros(1), "sigma_map.mlp.2.bias": torch.zeros(1)}
        for i in range(len(net.blocks)):
            shift1, shift2 = (weights[f"blocks.{i}.norm{n}.bias"] for n in (1, 2))
            tensors[f"blocks.{i}.adaLN_modulation.bias"] = torch.cat((shift1, zero, one, shift2, zero, one))
            tensors[f"blocks.{i}.adaLN_modulation.weight"] = torch.zeros(6 * width, 1)
        tensors["output_layer.adaLN_modulation.bias"] = torch.cat((weights["output_layer.norm_final.bias"], zero))
        tensors["output_layer.adaLN_modulation.weight"] = torch.zeros(2 * width, 1)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def load(folder, dropout=0.0):
    """A network from such files, of this script or of the authors', with the modulations folded into the weights."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: t.double() for name, t in load_file(folder / "model.safetensors").items()}
    algo, sizes = config["algo"], config["model"]
    modes = algo.get("diffusion_attn_mode"), algo.get("sequential_attn_mode")
    variant = {("causal", "causal"): "b", ("mixed2", "mixed"): "a"}.get(modes) if algo["name"] == "esolm" else algo["name"]
    vocab = config["vocab_size"]
    if variant not in ("b", "a", "ar") or algo["time_conditioning"] or config.get("mask_index", vocab - 1) != vocab - 1:
        raise SystemExit(f"{folder}: not b, a or ar, or it depends on the time, or its mask is not the last token")
    if variant != "ar":
        linear = lambda name, x: w.pop(name + ".weight") @ x + w.pop(name + ".bias")
        frequencies = w["sigma_map.mlp.0.weight"].shape[1]
        time_0 = (torch.arange(frequencies) < frequencies // 2).double()
        c = F.silu(linear("sigma_map.mlp.2", F.silu(linear("sigma_map.mlp.0", time_0))))
        for b in (f"blocks.{i}." for i in range(sizes["n_blocks"])):
            shift1, scale1, gate1, shift2, scale2, gate2 = linear(b + "adaLN_modulation", c).chunk(6)
            w[b + "norm1.weight"] *= 1 + scale1
            w[b + "norm2.weight"] *= 1 + scale2
            w[b + "norm1.bias"], w[b + "norm2.bias"] = shift1, shift2
            w[b + "attn_out.weight"] *= gate1[:, None]
            w[b + "mlp.2.weight"] *= gate2[:, None]
            w[b + "mlp.2.bias"] *= gate2
        w["output_layer.norm_final.bias"], scale = linear("output_layer.adaLN_modulation", c).chunk(2)
        w["output_layer.norm_final.weight"] *= 1 + scale
    w.pop("rotary_emb.inv_freq", None)
    net = Network(variant, vocab, sizes["hidden_size"], sizes["n_blocks"], sizes["n_heads"], sizes["length"], dropout)
    net.load_state_dict(w)
    return net


# ---- Data -----------------------------------------------------------------------------------------------------------
def documents(paths):
    """The documents of text files, and of the .txt files of folders."""
    files = [f for path in map(Path, paths) for f in (sorted(path.rglob("*.txt")) if path.is_dir() else [path])]
    return [text.strip() for f in files for text in f.read_text(encoding="utf8").split(END) if text.strip()]


def train_tokenizer(texts, vocab):
    """A byte-level BPE as GPT-2's, so that every text can be written with it. The token that ends a document is 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def encode(tokenizer, texts, end):
    """The ids of all texts, each closed by `end`, and where each begins."""
    parts = [torch.tensor(e.ids + [end], dtype=torch.int32)
             for i in range(0, len(texts), 1000) for e in tokenizer.encode_batch(texts[i:i + 1000], add_special_tokens=False)]
    lengths = torch.tensor([len(part) for part in parts])
    return torch.cat(parts), lengths.cumsum(0) - lengths


def windows(ids, starts, length, count, at_start):
    """Random windows; a share `at_start` begins at one of `starts`."""
    anywhere = torch.randint(len(ids) - length + 1, (count,))
    first = torch.where(torch.rand(count) < at_start, starts[torch.randint(len(starts), (count,))], anywhere)
    return ids[first[:, None] + torch.arange(length)].long()


# ---- Training -------------------------------------------------------------------------------------------------------
def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("texts", nargs="+", metavar="TEXT")
    p.add_argument("--out", required=True, type=Path, help="folder to write")
    p.add_argument("--variant", default="b", choices=["b", "a", "ar"])
    p.add_argument("--resume", action="store_true", help="continue the run in --out; --minutes, --steps count from its start")
    p.add_argument("--from", dest="base", type=Path, help="start with the model in this folder; then no size is to be given")
    p.add_argument("--tokenizer", type=Path, help="a tokenizer.json; otherwise one is trained on the texts")
    p.add_argument("--low-variance", action="store_true", help="weight 1 in the diffusion loss, as the authors at alpha_0 = 1")
    p.add_argument("--bf16", action="store_true", help="compute in bfloat16; the weights stay float32")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default, text in [
        ("--minutes", math.inf, "training time"), ("--steps", math.inf, "training steps"),
        ("--alpha0", 0.5, "fraction of the tokens that diffusion writes"), ("--end", END, "the token that ends a document"),
        ("--vocab", 4096, "tokens of a trained tokenizer"), ("--width", 256, ""), ("--blocks", 8, ""), ("--heads", 4, ""),
        ("--length", 256, "tokens of a text"), ("--batch", 16, "texts of a step"), ("--dropout", 0.0, ""),
        ("--matrix-lr", 0.02, "learning rate of the blocks' matrices"), ("--lr", 3e-3, "of all other weights"),
        ("--ema", 0.998, "decay of the averaged weights, which are the ones saved"),
        ("--at-start", 0.5, "share of texts that begin where a document begins; the others begin anywhere"),
        ("--held-out", 0.02, "share of the documents kept for measuring"), ("--seed", 1, ""),
        ("--report", 5.0, "minutes between measurements; each writes the model")]:
        p.add_argument(name, type=type(default), default=default, help=text + " (%(default)s)")
    args = p.parse_args()
    if args.minutes == args.steps == math.inf or not 0 <= args.alpha0 <= 1 or args.batch < 2:
        p.error("it takes --minutes or --steps, an --alpha0 from 0 to 1, a --batch of at least 2")
    return args


@torch.no_grad()
def measure(net, texts, alpha_0, end):
    """The parts of the loss, and the likelihood left to right, with the same random draws every time."""
    sums = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in texts.split(16):
            found = losses(net, batch, alpha_0, end) | {"left to right": left_to_right(net, batch, end).mean()}
            sums = {name: sums.get(name, 0) + value.item() * len(batch) / len(texts) for name, value in found.items()}
    return sums


def main():
    args = options()
    listing = lambda values: ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    torch.manual_seed(args.seed)
    device, out, base = torch.device(args.device), args.out, args.out if args.resume else args.base
    out.mkdir(parents=True, exist_ok=True)
    texts = documents(args.texts)
    random.Random(0).shuffle(texts)
    if len(texts) == 1:  # Its end is held out.
        cut = round(len(texts[0]) * (1 - args.held_out))
        texts = [texts[0][cut:], texts[0][:cut]]
    held = texts[:max(1, round(len(texts) * args.held_out))]
    texts = texts[len(held):]
    given = args.tokenizer or (base and base / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(given)) if given else train_tokenizer(texts, args.vocab)
    end, vocab = tokenizer.token_to_id(args.end), tokenizer.get_vocab_size()
    if end is None:
        raise SystemExit(f"the tokenizer has no {args.end}; name the token that ends a document with --end")
    ids, starts = encode(tokenizer, texts, end)
    held_ids, _ = encode(tokenizer, held, end)
    sizes = args.width, args.blocks, args.heads, args.length
    net = (load(base, args.dropout) if base else Network(args.variant, vocab + 1, *sizes, args.dropout)).to(device)
    length = net.length
    if min(len(ids), len(held_ids)) < length:
        raise SystemExit(f"too little text: {len(ids)} tokens to train on, {len(held_ids)} held out; a text has {length}")
    if vocab != net.mask:
        raise SystemExit(f"the tokenizer has {vocab} tokens, the model {net.mask}")
    held_texts = held_ids[:len(held_ids) // length * length].view(-1, length)[:64].long().to(device)
    per_byte = len(held_ids) / sum(len(text.encode()) for text in held) / math.log(2)
    starts = starts[starts <= len(ids) - length]
    # For `esolm score`, which gets the same tokens from it.
    kept = "".join(text + END for text in held)
    if args.resume and (args.tokenizer or (out / "heldout.txt").read_text(encoding="utf8") != kept):
        raise SystemExit(f"the run in {out} has a tokenizer, or other texts than these")
    (out / "heldout.txt").write_text(kept, encoding="utf8")
    tokenizer.save(str(out / "tokenizer.json"))
    # Muon learns more from a text than AdamW, and is made for matrices.
    matrices = [w for w in net.blocks.parameters() if w.dim() == 2]
    others = [w for w in net.parameters() if w.dim() < 2] + [net.vocab_embed["embedding"], net.output_layer["linear"].weight]
    optimizers = [torch.optim.Muon(matrices, lr=args.matrix_lr, weight_decay=0.01),
                  torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)]
    average = copy.deepcopy(net).eval().requires_grad_(False)
    step, seconds, run = 0, 0.0, [net, average, *optimizers]
    if args.resume:
        step, seconds, saved = torch.load(out / "state.pt", map_location=device)
        for part, state in zip(run, saved, strict=True):
            part.load_state_dict(state)
        torch.manual_seed(args.seed + step)
    millions = sum(w.numel() for w in net.parameters()) / 1e6
    print(f"{millions:.2f} M parameters, {len(ids)} tokens, {len(held_ids)} held out, {device}", flush=True)

    def report():
        found = measure(average, held_texts, args.alpha0, end)
        found["bits per byte"] = found["left to right"] * per_byte
        print(f"held out, {seconds / 60:.1f} min: {listing(found)}", flush=True)
        save(average, out, args.alpha0, end)
        torch.save((step, seconds, [part.state_dict() for part in run]), out / "state.tmp")
        (out / "state.tmp").replace(out / "state.pt")

    mean, next_report = {}, seconds / 60 + args.report
    while step < args.steps and seconds < args.minutes * 60:
        begin = time.time()
        rate = min(1, (step + 1) / 100, 2 * (1 - max(step / args.steps, seconds / 60 / args.minutes)))
        batch = windows(ids, starts, length, args.batch, args.at_start).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            parts = losses(net, batch, args.alpha0, end, args.low_variance)
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, lr in zip(optimizers, (args.matrix_lr, args.lr)):
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad()
        step, share = step + 1, 1 - min(args.ema, (step + 1) / (step + 10))
        for a, w in zip(average.parameters(), net.parameters()):
            a.lerp_(w.detach(), share)
        for name, part in parts.items():
            mean[name] = 0.98 * mean.get(name, part.item()) + 0.02 * part.item()
        seconds += time.time() - begin
        if step % 100 == 0:
            speed = step * batch.numel() / seconds
            print(f"step {step}, {seconds / 60:.1f} min, {speed:.0f} tokens/s, rate {rate:.2f}: {listing(mean)}", flush=True)
        if seconds / 60 > next_report:
            next_report += args.report
            report()
    report()


if __name__ == "__main__":
    main()
