"""The steps of Eso-LM (B) in PyTorch: eager, with a K/V cache, random weights of the published shape `small`.

A peer for the speed of esolm, written for that: the modulations are folded into the weights, only mask rows reach
the vocabulary matrix, and known rows come first, as esolm does it. (The authors' code does more work per step.)
Sampling is the nucleus filter over a full sort and one draw per row.

    eso_torch.py f32|bf16 THREADS

says what it is in one line, reads lines "T SEED" and answers each with the seconds that writing a text of 1024 tokens
in T diffusion steps took.
"""

import sys
import time

import torch
import torch.nn.functional as F

LENGTH, WIDTH, BLOCKS, HEADS, VOCABULARY = 1024, 768, 12, 12, 50258
MASK = VOCABULARY - 1
HEAD = WIDTH // HEADS
TOP_P = 0.9


class Block:
    def __init__(self, weight):
        self.norm1, self.norm2 = torch.ones(WIDTH).to(weight(1)), torch.ones(WIDTH).to(weight(1))
        self.qkv, self.out = weight(3 * WIDTH, WIDTH), weight(WIDTH, WIDTH)
        self.up, self.up_bias = weight(4 * WIDTH, WIDTH), weight(4 * WIDTH)
        self.down, self.down_bias = weight(WIDTH, 4 * WIDTH), weight(WIDTH)
        # [heads, slots, head]: a step's rows are written behind what is known.
        self.keys = torch.zeros(HEADS, LENGTH + 1, HEAD, dtype=self.qkv.dtype)
        self.values = torch.zeros_like(self.keys)

    def __call__(self, x, cos, sin, start, seen):
        rows = x.shape[0]
        q, k, v = F.linear(F.layer_norm(x, (WIDTH,), self.norm1), self.qkv).view(rows, 3, HEADS, HEAD).permute(1, 2, 0, 3)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        end = start + rows
        self.keys[:, start:end], self.values[:, start:end] = k, v
        # Causal in generation order: row i sees the slots up to its own.
        y = F.scaled_dot_product_attention(q, self.keys[:, :end], self.values[:, :end], attn_mask=seen)
        x = x + F.linear(y.transpose(0, 1).reshape(rows, WIDTH), self.out)
        h = F.gelu(F.linear(F.layer_norm(x, (WIDTH,), self.norm2), self.up, self.up_bias), approximate="tanh")
        return x + F.linear(h, self.down, self.down_bias)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Model:
    def __init__(self, dtype):
        generator = torch.Generator().manual_seed(1)

        def weight(*shape):
            return (0.03 * torch.randn(*shape, generator=generator)).to(dtype)

        self.embedding, self.output, self.bias = weight(VOCABULARY, WIDTH), weight(VOCABULARY, WIDTH), weight(VOCABULARY)
        self.norm = torch.ones(WIDTH, dtype=dtype)
        self.blocks = [Block(weight) for _ in range(BLOCKS)]
        frequencies = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
        angles = torch.arange(LENGTH)[:, None] * frequencies
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def logits(self, tokens, positions, start, masks):
        """The logits of the last `masks` rows. Slots `start` and on get the rows' keys and values."""
        rows, end = len(tokens), start + len(tokens)
        cos, sin = self.cos[positions], self.sin[positions]
        seen = torch.arange(end)[None] <= torch.arange(start, end)[:, None]
        x = self.embedding[tokens]
        for block in self.blocks:
            x = block(x, cos, sin, start, seen)
        return F.linear(F.layer_norm(x[rows - masks:], (WIDTH,), self.norm), self.output, self.bias).float()


def nucleus(logits):
    logits[:, MASK] = -torch.inf
    ordered, index = logits.softmax(-1).sort(dim=-1, descending=True)
    ordered[ordered.cumsum(-1) - ordered > TOP_P] = 0
    return index.gather(1, torch.multinomial(ordered, 1)).squeeze(1)


def schedule(steps):
    """How many tokens each diffusion step writes, alpha_0 = 1."""
    alpha = [1 - (1 - 1e-3) * (1 - i / steps) for i in range(steps + 1)]
    counts, remaining = [], LENGTH
    for now, later in zip(alpha, alpha[1:]):
        n = int(torch.binomial(torch.tensor(float(remaining)), torch.tensor((later - now) / (1 - now))))
        counts += [n] if n else []
        remaining -= n
    return counts + ([remaining] if remaining else [])


@torch.inference_mode()
def generate(model, steps, seed):
    torch.manual_seed(seed)
    order, counts = torch.randperm(LENGTH), schedule(steps)
    tokens, start, done = torch.full((LENGTH,), MASK), 0, 0
    for count in counts:
        places = order[start:done + count]
        logits = model.logits(tokens[places], places, start, count)
        tokens[order[done:done + count]] = nucleus(logits)
        start, done = done, done + count
    assert (tokens != MASK).all()


def main():
    torch.set_num_threads(int(sys.argv[2]))
    model = Model({"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]])
    generate(model, 4, 0)
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}", flush=True)
    for line in sys.stdin:
        steps, seed = map(int, line.split())
        started = time.perf_counter()
        generate(model, steps, seed)
        print(time.perf_counter() - started, flush=True)


main()
