"""Compares two tables of table.py: compare.py RECORD NOW PERCENT. Fails if a number of cycles differs by more."""

import sys


def cycles(path):
    lines = (line.split() for line in open(path) if not line.startswith("#"))
    return {tuple(words[:4]): words[4] for words in lines if words}


def llvm(path):
    return next((line.strip("# \n") for line in open(path) if line.startswith("# LLVM")), "no LLVM")


def main():
    versions = [llvm(path) for path in sys.argv[1:3]]
    if versions[0] != versions[1]:
        print(f"the record is of {versions[0]}, this is {versions[1]}: its models may be others", file=sys.stderr)
    record, now, percent = cycles(sys.argv[1]), cycles(sys.argv[2]), float(sys.argv[3])
    off = []
    for case in record.keys() | now.keys():
        a, b = record.get(case), now.get(case)
        # A dash stands for a loop that could not be read.
        if a != b and (None in (a, b) or "-" in (a, b) or abs(float(b) - float(a)) > float(a) * percent / 100):
            off.append(f"{' '.join(case)}: {b} cycles (recorded: {a})")
    print(f"{len(now)} loops, {len(off)} more than {percent:g} % from the record", *sorted(off), sep="\n")
    if off:
        print("if that is meant: benches/cycles/run --update", file=sys.stderr)
    return bool(off)


if __name__ == "__main__":
    sys.exit(main())
