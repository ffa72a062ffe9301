"""Compares the losses of a trained model in PyTorch with those that `esolm score` computes for the converted model:

    python check_losses.py FOLDER MODEL.gguf ESOLM      # exits with 1 if they differ

The log-probability of each token, left to right, may differ by 1e-3. The bound at alpha_0 is computed with random draws, which
are not the same in both, so there the difference may be 4 standard errors.
"""
import json
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

import train

WINDOWS, DRAWS, TOLERANCE = 8, 64, 1e-3


def main():
    folder, model, esolm = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    net = train.load(folder).eval()
    command = [esolm, "score", "-m", model, str(folder / "heldout.txt"), "--windows", str(WINDOWS), "--kv-type", "f32", "--json"]
    diffuses = net.variant != "ar"
    command += ["--draws", str(DRAWS * diffuses)]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    text = (folder / "heldout.txt").read_text(encoding="utf8")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids[:WINDOWS * net.length]
    if ids != theirs["tokens"]:
        sys.exit("esolm's tokens are not those of the tokenizers package")
    texts = torch.tensor(ids).view(-1, net.length)
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    with torch.no_grad():
        ours = -train.left_to_right(net, texts, end).flatten()
    other = torch.tensor(theirs["log_probabilities"])
    largest = (ours - other).abs().max().item()
    print(f"left to right: PyTorch {-ours.mean():.6f}, esolm {-other.mean():.6f} nats per token; the largest difference of a "
          f"token is {largest:.1e}, allowed {TOLERANCE}")
    good = largest <= TOLERANCE
    if diffuses:
        torch.manual_seed(1)
        alpha_0 = theirs["alpha_0"]
        with torch.no_grad():
            draws = torch.tensor([bound(net, texts, alpha_0) for _ in range(DRAWS)])
        error = (draws.var() / DRAWS).item() ** 0.5
        esolms = theirs["bound"]
        allowed = 4 * (error ** 2 + esolms["standard_error_per_token"] ** 2) ** 0.5
        difference = abs(draws.mean().item() - esolms["nll_per_token"])
        print(f"bound at alpha_0 = {alpha_0}: PyTorch {draws.mean():.4f}, esolm {esolms['nll_per_token']:.4f} nats per token; "
              f"the difference is {difference:.4f}, allowed {allowed:.4f}")
        good &= difference <= allowed
    sys.exit(0 if good else 1)


def bound(net, texts, alpha_0):
    """One draw of the bound for each text."""
    parts = [train.diffusion_loss(net, texts, alpha_0)] if alpha_0 > 0 else []
    if alpha_0 < 1:
        parts.append(train.sequential_loss(net, texts, alpha_0))
    return sum(part.item() for part in parts)


if __name__ == "__main__":
    main()
