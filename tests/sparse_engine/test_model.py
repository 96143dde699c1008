"""Whole models in the engine, against ONNX Runtime, and what a caller may rely on."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obert.foundation.errors import UserError
from obert.sparse.execution.instructions import schedule
from obert.sparse.execution.runs import Run
from obert.sparse.execution.threads import Team
from obert.sparse.execution.tokens import COLUMN, stream
from obert.sparse.model import SparseModel
from obert.sparse.program import Activate, Add, Embed, Linear, Lookup, Norm, Output, Program, Rounding, Weight

OF_EACH = (
    ("bert", "question_answering"),
    ("roberta", "sequence_classification"),
    ("distilbert", "token_classification"),
    ("electra", "multiple_choice"),
    ("mobilebert", "sequence_classification"),
    ("albert", "regression"),
)


def batch(lengths, seed=0, words=100, pad=0):
    """Random tokens of the given lengths, padded to the longest."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask, rng.integers(5, words, mask.shape), pad)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, mask.shape) * mask}


def real(output, mask):
    """The scores of tokens that are not padding, or all scores of sequences."""
    return output[mask == 1] if output.shape[:2] == mask.shape else output


@pytest.fixture(scope="module")
def bert(exported):
    return exported("bert", "question_answering")


@pytest.mark.parametrize("name, head", OF_EACH)
def test_logits_are_those_of_onnx_runtime(exported, name, head):
    pad = 1 if name == "roberta" else 0
    for path, tolerance in zip(exported(name, head), (1e-5, None), strict=True):
        model = SparseModel.load(path, 2)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for lengths in ([7], [3, 19, 5], [40, 1, 33, 17, 40]):
            inputs = batch(lengths, len(lengths), pad=pad)
            expected = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
            assert model.outputs == tuple(output.name for output in session.get_outputs())
            for found, other in zip(model(**inputs), expected, strict=True):
                assert found.dtype == np.float32
                assert found.shape == other.shape
                found, other = real(found, inputs["attention_mask"]), real(other, inputs["attention_mask"])
                if tolerance:
                    np.testing.assert_allclose(found, other, atol=tolerance, rtol=1e-5)
                else:  # a tie that is rounded the other way moves what follows by a step
                    assert np.abs(found - other).mean() < 0.02 * np.abs(other).mean() + 1e-6


@pytest.mark.parametrize("eight_bits", [False, True])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_sequence_has_its_own_logits_whatever_stands_beside_it(bert, eight_bits, data):
    """Bit for bit: other sequences, padding, the order, and the number of threads change nothing."""
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))
    inputs = batch(lengths, data.draw(st.integers(0, 99)))
    whole = SparseModel.load(bert[eight_bits], data.draw(st.sampled_from([1, 2, 3])))(**inputs)
    alone = SparseModel.load(bert[eight_bits], 1)
    number = data.draw(st.integers(0, len(lengths) - 1))
    longer = data.draw(st.integers(0, 4))
    single = {name: np.pad(rows[[number], : lengths[number]], ((0, 0), (0, longer))) for name, rows in inputs.items()}
    if lengths[number] + longer <= 64:
        for one, many in zip(alone(**single), whole, strict=True):
            np.testing.assert_array_equal(one[0, : lengths[number]], many[number, : lengths[number]])
            assert (one[0, lengths[number] :] == 0).all()


def test_a_mask_with_holes_or_of_zeros_means_what_it_means_in_onnx_runtime(bert):
    inputs = batch([40, 40, 23])
    inputs["attention_mask"][0, [1, 17, 18]] = 0
    inputs["attention_mask"][1] = 0
    session = onnxruntime.InferenceSession(bert[0], providers=["CPUExecutionProvider"])
    for found, other in zip(SparseModel.load(bert[0], 2)(**inputs), session.run(None, inputs), strict=True):
        np.testing.assert_allclose(found[:2], other[:2], atol=1e-5)
        np.testing.assert_allclose(found[2, :23], other[2, :23], atol=1e-5)


