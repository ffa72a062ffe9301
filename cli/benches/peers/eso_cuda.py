"""eso_torch.py's network on CUDA, for a batch of texts: the same number of steps, all texts with the same schedule (which is kinder to
PyTorch than esolm's), attention by scaled_dot_product_attention, nucleus over a full sort. eso_cuda.py DTYPE 'B:T,B:T'"""
import sys, time, torch, torch.nn.functional as F
L, D, NB, H, V = 1024, 768, 12, 12, 50258
MASK, HD, TOP_P = V - 1, D // H, 0.9
dt = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]]
dev = "cuda"
g = torch.Generator(device=dev).manual_seed(1)
W = lambda *s: (0.03 * torch.randn(*s, generator=g, device=dev)).to(dt)
emb, out, bias = W(V, D), W(V, D), W(V)
one = torch.ones(D, device=dev, dtype=dt)
blocks = [(W(3 * D, D), W(D, D), W(4 * D, D), W(4 * D), W(D, 4 * D), W(D)) for _ in range(NB)]
freq = 10000.0 ** (-torch.arange(0, HD, 2, device=dev) / HD)
ang = torch.arange(L, device=dev)[:, None] * freq
COS, SIN = ang.cos().to(dt), ang.sin().to(dt)
def rot(x, c, s):
    a, b = x.chunk(2, -1)
    return torch.cat((a * c - b * s, b * c + a * s), -1)
def schedule(T):
    alpha = [1 - (1 - 1e-3) * (1 - i / T) for i in range(T + 1)]
    counts, rem = [], L
    for a, b in zip(alpha, alpha[1:]):
        n = int(torch.binomial(torch.tensor(float(rem)), torch.tensor((b - a) / (1 - a))))
        counts += [n] if n else []
        rem -= n
    return counts + ([rem] if rem else [])
@torch.inference_mode()
def generate(B, T, seed):
    torch.manual_seed(seed)
    order = torch.stack([torch.randperm(L, device=dev) for _ in range(B)])
    tokens = torch.full((B, L), MASK, device=dev)
    K = [torch.zeros(B, H, L + 64, HD, device=dev, dtype=dt) for _ in range(NB)]
    Vv = [torch.zeros_like(k) for k in K]
    start = done = 0
    for n in schedule(T):
        end = done + n
        places = order[:, start:end]
        rows = end - start
        seen = torch.arange(end, device=dev)[None] <= torch.arange(start, end, device=dev)[:, None]
        c, s = COS[places][:, None], SIN[places][:, None]
        x = emb[tokens.gather(1, places)]
        for i, (qkv, o, up, ub, down, db) in enumerate(blocks):
            q, k, v = F.linear(F.layer_norm(x, (D,), one), qkv).view(B, rows, 3, H, HD).permute(2, 0, 3, 1, 4)
            q, k = rot(q, c, s), rot(k, c, s)
            K[i][:, :, start:end], Vv[i][:, :, start:end] = k, v
            y = F.scaled_dot_product_attention(q, K[i][:, :, :end], Vv[i][:, :, :end], attn_mask=seen)
            x = x + F.linear(y.transpose(1, 2).reshape(B, rows, D), o)
            h = F.gelu(F.linear(F.layer_norm(x, (D,), one), up, ub), approximate="tanh")
            x = x + F.linear(h, down, db)
        h = F.layer_norm(x[:, rows - n:], (D,), one).reshape(-1, D)
        draws = []
        for part in h.split(4096):
            lg = F.linear(part, out, bias).float()
            lg[:, MASK] = -torch.inf
            p, idx = lg.softmax(-1).sort(dim=-1, descending=True)
            p[p.cumsum(-1) - p > TOP_P] = 0
            draws.append(idx.gather(1, torch.multinomial(p, 1)).squeeze(1))
        tokens.scatter_(1, order[:, done:end], torch.cat(draws).view(B, n))
        start, done = done, end
    torch.cuda.synchronize()
    assert (tokens != MASK).all()
torch.backends.cuda.enable_cudnn_sdp(False)
generate(1, 4, 0)
print("PyTorch", torch.__version__, sys.argv[1])
for case in sys.argv[2].split(","):
    B, T = map(int, case.split(":"))
    times = []
    for seed in range(2):
        t = time.perf_counter(); generate(B, T, seed); times.append(time.perf_counter() - t)
    print(f"batch {B} T {T}: {min(times):.3f} s (best of 2)", flush=True)
