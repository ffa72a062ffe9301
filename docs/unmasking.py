#!/usr/bin/env python3
"""Draws docs/unmasking.svg: a text after some of its steps, from a real run of `esolm generate --json`.

    docs/unmasking.py target/release/esolm >docs/unmasking.svg
"""

import html
import json
import subprocess
import sys

PROMPT = "Once upon a time"
OPTIONS = ["--length", "64", "--alpha0", "0.5", "--steps", "16", "--seed", "1"]
DIFFUSION_STEPS = 16
FRAMES = 5

WIDTH, MARGIN, GAP = 860, 16, 14
CHAR, LINE = 8.13, 21
STYLE = """
  svg { font: 13.5px 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
  .page { fill: #ffffff; stroke: #d0d7de; } text { fill: #24292f; white-space: pre; }
  .label { fill: #57606a; font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 12px; }
  .mask { fill: #d8dee4; } .diffusion { fill: #0072b2; font-weight: 600; }
  .sequential { fill: #b45309; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; } text { fill: #e6edf3; } .label { fill: #8b949e; }
    .mask { fill: #30363d; } .diffusion { fill: #58a6ff; } .sequential { fill: #f0a04b; }
  }
"""


def main():
    command = [sys.argv[1], "generate", "-p", PROMPT, *OPTIONS, "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *steps, summary = [json.loads(line) for line in output.splitlines()]
    # The text of each token by position, and the step that wrote it (0: the prompt).
    text, step_of = {}, {}
    for number, step in enumerate(steps, 1):
        for update in step["updates"]:
            text[update["position"]] = update["text"]
            step_of[update["position"]] = number
    length = len(summary["tokens"][0])
    prompt_tokens = length - len(text)
    for position in range(prompt_tokens):
        text[position], step_of[position] = (PROMPT if position == 0 else ""), 0
    assert "".join(text[p] for p in range(length)) == summary["texts"][0]

    diffusion = sum(1 for step in step_of.values() if 0 < step <= DIFFUSION_STEPS)
    rest = len(steps) - DIFFUSION_STEPS
    frames = [1, DIFFUSION_STEPS // 2, DIFFUSION_STEPS, DIFFUSION_STEPS + rest // 2, len(steps)][:FRAMES]
    body, y, before = [], MARGIN, 0
    for frame in frames:
        known = sum(1 for step in step_of.values() if step <= frame)
        phase = "diffusion" if frame <= DIFFUSION_STEPS else "left to right"
        label = f"step {frame} of {len(steps)}, {phase}: {known} of {length} tokens known"
        y += 13
        body.append(f'<text class="label" x="{MARGIN}" y="{y}">{label}</text>')
        y += LINE
        column, columns = 0, int((WIDTH - 2 * MARGIN) / CHAR)
        for position in range(length):
            word = text[position].replace("\n", " ")
            if column + len(word) > columns:
                column, y = 0, y + LINE
                word = word.lstrip(" ")
            x = MARGIN + column * CHAR
            column += len(word)
            bare = word.lstrip(" ")
            x += (len(word) - len(bare)) * CHAR
            if not bare:
                continue
            step = step_of[position]
            if step > frame:
                body.append(f'<rect class="mask" x="{x:.1f}" y="{y - 12}" width="{len(bare) * CHAR - 2:.1f}" '
                            'height="15" rx="3"/>')
                continue
            kind = "diffusion" if step <= DIFFUSION_STEPS else "sequential"
            new = f' class="{kind}"' if step > before else ""
            body.append(f'<text{new} x="{x:.1f}" y="{y}" textLength="{len(bare) * CHAR:.1f}">'
                        f"{html.escape(bare)}</text>")
        y += GAP
        before = frame
    height = y + 4
    options = " ".join(OPTIONS)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
          f'height="{height}" role="img">\n<title>esolm generate -p "{PROMPT}" {options}: {diffusion} tokens by '
          f"diffusion in {DIFFUSION_STEPS} steps, {rest} from left to right</title>\n<style>{STYLE}</style>\n"
          f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>')
    print("\n".join(body))
    print("</svg>")


main()
