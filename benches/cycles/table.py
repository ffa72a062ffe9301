"""Cycles of the kernels' inner loops on processors that need not be there, by llvm-mca: table.py MCA X86.s ARM.s [PROCESSOR..]

Prints a line for each processor, kernel and number of rows; docs/cycles.md says what they mean."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from loops import DOTS, PREFETCH, Kernel, Unreadable, functions

# Which kernels run where: a name for llvm-mca, the type that implements `Isa` (or, on Arm, `Products`).
PROCESSORS = [
    ("znver2", "Avx2"),
    ("znver3", "Avx2"),
    ("znver4", "Avx512"),
    ("znver4", "Avx2"),
    ("znver5", "Avx512"),
    ("skylake", "Avx2"),
    ("alderlake", "AvxVnni"),
    ("sapphirerapids", "Avx512"),
    ("cortex-a72", "Widening"),
    ("cortex-a76", "DotProducts"),
    ("neoverse-n1", "DotProducts"),
    ("apple-m1", "DotProducts"),
    ("neoverse-v1", "MatrixProducts"),
]
NAMES = {
    "Avx512": "AVX-512", "AvxVnni": "AVX-VNNI", "Avx2": "AVX2",
    "Widening": "NEON", "DotProducts": "dotprod", "MatrixProducts": "i8mm",
}
# How the names of a processor's own resources begin. LLVM borrows the others' from an older one.
OWN = {
    "znver2": "Zn2", "znver3": "Zn3", "znver4": "Zn4", "znver5": "Zn5", "skylake": "SKL", "alderlake": "ADL",
    "sapphirerapids": "SPR", "cortex-a72": "A72", "cortex-a76": "A76", "neoverse-n1": "N1", "apple-m1": "M1",
    "neoverse-v1": "V1",
}
ARM = ("Widening", "DotProducts", "MatrixProducts")
# Bytes of a row's block, and its numbers.
FORMATS = {
    "Q8_0": (34, 32), "Q5_0": (22, 32), "Q5_1": (24, 32), "Q4_0": (18, 32), "Q4_1": (20, 32), "Iq4Nl": (18, 32),
    "Q6K": (210, 256), "Q5K": (176, 256), "Q4K": (144, 256), "Q3K": (110, 256), "Q2K": (84, 256),
}
# The kernel for unpacked bytes of a type (`panel/kernels.rs`), and the one that the compiler may have merged it with.
UNPACKED = {
    "Q4K": ("Q4K", "Q5K"), "Q4_1": ("Q4K", "Q5K"), "Q5K": ("Q5K", "Q4K"), "Q5_1": ("Q5K", "Q4K"), "Q6K": ("Q6K", "Q3K"),
    "Q3K": ("Q3K", "Q6K"), "Q2K": ("Q2K",), "Q8_0": ("Q8_0",), "Q5_0": ("Q8_0",), "Q4_0": ("Q8_0",), "Iq4Nl": ("Q8_0",),
}
ROWS = (1, 2, 4, 8)
# Attention: how many key groups, or vectors of values, are taken at once, by how many vectors of sixteen numbers the registers
# hold, and by the number of queries (`Attend`).
AT_ONCE = {
    "keys": {32: {1: 8, 2: 8, 4: 4}, 8: {1: 4, 2: 2, 4: 1}},
    "values": {32: {1: 4, 2: 4, 4: 4}, 8: {1: 4, 2: 2, 4: 1}},
}
MULTIPLY_ADD = r"vfmadd\d+ps\s|fmla\s"
# Registers of a vector of sixteen numbers, and how many such vectors all of them hold.
VECTORS = {"Avx512": 1, "AvxVnni": 2, "Avx2": 2, "Widening": 4, "DotProducts": 4, "MatrixProducts": 4}
REGISTERS = {isa: 32 if isa == "Avx512" else 8 for isa in VECTORS}
# Vector instructions per four columns of sixteen rows.
PARTS = {"Avx512": 1, "AvxVnni": 2, "Avx2": 2, "Widening": 8, "DotProducts": 4, "MatrixProducts": 4}
# Iterations of a loop, few and many: the difference leaves out how it begins. Long ones need fewer.
ITERATIONS = {False: (10, 40), True: (4, 12)}
LONG = 400


def one_panel(isa, ty):
    """Most rows that are multiplied together with one panel, without AVX-512: `most_together`."""
    return 2 if isa not in ARM and ty in ("Q6K", "Q3K", "Q2K") else 4


def calls(isa, rows, ty):
    """The kernels that so many rows of activations are multiplied with: (rows, panels) of each call."""
    if isa == "Avx512":
        return [(rows, 1)] if rows <= (6 if ty == "Q8_0" else 10) else [(6, 2), (2, 2)]
    together = min(rows, one_panel(isa, ty))
    return rows // together * [(together, 1)]


def in_form(isa, rows, ty):
    """Which form of a panel is multiplied: `PanelKernel::new`."""
    most = 10 if isa == "Avx512" else one_panel(isa, ty)
    bytes_as_they_are = ty == "Q8_0" and isa != "MatrixProducts"
    return "UnpackedWeights" if rows > most and not bytes_as_they_are else "PackedWeights"


class Kernels:
    """All kernels of an assembly file, by (isa, form, type, rows, panels), and attention's by (isa, part, rows, at once)."""

    def __init__(self, mca, path):
        found = functions(path)
        names = [name for name in found if "micro_kernel" in name or "attention_loops" in name]
        plain = subprocess.run(
            [mca.replace("llvm-mca", "llvm-cxxfilt")], input="\n".join(names), capture_output=True, text=True, check=True
        )
        pattern = re.compile(r"::(\w+)(?: as |>+::).*call::<.*Multiply<.*::(\w+)<.*::(\w+)>, (\d+), (\d+)>>")
        attention = re.compile(r"(Avx\w+|with_\w+)(?:>::run::run)?::<.*attention_loops::(Keys|Values)<(\d+), (\d+)\b")
        isas = {"with_dotprod": "DotProducts", "with_i8mm": "MatrixProducts"}
        self.bodies, self.attention = {}, {}
        for name, text in zip(names, plain.stdout.splitlines()):
            if match := pattern.search(text):
                isa = next((isa for isa in DOTS if f"::{isa}" in text.split("call::")[0]), None)
                self.bodies[isa, match[2], match[3], int(match[4]), int(match[5])] = found[name]
            elif match := attention.search(text):
                isa = isas.get(match[1], match[1])
                self.attention[isa, match[2].lower(), int(match[3]), int(match[4])] = found[name]

    def read(self, isa, form, ty, rows, panels):
        """The instructions of an iteration, and how many times 64 weights it multiplies."""
        names = UNPACKED[ty] if form == "UnpackedWeights" else (ty,)
        body = next((b for name in names if (b := self.bodies.get((isa, form, name, rows, panels)))), None)
        if not body:
            raise Unreadable("not there")
        size, columns = FORMATS[ty]
        # What `Ahead` prefetches for 32 columns; eight rows of two panels come in two slices.
        lines = -(-size * 16 * 32 // columns // 64)
        columns = 32 if form == "UnpackedWeights" else columns
        expected = columns // 4 * rows * panels * PARTS[isa]
        if isa == "MatrixProducts" and form == "UnpackedWeights":
            expected //= 2
        path, blocks = Kernel(body, DOTS[isa], lines).iteration(expected)
        return path, blocks * columns * panels * 16 / 64

    def read_attention(self, isa, part, rows):
        """The instructions of an iteration of one of attention's loops, and how many times 64 numbers it takes. Without prefetches:
        how many there are differs from pass to pass."""
        at_once = AT_ONCE[part][REGISTERS[isa]][rows]
        # What has neither dot products nor VNNI runs the same loops, which are no functions of their own there.
        isa = {"Avx2": "AvxVnni", "Widening": "DotProducts"}.get(isa, isa)
        body = self.attention.get((isa, part, rows, at_once))
        if not body:
            raise Unreadable("not there")
        path, turns = Kernel(body, MULTIPLY_ADD, 0).innermost(rows * at_once * VECTORS[isa])
        return [line for line in path if not PREFETCH.match(line)], turns * at_once * 16 / 64

    def loops(self, isa, ty, rows):
        """Of each loop that so many rows are computed with: the instructions of an iteration, how many times 64 numbers it takes, and
        the least that it can be."""
        if ty in AT_ONCE:
            path, units = self.read_attention(isa, ty, rows)
            # In f16.
            return [(path, units, least(path, isa, MULTIPLY_ADD, 2 * 64 * units))]
        form = in_form(isa, rows, ty)
        size, columns = FORMATS[ty]
        size = 64 if form == "UnpackedWeights" else 64 * size / columns
        read = [self.read(isa, form, ty, *call) for call in calls(isa, rows, ty)]
        return [(path, units, least(path, isa, DOTS[isa] + r"|vpmaddwd\s", size * units)) for path, units in read]


def least(path, isa, products, size):
    """What no kernel can do without: the products, and loading `size` bytes of weights, keys or values."""
    needed = re.compile(products)
    load, width = {"Avx512": ("vmovups (%rdi), %zmm0", 64)}.get(isa, ("vmovups (%rdi), %ymm0", 32))
    if isa in ARM:
        load, width = "ldr q0, [x0]", 16
    return [line for line in path if needed.match(line)] + round(size / width) * [load]


# Where LLVM's models err, what stands beside the instructions is analysed in their place. On a Zen 4 `vpdpbusd` between
# registers runs once a cycle, as it does from memory, and a broadcast from memory is a load (both measured there). Intel's newer
# models do not know that a register xor itself waits for nothing.
ZEN_4 = [
    (re.compile(r"vpdpbusd\s+(%zmm\d+, %zmm\d+, %zmm\d+)$"), r"vfmadd231ps\t\1"),
    (re.compile(r"vp?broadcast(?:d|ss)\s+(.*\)), %[yz](mm\d+)$"), r"vmovups\t\1, %y\2"),
]
GOLDEN_COVE = [(re.compile(r"vp?xor(?:d|q|ps)?\s+(%.mm\d+), \1, (%.mm\d+)$"), r"vmovups\t(%rsp), \2")]
CORRECTIONS = {"znver4": ZEN_4, "znver5": ZEN_4, "alderlake": GOLDEN_COVE, "sapphirerapids": GOLDEN_COVE}


def corrected(cpu, path):
    for wrong, right in CORRECTIONS.get(cpu, []):
        path = [wrong.sub(right, line) for line in path]
    return path


def analyse(mca, cpu, isa, regions, iterations):
    """Of each region: cycles, least cycles of an iteration by resources, the resource that is used most, and how long."""
    if not regions:
        return []
    mark = "//" if isa in ARM else "#"
    text = ""
    for number, path in enumerate(regions):
        text += f"{mark} LLVM-MCA-BEGIN r{number}\n" + "\n".join(path) + f"\n{mark} LLVM-MCA-END r{number}\n"
    triple = "aarch64-linux-gnu" if isa in ARM else "x86_64-linux-gnu"
    run = subprocess.run(
        [mca, f"-mtriple={triple}", f"-mcpu={cpu}", f"-iterations={iterations}", "-instruction-info=0"],
        input=text, capture_output=True, text=True,
    )
    if run.returncode:
        raise SystemExit(f"{mca}, {cpu}: {run.stderr[:2000]}")
    results = []
    for part in run.stdout.split("Code Region - ")[1:]:
        value = lambda name: float(re.search(rf"{name}:\s+([\d.]+)", part)[1])
        resources = [name for _, name in re.findall(r"^\[([\d.]+)\]\s+- (\S+)$", part, re.M)]
        used = re.search(r"Resource pressure per iteration:\n.*\n(.*)", part)[1]
        used = [0.0 if x == "-" else float(x) for x in used.split()]
        most = max(range(len(used)), key=lambda i: used[i])
        results.append((value("Total Cycles"), value("Block RThroughput"), resources[most], used[most]))
    return results


def measure(mca, cpu, isa, regions):
    """As [`analyse`], with the cycles of an iteration."""
    regions = [tuple(corrected(cpu, path)) for path in regions]
    results = {}
    for long, (few, many) in ITERATIONS.items():
        paths = sorted({path for path in regions if (len(path) > LONG) == long})
        for path, a, b in zip(paths, analyse(mca, cpu, isa, paths, few), analyse(mca, cpu, isa, paths, many)):
            results[path] = ((b[0] - a[0]) / (many - few), *b[1:])
    return [results[path] for path in regions]


def main():
    mca, x86, arm, *some = sys.argv[1:]
    x86, arm = Kernels(mca, x86), Kernels(mca, arm)

    def of_processor(processor):
        cpu, isa = processor
        kernels = arm if isa in ARM else x86
        case = lambda ty, rows: f"{cpu:15} {NAMES[isa]:9} {ty:6} {rows} "
        cases, regions, unread = [], [], []
        for ty in [*FORMATS, *AT_ONCE]:
            for rows in AT_ONCE[ty][REGISTERS[isa]] if ty in AT_ONCE else ROWS:
                try:
                    read = kernels.loops(isa, ty, rows)
                except Unreadable as error:
                    unread.append(f"{case(ty, rows)}      -      -     -  {error}")
                    continue
                cases.append((ty, rows, len(regions), [units for _, units, _ in read]))
                for path, _, floor in read:
                    regions += [path, floor]
        results = measure(mca, cpu, isa, regions)
        lines = []
        for ty, rows, at, units in cases:
            cycles = floor = 0
            for call, unit in enumerate(units):
                loop = at + 2 * call
                cycles += results[loop][0] / unit
                floor += results[loop + 1][1] / unit
            port = results[at][2]
            used = sum(results[at + 2 * call][3] / unit for call, unit in enumerate(units))
            own = "" if port.startswith(OWN[cpu]) else " borrowed"
            lines.append(f"{case(ty, rows)} {cycles:6.2f} {floor:6.2f} {cycles / floor:5.2f}  {port} {used:.2f}{own}")
        return lines + unread

    version = subprocess.run([mca, "--version"], capture_output=True, text=True, check=True).stdout
    print("# LLVM", re.search(r"version (\S+)", version)[1])
    print("# processor     kernels   type rows cycles  floor ratio  used most")
    with ThreadPoolExecutor(2) as pool:
        for lines in pool.map(of_processor, [one for one in PROCESSORS if not some or one[0] in some]):
            print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
