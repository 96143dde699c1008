"""The code hash follows import statements, and the environment says what a reader needs."""

from obert.foundation import code_identity
from obert.foundation.code_identity import code_files, code_hash
from obert.records.provenance import PACKAGE, environment


def names(stage, **extensions):
    roots = [PACKAGE / room / f"{stage}.py" for room in ("stages", "commands")]
    roots = [path for path in roots if path.is_file()]
    roots += [PACKAGE / kind / f"{name}.py" for kind, name in extensions.items()]
    return {path.relative_to(PACKAGE).as_posix() for path in code_files(roots)}


def test_pruning_depends_on_its_method_and_what_that_imports():
    with_obert = names("downstream", pruning="obert", tasks="movie_reviews")
    with_magnitude = names("downstream", pruning="magnitude", tasks="movie_reviews")
    own = {"pruning/obert.py", "pruning/shared/block_fisher.py", "pruning/shared/gradient_based.py"}
    own |= {"pruning/shared/fisher_sharing.py", "pruning/shared/process_shares.py"}
    own |= {"second_order/fisher.py", "second_order/solvers.py", "second_order/gradients.py"}
    assert own == with_obert - with_magnitude - {"pruning/magnitude.py"}
    assert {
        "training/trainer.py",
        "masks/selection.py",
        "tasks/_classification.py",
        "experiment/recipes.py",
    } <= with_magnitude
    assert not any(name.startswith(("tables/", "engines/", "tracking/")) for name in with_obert)


def test_tables_do_not_depend_on_training():
    found = names("tables", tables="leaderboard")
    assert not found & {"training/trainer.py", "training/gradual.py", "second_order/fisher.py", "models/encoders.py"}


def test_comments_and_formatting_do_not_count_but_code_does(tmp_path, monkeypatch):
    file = tmp_path / "obert" / "stages" / "toy.py"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(code_identity, "PACKAGE", tmp_path / "obert")

    def hash_of(text):
        file.write_text(text)
        code_identity._parsed.cache_clear()
        return code_hash("toy")

    first = hash_of("x = 1\n")
    assert hash_of("# a remark\nx  =  1\n") == first
    assert hash_of("x = 2\n") != first


def test_extensions_are_part_of_the_hash():
    assert code_hash("downstream", pruning="obert") != code_hash("downstream", pruning="magnitude")


def test_environment_names_versions_and_hardware():
    found = environment()
    assert found["packages"]["torch"]
    assert found["cores"] >= 1
    assert {"git_commit", "git_dirty", "cpu", "isa_flags", "gpu"} <= found.keys()
