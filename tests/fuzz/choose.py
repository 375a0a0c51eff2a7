#!/usr/bin/env python3
"""Takes into a corpus the files that reach the most that no file there reaches, until it is full.

    choose.py CONTROL_FILE CORPUS

The control file is what libFuzzer's set-cover merge leaves: all files, and what each of them reaches. What is in the corpus stays.
"""

import pathlib
import shutil
import sys

MOST_FILES = 60
MOST_BYTES = 50_000


def main(control, corpus):
    corpus = pathlib.Path(corpus)
    lines = pathlib.Path(control).read_text().splitlines()
    names = [pathlib.Path(line) for line in lines[2 : 2 + int(lines[0])]]
    reached = {}
    for words in map(str.split, lines[2 + len(names) :]):
        if words[0] == "FT":
            reached[names[int(words[1])]] = set(words[2:])
    kept = list(corpus.iterdir())
    seen = set().union(*(reach for name, reach in reached.items() if name.parent == corpus))
    files, size = len(kept), sum(name.stat().st_size for name in kept)
    while files < MOST_FILES:
        fitting = (name for name in reached if size + name.stat().st_size <= MOST_BYTES)
        # Of two that reach the same, the shorter one is easier to read.
        best = max(fitting, key=lambda name: (len(reached[name] - seen), -name.stat().st_size), default=None)
        if best is None or not reached[best] - seen:
            break
        seen |= reached.pop(best)
        shutil.copy(best, corpus / best.name)
        files, size = files + 1, size + best.stat().st_size
    everything = seen.union(*reached.values())
    print(f"{files} files of {size} bytes in {corpus} reach {len(seen)} of {len(everything)} places")


main(*sys.argv[1:])
