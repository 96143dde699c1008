"""What a record says of where it was made."""

from obert.records.provenance import environment


def test_environment_names_versions_and_hardware():
    found = environment()
    assert found["packages"]["torch"]
    assert found["cores"] >= 1
    assert {"git_commit", "git_dirty", "cpu", "isa_flags", "gpu"} <= found.keys()
