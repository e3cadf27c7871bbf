"""The examples in Python."""

import importlib.util
import os
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


def test_wordcount_counts_the_words_that_the_rust_example_counts(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("wordcount", EXAMPLES / "wordcount.py")
    assert spec is not None and spec.loader is not None
    wordcount = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wordcount)
    # The text and the counts are those of `crates/maniple/tests/it/examples.rs`.
    text = "e\u0301te\u0301 \u0915\u093f_1 \u24d0b x\xb2, x\xb2;a\x1cb"
    (tmp_path / "text").write_text(text, encoding="utf-8")
    os.symlink(tmp_path / "text", tmp_path / "link")
    counts = wordcount.count_alone(wordcount.files_under(str(tmp_path)))
    assert (counts.total(), len(counts)) == (7, 6)