def test_mask_and_types_may_be_left_out(bert):
    model, inputs = SparseModel.load(bert[0], 1), batch([9, 9])
    inputs["token_type_ids"][:] = 0
    for found, expected in zip(model(input_ids=inputs["input_ids"].astype(np.int32)), model(**inputs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_calls_at_once_give_what_they_give_one_after_the_other(bert):
    model = SparseModel.load(bert[1], 2)
    inputs = [batch([5 + i, 30, 12], i) for i in range(24)]
    expected = [model(**one) for one in inputs]
    with ThreadPoolExecutor(6) as pool:
        for found, other in zip(pool.map(lambda one: model(**one), inputs), expected, strict=True):
            for mine, its in zip(found, other, strict=True):
                np.testing.assert_array_equal(mine, its)


def test_a_child_process_has_threads_of_its_own(bert):
    model, inputs = SparseModel.load(bert[0], 2), batch([30, 40])
    expected = model(**inputs)
    child = os.fork()
    if not child:
        same = all(np.array_equal(*pair) for pair in zip(model(**inputs), expected, strict=True))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"input_ids": np.full((1, 4), 100_000)}, "input_ids holds 100000: allowed is 0 to"),
        ({"input_ids": np.full((1, 4), -1)}, "input_ids holds -1: allowed is 0 to"),
        ({"input_ids": np.ones((1, 65), int)}, "65 tokens: the model has positions for 64"),
        ({"input_ids": np.ones((1, 4), int), "token_type_ids": np.full((1, 4), 2)}, "token_type_ids holds 2: allowed"),
        ({"input_ids": np.ones((1, 4), np.float32)}, "input_ids is float32 [1, 4]: integers [sequences, tokens]"),
        ({"input_ids": np.ones(4, int)}, "input_ids is int64 [4]: integers [sequences, tokens]"),
        ({"input_ids": np.ones((0, 4), int)}, "input_ids is int64 [0, 4]: integers [sequences, tokens]"),
        ({"input_ids": np.ones((1, 4), int), "attention_mask": np.ones((1, 3), int)}, "attention_mask is [1, 3]"),
        ({"attention_mask": np.ones((1, 4), int)}, "input_ids is needed"),
        ({"input_ids": np.ones((1, 4), int), "words": np.ones((1, 4), int)}, "allowed are input_ids"),
    ],
)
def test_wrong_inputs_are_one_message(bert, change, words):
    with pytest.raises(UserError) as error:
        SparseModel.load(bert[0], 1)(**change)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_parts_take_no_more_than_the_whole(bert):
    parts = SparseModel.load(bert[0], 2).seconds_by_part(**batch([40] * 8))
    total = parts.pop("total")
    assert 0 < parts["linear"] < total
    assert 0 < parts["attention"] < total
    assert sum(parts.values()) == pytest.approx(total)


def test_weights_are_in_memory_once_and_without_their_zeros():
    rng = np.random.default_rng(0)
    sizes = []
    for density in (0.1, 1.0):
        values = (rng.normal(size=(512, 512)) * (rng.random((512, 512)) < density)).astype(np.float32)
        program = mlp(values, [("x", "y", values)])
        sizes.append(SparseModel(program, 4).packed_bytes - 100 * 512 * 4)
    assert 6 * 0.1 * 512**2 < sizes[0] < 8 * 0.1 * 512**2 + 20_000
    assert sizes[1] < 6.2 * 512**2


def test_the_weights_of_the_file_are_let_go():
    table = np.ones((100, 16), np.float32)
    program = mlp(table, [("x", "y", np.ones((16, 16), np.float32))])
    held = [weakref.ref(operation) for operation in program.operations]
    model = SparseModel(program, 1)
    del program
    gc.collect()
    assert model.packed_bytes > 0
    assert not any(reference() for reference in held)


def mlp(table, layers):
    """A program of an embedding, which is normalised, and linear layers."""
    width = table.shape[1]
    operations = [Embed("words", (Lookup(np.resize(table, (100, width)), "words"),))]
    operations.append(Norm("x", "words", np.ones(width, np.float32), np.zeros(width, np.float32), np.float32(1e-5)))
    for x, out, values in layers:
        operations.append(Linear(out, x, Weight(out, values, np.zeros(len(values), np.float32))))
    return Program(tuple(operations), (Output("out", "y", 0, len(layers[-1][2])),), ("input_ids",), None, None)


def test_sums_and_activations_that_several_read_are_kept_apart():
    """x, x + y and gelu(x) are read twice each; none may be written over before its last reader."""
    rng = np.random.default_rng(1)
    table, one = rng.normal(size=(100, 24)).astype(np.float32), rng.normal(size=(24, 24)).astype(np.float32)
    weight = Weight("one", one, np.ones(24, np.float32))
    operations = (
        Embed("x", (Lookup(table, "words"),)),
        Linear("y", "x", weight),
        Add("sum", "x", "y"),
        Activate("bent", "y", "relu"),
        Add("more", "sum", "bent"),
        Add("all", "more", "sum"),
        Linear("z", "bent", weight),
        Add("end", "all", "z"),
    )
    model = SparseModel(Program(operations, (Output("end", "end", 0, 24),), ("input_ids",), None, None), 2)
    ids = rng.integers(0, 100, (3, 50))
    x = table[ids].astype(np.float64)
    y = x @ one.T.astype(np.float64) + 1
    bent = np.maximum(y, 0)
    expected = 2 * (x + y) + bent + bent @ one.T.astype(np.float64) + 1
    np.testing.assert_allclose(model(input_ids=ids)[0], expected, rtol=1e-4, atol=1e-4)


