"""A log's last words, with tqdm's bars before, beside and behind them."""

import pytest

from obert.records.job_log import last_message

BAR = " 10%|#         | 3/30 [00:01<00:09]\r 20%|##        | 6/30 [00:02<00:08]\r"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"timing\n{BAR}\nobert downstream: no, because:\n  of this\n\n", "obert downstream: no, because:\n  of this"),
        (f"{BAR}\nTraceback (most recent call last):\n  File x\nValueError: no\n", "ValueError: no"),
        (f"{BAR.rstrip()}obert teacher: not finite\n{BAR}\n", "obert teacher: not finite"),
        (f"one\n{BAR}last", "last"),
        ("", ""),
    ],
)
def test_the_last_words_of_a_log(tmp_path, text, expected):
    path = tmp_path / "x.log"
    path.write_text(text)
    assert last_message(path) == expected
    assert last_message(tmp_path / "nowhere.log") == ""
