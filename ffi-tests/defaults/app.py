#!/usr/bin/env python3
"""Writes a text with the default parameters: app MODEL PROMPT."""

import sys

import esolm

with esolm.Model.open(sys.argv[1]) as model, esolm.Context(model) as context:
    context.generate([esolm.Prompt(model.tokenize(sys.argv[2]))])
    print(context.text())