def test_an_integer_layer_whose_unit_is_worth_nothing_gives_nothing():
    rounding = Rounding(np.float32(0.1), 100)
    weight = Weight("empty", np.zeros((8, 8), np.int8), np.full(8, 7, np.int32), rounding, np.float32(0))
    operations = Embed("x", (Lookup(np.ones((100, 8), np.float32), "words"),)), Linear("y", "x", weight)
    program = Program(operations, (Output("y", "y", 0, 8),), ("input_ids",), None, None)
    np.testing.assert_allclose(SparseModel(program, 1)(input_ids=np.ones((2, 5), int))[0], 0, atol=1e-30)


def test_values_that_live_at_once_have_places_of_their_own(exported):
    """No instruction writes where a value lies that is still to be read, unless row by row in its place."""
    from obert.sparse.reading import read

    for path in exported("mobilebert", "sequence_classification"):
        plan = schedule(read(path), 2)
        steps = []
        for segment in plan.segments:
            steps += [([v for v in (i.x, i.y) if v], i.out) for i in segment.instructions]
            if segment.out is not None:
                steps.append((list(segment.operands), segment.out))
        last = {value: step for step, (read_, out) in enumerate(steps) for value in (*read_, out)}
        last |= {value: len(steps) for value in plan.outputs.values()}
        live = {}
        for step, (_, out) in enumerate(steps):
            memory = out.stream if out.lasting else "scratch"
            rows = range(out.place, out.place + (-(-out.features // 4) * 2 if out.rounding else out.features))
            for other, (where, taken) in live.items():
                if last[other] > step and where == memory:
                    assert not set(rows) & set(taken)
            live[out] = memory, rows


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=70), min_size=1, max_size=5))
def test_the_stream_holds_each_token_up_to_the_last_that_counts(rows):
    length = max(map(len, rows))
    mask = np.array([row + [False] * (length - len(row)) for row in rows], np.int64)
    found = stream(mask)
    for number, row in enumerate(mask):
        kept = int(np.flatnonzero(row).max()) + 1 if row.any() else length
        assert found.kept[number] == kept
        assert found.starts[number] % COLUMN == 0
        place = slice(found.starts[number], found.starts[number] + kept)
        np.testing.assert_array_equal(found.source[place], number * length + np.arange(kept))
        assert found.masked[number] == (row[:kept] == 0).any()
    numbers = np.arange(mask.size).reshape(mask.shape)
    real_places = np.arange(length) < found.kept[:, None]
    np.testing.assert_array_equal(found.scatter(found.gather(numbers)) * real_places, numbers * real_places)


def test_a_thread_that_fails_is_heard_of_after_all_have_stopped():
    team, seen = Team(3), []

    def work(number):
        if number == 1:
            raise RuntimeError("broken")
        time.sleep(0.05)
        seen.append(number)

    with pytest.raises(RuntimeError, match="broken"):
        team.run(work)
    assert 0 in seen
    before = list(seen)
    time.sleep(0.1)
    assert seen == before


@pytest.mark.slow  # compiles twice, into an empty cache
def test_a_killed_process_leaves_no_lock(bert, tmp_path):
    """Whenever it dies, compiling or running, the next one works."""
    code = (
        "import sys, numpy as np; from obert.sparse.model import SparseModel\n"
        "model = SparseModel.load(sys.argv[1], 2); print('loaded', flush=True)\n"
        "while True: model(input_ids=np.ones((4, 20), int)); print('ran', flush=True)\n"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for word in (b"loaded", b"ran"):
        command = [sys.executable, "-c", code, bert[0]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            while word not in process.stdout.readline():
                pass
            process.kill()


def test_memory_is_used_again_from_call_to_call(bert, monkeypatch):
    model, made = SparseModel.load(bert[0], 1), []
    monkeypatch.setattr("obert.sparse.model.Run", lambda layout: made.append(1) or Run(layout))
    barrier = threading.Barrier(2)

    def twice(number):
        barrier.wait()
        return [model(**batch([20 + number])) for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(twice, range(2)))
    assert 1 <= len(made) <= 2
