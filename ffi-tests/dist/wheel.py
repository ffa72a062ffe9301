"""The installed wheel writes a text: wheel.py MODEL"""

import sys

import esolm

with esolm.Model.open(sys.argv[1]) as model, esolm.Context(model, esolm.ContextOptions(length=64)) as context:
    context.generate([esolm.Prompt(model.tokenize("Once upon a time"))], esolm.GenerateParams(seed=1))
    if not context.text().startswith("Once upon a time"):
        sys.exit(f"the wheel wrote {context.text()!r}")
