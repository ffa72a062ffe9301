"""The losses are the authors': computed with their weights and masks on tests/golden, whose README names the arrays."""
import math
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

import train

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
# The authors' numbers are float32.
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
BEGIN = 95


def golden(name):
    net = train.load(GOLDEN / name).eval()
    arrays = load_file(GOLDEN / name / "golden.safetensors")
    return net, {key: a.long() if a.dtype == torch.int32 else a for key, a in arrays.items()}


def known(noised, net):
    return (noised != net.mask).sum(1)


class AuthorsLosses(unittest.TestCase):
    def setUp(self):
        torch.set_grad_enabled(False)

    def close(self, ours, authors):
        self.assertEqual(ours.shape, authors.shape)
        torch.testing.assert_close(ours, authors, **TOLERANCE)

    def test_sequential_loss(self):
        for name in ("tiny-B", "tiny-A"):
            net, g = golden(name)
            ours = train.sequential_nll(net, g["rec.x0"], g["rec.sort_idx"], known(g["rec.z0"], net))
            self.assertTrue((ours == 0).any() and (ours > 0).any())
            self.close(ours, g["rec.per_token"])

    def test_diffusion_loss_and_its_weight(self):
        for name in ("tiny-B", "tiny-A"):
            net, g = golden(name)
            alpha, weight = train.schedule(g["nll.t"], 0.5)
            self.close(alpha, g["nll.alpha_t"])
            self.close(-weight, g["nll.weight"])
            ours = train.diffusion_nll(net, g["nll.x0"], g["nll.sort_idx"], known(g["nll.xt"], net))
            self.close(-ours, g["nll.logp"])
            self.close(ours * weight[:, None], g["nll.per_token"])

    def test_likelihood_in_any_order(self):
        for name in ("tiny-B", "tiny-A"):
            net, g = golden(name)
            for part in ("aoar_full", "aoar_half", "aoar_l2r"):
                text = g[f"{part}.x0"]
                none = torch.zeros(len(text), dtype=torch.long)
                ours = train.sequential_nll(net, text, g[f"{part}.sort_idx"], none)
                self.close(-ours, g[f"{part}.logp"])
                self.close(-ours.sum(1), g[f"{part}.logp_seq"])
            self.close(train.left_to_right(net, g["aoar_l2r.x0"], BEGIN), -g["aoar_l2r.logp"])

    def test_autoregressive_loss(self):
        net, g = golden("ar-tiny")
        self.close(train.ar_nll(net, g["nll.x0"], BEGIN), g["nll.per_token"])


class TrainingLosses(unittest.TestCase):
    def test_bound_of_a_uniform_model_is_the_entropy(self):
        # A new network gives every token the same probability, so both parts together are log(vocabulary).
        torch.manual_seed(3)
        net = train.Network("b", 33, 8, 1, 2, 64)
        text = torch.randint(32, (512, 64))
        for alpha_0, names in ((0.0, ["sequential"]), (0.3, ["diffusion", "sequential"]), (1.0, ["diffusion"])):
            parts = train.losses(net, text, alpha_0, 0)
            self.assertEqual(list(parts), names)
            total = sum(part.item() for part in parts.values())
            self.assertAlmostEqual(total / math.log(32), 1.0, delta=0.02)

    def test_orders_have_the_known_first(self):
        torch.manual_seed(4)
        given = torch.rand(8, 64) < 0.5
        for ascending in (False, True):
            order, count = train.draw(given, ascending)
            for row, n, mask in zip(order, count, given):
                self.assertEqual(sorted(row.tolist()), list(range(64)))
                self.assertTrue(mask[row[:n]].all() and not mask[row[n:]].any())
                self.assertEqual(row[n:].tolist() == sorted(row[n:].tolist()), ascending)
                self.assertNotEqual(row[:n].tolist(), sorted(row[:n].tolist()))

    def test_saved_model_is_the_same(self):
        for name in ("tiny-B", "tiny-A", "ar-tiny"):
            net = train.load(GOLDEN / name)
            with tempfile.TemporaryDirectory() as folder:
                train.save(net, Path(folder), 0.5, BEGIN)
                again = train.load(Path(folder))
            self.assertEqual(again.variant, net.variant)
            for (key, a), (_, b) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=key)


if __name__ == "__main__":
    unittest.main()
