"""Files that are no configuration, or would be gigabytes once read: one short message each, at once."""

import json
import time
from typing import get_origin

import pytest
import yaml

from obert.experiment.plan import Plan
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_recipe
from obert.experiment.yaml_file import LARGEST, read_yaml
from obert.foundation.errors import UserError

LISTS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MAPPINGS = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{{','.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))
HOSTILE = {
    "folder": (None, "is a folder: name a YAML file"),
    "not UTF-8": ("name: smöke\n".encode("latin-1"), "not UTF-8 text: byte 0xf6 in line 1. Save it in UTF-8"),
    "UTF-16": ("name: smoke\n".encode("utf-16"), "not UTF-8 text: byte 0xff in line 1"),
    "zeros": (b"\0" * 100, "is not valid YAML: unacceptable character"),
    "empty": (b"", "must hold a mapping of keys to values, found NoneType"),
    "two documents": (b"a: 1\n---\nb: 1\n", "expected a single document"),
    "deep lists": (b"x: " + b"[" * 5000 + b"]" * 5000, "line 1: more than 50 levels inside one another"),
    "deep mappings": (b"".join(b" " * i + b"a:\n" for i in range(500)), "more than 50 levels inside one another"),
    "deep by aliases": (CHAIN.encode(), "more than 50 levels inside one another"),
    "bomb of lists": (LISTS.encode(), "characters when its aliases (*) are written out, and at most 250,000 are read"),
    "bomb of mappings": (MAPPINGS.encode(), "characters when its aliases (*) are written out"),
    "bomb of merge keys": (MERGES.encode(), "characters when its aliases (*) are written out"),
    "bomb of a long text": (
        f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 1000)}]\n".encode(),
        "has 1e+08 characters when its aliases",
    ),
    "inside itself": (b"x: &x [*x]\n", "line 1: what is named here (&) has an alias (*) of itself inside it"),
    "large": (b"#" * (LARGEST + 1), "has more than 250,000 bytes"),
    "a list as key": (b"[1, 2]: 3\n", "line 1: a key is a word, found a list or a mapping"),
    "two equal keys": (b"a: 1\n'a': 2\n", "line 2: key 'a' appears twice"),
    "two equal numbers": (b"x:\n  0.8: 1\n  0.80: 2\n", "line 3: key '0.80' appears twice"),
    "code": (b'x: !!python/object/apply:os.system ["true"]\n', "is not valid YAML: could not determine a constructor"),
    "no such date": (b"x: 2020-13-45\n", "is not valid YAML: month must be in 1..12"),
    "very long number": (b"x: " + b"9" * 5000, "is not valid YAML: Exceeds the limit (4300 digits)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_configuration_is_one_message(tmp_path, name):
    content, expected = HOSTILE[name]
    path = tmp_path / "odd.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000
    assert time.process_time() - started < 10  # a bomb takes minutes, or all memory


def test_merge_keys_take_the_keys_of_other_mappings(tmp_path):
    """As YAML 1.1 has it: own keys go first, then those of the mappings in their order; also of one merged before."""
    path = tmp_path / "merged.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf"  # as Windows' editor begins a file
        b"a: &a {epochs: 1, rate: 2}\n"
        b"b: &b {<<: *a, rate: 3}\n"
        b"c: {<<: [{rate: 4}, *b], other: 5}\n"
        b"d: *b\n"
    )
    content = read_yaml(path)
    assert content["b"] == content["d"] == {"epochs": 1, "rate": 3}
    assert content["c"] == {"epochs": 1, "rate": 4, "other": 5}


def test_an_experiment_is_written_with_merge_keys(root, tmp_path):
    text = (root / "configs/smoke.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    last = json.dumps(content["downstream"].pop())
    blocks = f"downstream:\n{yaml.safe_dump(content.pop('downstream'))}- &last {last}\n- {{<<: *last, seeds: [7]}}\n"
    path = tmp_path / "smoke.yaml"
    path.write_text(yaml.safe_dump(content) + blocks)
    *_, block, copy = Plan.load(path).experiment.downstream
    assert copy == block.model_copy(update={"seeds": (7,)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": ["y" * 100_000]}, "key 'description': Input should be a valid string"),
        ({"z" * 100_000: 1}, "unknown key 'zzz"),
        ({f"key_{i}": 1 for i in range(5000)}, "and 4980 more"),
        ({"tasks": {"city_qa": {"t" * 100_000: 1}}}, "unknown key 'ttt"),
    ],
)
def test_what_is_found_is_told_in_part(root, tmp_path, changes, expected):
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    with pytest.raises(UserError) as error:
        Plan.load(path)
    assert expected in str(error.value)
    assert len(str(error.value)) < 20_000


def numbers_of_recipes():
    """Every number of a recipe by its keys, apart from what methods have."""

    def walk(schema, keys):
        for name, field in schema.model_fields.items():
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            models = [each for each in inner if hasattr(each, "model_fields")]
            if models:
                of_method = ("magnitude",) if get_origin(field.annotation) is dict else ()
                yield from walk(models[0], (*keys, name, *of_method))
            elif {int, float} & set(inner):
                yield (*keys, name)

    return list(walk(Recipe, ()))


@pytest.mark.parametrize("keys", numbers_of_recipes(), ids=".".join)
def test_no_number_of_a_recipe_is_infinite_or_none(root, keys):
    for value in (float("inf"), float("-inf"), float("nan")):
        content = value
        for key in reversed(keys):
            content = {key: content}
        if keys == ("schedule", "every_steps"):
            content["schedule"]["every_epochs"] = None
        with pytest.raises(UserError, match=r"finite|valid|greater|less|found") as error:
            load_recipe("guidelines_large_linear" if keys[0] == "scaling" else "gradual", "a test", content)
        assert keys[0] in str(error.value)


def test_training_ends_in_a_lifetime(root):
    with pytest.raises(UserError, match=r"training\.epochs'.*less than or equal to 1000000000"):
        load_recipe("gradual", "a test", {"training": {"epochs": 1e300}})
