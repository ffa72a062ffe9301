"""The instructions of one iteration of a kernel's loop over blocks, from the compiler's assembly."""

import re

LABEL = re.compile(r"(\.L\w+):")
# x86: jne .LBB1_2; Arm: b.ne .LBB1_2, cbz x0, .LBB1_2, tbz w0, #3, .LBB1_2
BRANCH = re.compile(r"(j\w+|b|b\.\w+|cbn?z|tbn?z)\s.*?(\.LBB\w+)$")
DOTS = {
    "Avx512": r"vpdpbusd\s",
    "AvxVnni": r"(\{vex\}\s+)?vpdpbusd\s",
    "Avx2": r"vpmaddubsw\s",
    "MatrixProducts": r"sdot\s|smmla\s",
    "DotProducts": r"sdot\s",
    "Widening": r"sml?al2?\s|smull2?\s",
}
PREFETCH = re.compile(r"prefetch|prfm")
# Most instructions of an iteration.
LONGEST = 100_000


class Unreadable(Exception):
    """The function does not look as expected."""


def functions(path):
    """The lines of each function in an assembly file, by mangled name; merged functions under all their names."""
    found, aliases, name, body = {}, {}, None, []
    for line in open(path):
        line = line.rstrip("\n")
        if start := re.match(r"(_R\S+):", line):
            name, body = start[1], []
        elif alias := re.match(r"\s+\.set\s+(_R\S+), (_R\S+)", line):
            aliases[alias[1]] = alias[2]
        elif line.startswith(".Lfunc_end"):
            if name:
                found[name] = body
            name = None
        elif name:
            line = line.split("\t//")[0].split("\t#")[0].strip()
            if line and (LABEL.match(line) or not line.startswith((".", "#", "//"))):
                body.append(line)
    for alias, target in aliases.items():
        if target in found:
            found[alias] = found[target]
    return found


class Loop:
    """Lines of a function from a label to the last jump back to it, and the loops in it."""

    def __init__(self, first, last):
        self.first, self.last, self.inner = first, last, []


def loops(body):
    """The outermost loops, each with its inner ones."""
    labels = {m[1]: i for i, line in enumerate(body) if (m := LABEL.match(line))}
    ends = {}
    for i, line in enumerate(body):
        if (branch := BRANCH.match(line)) and labels.get(branch[2], i + 1) <= i:
            ends[labels[branch[2]]] = i
    outermost, stack = [], []
    for first, last in sorted(ends.items(), key=lambda loop: (loop[0], -loop[1])):
        while stack and stack[-1].last < first:
            stack.pop()
        loop = Loop(first, last)
        (stack[-1].inner if stack else outermost).append(loop)
        stack.append(loop)
    return outermost


class Kernel:
    """A kernel's loop. `dots` matches its products, `lines` are the cache lines that it prefetches at a time."""

    def __init__(self, body, dots, lines):
        self.body, self.dots, self.lines = body, re.compile(dots), lines
        self.labels = {m[1]: i for i, line in enumerate(body) if (m := LABEL.match(line))}

    def count(self, first, last):
        return sum(bool(self.dots.match(line)) for line in self.body[first : last + 1])

    def iteration(self, expected):
        """The instructions of as many blocks as have a multiple of `expected` products, and how many blocks these are."""
        outermost = [loop for loop in loops(self.body) if self.count(loop.first, loop.last)]
        if not outermost:
            raise Unreadable("no loop with products")
        loop = max(outermost, key=lambda loop: self.count(loop.first, loop.last))
        for trips in (1, 2, 4, 8, 16):
            path = self.walk(loop, trips)
            products = sum(bool(self.dots.match(line)) for line in path)
            if products and products % expected == 0:
                return path, products // expected
        raise Unreadable(f"{products} products instead of {expected}")

    def innermost(self, expected):
        """As [`Kernel.iteration`], of the innermost loop with the most products."""
        within = [loop for loop in loops(self.body) if self.count(loop.first, loop.last)]
        if not within:
            raise Unreadable("no loop with products")
        paths = []
        while within:
            loop = within.pop()
            inner = [one for one in loop.inner if self.count(one.first, one.last)]
            within += inner
            if not inner:
                path = self.walk(loop, 1)
                paths.append((sum(bool(self.dots.match(line)) for line in path), path))
        products, path = max(paths)
        if not products or products % expected:
            raise Unreadable(f"{products} products instead of {expected}")
        return path, products // expected

    def walk(self, loop, trips):
        """One iteration of `loop`. Inner loops with products run `trips` times; those that prefetch as often as it takes;
        others once. Conditional jumps forward are not taken: they go to panics, or skip what usually is done."""
        path, i = [], loop.first
        inner = {one.first: one for one in loop.inner}
        while i <= loop.last:
            line = self.body[i]
            if one := inner.get(i):
                path += self.times(one, trips)
                i = one.last + 1
                continue
            branch = BRANCH.match(line)
            target = self.labels.get(branch[2], -1) if branch else -1
            if branch and branch[1] in ("jmp", "b") and i < target <= loop.last:
                i = target
                continue
            if not LABEL.match(line):
                path.append(line)
            i += 1
        return path

    def times(self, loop, trips):
        once = self.walk(loop, trips)
        if trips * len(once) > LONGEST:
            raise Unreadable("loops within loops")
        if self.count(loop.first, loop.last):
            return trips * once
        fetched = sum(bool(PREFETCH.match(line)) for line in once)
        # A loop that the compiler has unrolled does not run for fewer lines than it fetches at a time.
        return once if not fetched else self.lines // fetched * once
