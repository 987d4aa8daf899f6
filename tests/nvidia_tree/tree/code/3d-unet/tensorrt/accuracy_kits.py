"""Stand-in for tests: the DICE score of LoadGen's accuracy log, in the words of the real script."""

import json
import sys
from pathlib import Path

import standin_lib


def main(arguments: list[str]) -> None:
    """Print the score; options ask for a crash, or for no score at all."""
    if "--accuracy-crash" in arguments:
        raise RuntimeError("no module named nibabel")
    if "--accuracy-silent" in arguments:
        return
    [log] = [a.removeprefix("--log_file=") for a in arguments if a.startswith("--log_file=")]
    with Path(log).open(encoding="utf-8") as file:
        score = 0.863 * standin_lib.share_of_right_answers(json.load(file))
    print("Processing evaluation summary...")
    print(f"Accuracy: mean = {score:.5f}, kidney = {score + 0.07:.4f}, tumor = {score - 0.07:.4f}")
    print("Done!")


main(sys.argv[1:])
