"""Stand-in for tests: the F1 score of LoadGen's accuracy log, in the words of the real script."""

import json
import sys
from pathlib import Path

import standin_lib

sys.path.insert(0, __file__.rpartition("/")[0] + "/DeepLearningExamples/TensorFlow/LanguageModeling/BERT")
import tokenization


def main(arguments: list[str]) -> None:
    """Print the score; options ask for a crash, or for no score at all."""
    if "--accuracy-crash" in arguments:
        raise RuntimeError("no module named transformers")
    if "--accuracy-silent" in arguments:
        return
    [log] = [a.removeprefix("--log_file=") for a in arguments if a.startswith("--log_file=")]
    with Path(log).open(encoding="utf-8") as file:
        f1 = 90.88 * standin_lib.share_of_right_answers(json.load(file))
    print(json.dumps({"exact_match": f1 - 7.2, "f1": f1}))
    print(f"Reading examples... {tokenization.NAME}")


main(sys.argv[1:])
