"""``python -m tests.fuzz TARGET --inputs N --seed S``, and ``--corpus`` to make the corpus anew."""

import argparse
import sys

from tests.fuzz.driver import CORPUS, corpus_of, fuzz
from tests.fuzz.targets import TARGETS


def _write_corpus() -> None:
    for name, kind in TARGETS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        target = kind()
        for seed, data in target.seeds().items():
            (folder / seed).write_bytes(data)
        target.close()


def _fuzz(name: str, inputs: int, seed: int) -> int:
    kind = TARGETS[name]
    target = kind()
    score = fuzz(target, corpus_of(kind), inputs, seed)
    sys.stdout.write(
        f"{name}: {score.inputs} inputs with seed {seed}, {score.accepted} accepted,"
        f" at most {score.most_steps} chain steps and {score.highest_peak:,} bytes for one,"
        f" {len(score.faults)} faults\n"
    )
    for fault in score.faults:
        path = CORPUS / name / fault.name
        path.write_bytes(fault.data)
        sys.stdout.write(f"\n{path}\n{fault.text}\n")
    target.close()
    return len(score.faults)


def main() -> int:
    """Fuzz; return 1 if there are faults, each of which is now a file of the corpus."""
    parser = argparse.ArgumentParser("python -m tests.fuzz")
    parser.add_argument("target", nargs="?", choices=(*TARGETS, "all"), default="all")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", action="store_true", help="make the corpus anew, do no more")
    asked = parser.parse_args()
    if asked.corpus:
        _write_corpus()
        return 0
    names = TARGETS if asked.target == "all" else [asked.target]
    return min(sum(_fuzz(name, asked.inputs, asked.seed) for name in names), 1)


if __name__ == "__main__":
    sys.exit(main())
