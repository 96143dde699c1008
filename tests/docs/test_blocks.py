"""The reader of the tutorial's blocks: what it runs, what it leaves out, and which output agrees with what is shown."""

import pytest
from blocks import Command, File, agrees, blocks

PAGE = """
```{code-block} console
:class: by-hand

$ make install
```

```{code-block} yaml
:caption: configs/mine.yaml

name: mine
```

```console
$ first --option \\
    value
line one
...
$ second
```

```text
not run
```
"""


def test_commands_and_files_are_found_in_order(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    file, first, second = blocks(page)
    assert isinstance(file, File) and str(file.path) == "configs/mine.yaml" and file.content.strip() == "name: mine"
    assert first == Command("first --option \\\n    value", "line one\n...\n")
    assert second == Command("second", "")


def test_a_block_of_an_unknown_language_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```fortran\nend\n```\n")
    with pytest.raises(AssertionError, match="fortran"):
        blocks(page)


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        ("a  b\nc", "before\na b\nc\nafter", True),
        ("a ... c", "a 1.5 seconds c", True),
        ("a ... c", "c a", False),
        ("score 50", "score 51", False),
        ("", "anything", True),
    ],
)
def test_shown_output_agrees_with_printed(shown, printed, agree):
    assert agrees(shown, printed) is agree
