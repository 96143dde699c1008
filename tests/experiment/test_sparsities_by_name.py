"""A sparsity has one name, and a name is that of one sparsity: in folders, on the command line and in files."""

import pytest
import yaml
from pydantic import TypeAdapter

from obert.experiment.keys import RunKey
from obert.experiment.plan import Plan
from obert.experiment.recipes import load_recipe
from obert.experiment.strict import Sparsity
from obert.foundation.errors import UserError
from obert.sweeps.search import load_sweep

PRINTED_ALIKE = (0.80000001, 0.9999999, 0.30000000000000004, 0.12345, 0.00001, 1e-300)


def of_run(sparsity):
    return RunKey("downstream", "movie_reviews", "gradual", 0, "obert", sparsity)


def test_every_sparsity_of_four_decimals_has_a_name_of_its_own_that_is_read_back():
    folders = [of_run(i / 10_000).path.parts[-2] for i in range(10_000)]
    assert len(set(folders)) == 10_000
    assert [float(folder.removeprefix("obert-")) for folder in folders] == [i / 10_000 for i in range(10_000)]
    given = [of_run(i / 10_000).arguments.split() for i in range(10_000)]
    assert [float(words[words.index("--sparsity") + 1]) for words in given] == [i / 10_000 for i in range(10_000)]


@pytest.fixture
def content(root):
    return yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))


def every_list(value, keys=()):
    """The keys of each list of sparsities in an experiment."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "sparsities":
                yield (*keys, name)
            yield from every_list(inner, (*keys, name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from every_list(inner, (*keys, i))


def test_no_list_of_an_experiment_takes_what_has_another_ones_name(content, tmp_path):
    content["benchmark"].setdefault("sparsities", [])
    content["upstream"]["transfer"][0].setdefault("sparsities", [])
    places = list(every_list(content))
    assert {place[0] for place in places} == {"upstream", "downstream", "quantize", "benchmark"}
    path = tmp_path / "smoke.yaml"
    for place in places:
        for sparsity in PRINTED_ALIKE:
            *above, last = place
            holder = content
            for key in above:
                holder = holder[key]
            before, holder[last] = holder[last], [sparsity]
            path.write_text(yaml.safe_dump(content))
            holder[last] = before
            with pytest.raises(UserError, match="by at most 4 decimals: round it") as error:
                Plan.load(path)
            assert ".".join(map(str, place)) in str(error.value)


def test_zero_has_one_sign():
    assert of_run(TypeAdapter(Sparsity).validate_python(-0.0)).variant == of_run(0.0).variant == "gradual/obert-0"


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"cycles": {"table": {0.80000001: 2, 0.9: 3}}}, "scaling.cycles.table.0.80000001"),
        ({"cycles": {"table": {"0.8": 2, "0.80": 3}}}, "scaling.cycles.table': .*appears twice, written in two ways"),
        ({"cycles": {"constant": 3}, "equal_compute": {"length": "mean", "of": [0.12345]}}, "scaling.equal_compute.of"),
    ],
)
def test_rules_by_sparsity_are_for_sparsities_that_runs_can_have(root, scaling, expected):
    own = load_recipe("guidelines_large_linear").scaling.model_dump()
    changes = {"scaling": {**dict.fromkeys(own["cycles"]), **own, **scaling}}
    changes["scaling"]["cycles"] = {**dict.fromkeys(own["cycles"]), **scaling["cycles"]}
    with pytest.raises(UserError, match=expected):
        load_recipe("guidelines_large_linear", "a test", changes)


def test_sweeps_take_no_others_either(root, tmp_path):
    content = yaml.safe_load((root / "configs/sweeps/smoke.yaml").read_text(encoding="utf-8"))
    (stage,) = {"downstream", "transfer", "quantize"} & set(content)
    content[stage]["sparsities"] = [0.80000001]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"sparsities\.0': .*by at most 4 decimals"):
        load_sweep(tmp_path / "sweep.yaml")


@pytest.mark.parametrize("sparsity", [0.80000001, float("nan"), float("inf"), -1.0, 80.0])
def test_the_command_line_takes_a_sparsity_by_its_value(root, sparsity):
    plan = Plan.load("configs/smoke.yaml")
    with pytest.raises(UserError, match=r"names no run\. There are:\n.*--sparsity 0\.[0-9]+ "):
        plan.find("downstream", task="movie_reviews", sparsity=sparsity)
