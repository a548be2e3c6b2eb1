import os
import pickle

import pytest
import torch

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.vectors import _map, merge_vectors, read_vectors, write_vectors


def put(path, vectors):
    write_vectors(path, list(vectors), torch.tensor(list(vectors.values()), dtype=torch.float32))


def test_written_files_open_as_the_guide_says(tmp_path):
    path = tmp_path / "vitl_embeddings_p10.pt"
    matrix = torch.randn(300, 64)
    keys = [f"s{i:03d}/x.mp4" for i in reversed(range(300))]
    write_vectors(path, keys, matrix)
    embeddings = torch.load(path)
    assert list(embeddings) == sorted(keys)
    for filename, emb in embeddings.items():
        assert emb.dtype == torch.float32
        assert torch.equal(emb, matrix[keys.index(filename)])
    assert torch.stack(list(embeddings.values())).shape == (300, 64)
    assert os.path.getsize(path) < 300 * 64 * 4 * 1.5 + 30_000  # one storage, not 300


def test_read_gives_the_matrix_of_ours_and_of_separate_tensors(tmp_path):
    matrix = torch.randn(5, 8)
    keys = [f"k{i}" for i in range(5)]
    write_vectors(tmp_path / "ours.pt", keys, matrix)
    torch.save({key: row.clone() for key, row in zip(keys, matrix, strict=True)}, tmp_path / "theirs.pt")
    for name in ("ours.pt", "theirs.pt"):
        found, read = read_vectors(tmp_path / name)
        assert found == keys
        assert torch.equal(read, matrix)


def test_read_maps_the_file_and_builds_no_tensor_for_a_row(tmp_path, monkeypatch):
    put(tmp_path / "x.pt", {"b": [1.0, 2], "a": [3.0, 4]})
    monkeypatch.setattr(torch, "load", None)
    keys, matrix = read_vectors(tmp_path / "x.pt")
    assert (keys, matrix.tolist()) == (["a", "b"], [[3, 4], [1, 2]])
    matrix[0, 0] = 9  # a copy of that page, not the file
    assert read_vectors(tmp_path / "x.pt")[1][0, 0] == 3


def test_a_file_whose_rows_lie_otherwise_is_read_too(tmp_path):
    matrix = torch.arange(12.0).view(3, 4)
    for vectors in (
        {"a": matrix[2], "b": matrix[0]},
        {"a": matrix[:, 1], "b": matrix[:, 0]},
        {"a": matrix[0], "b": torch.ones(4)},
        {"a": matrix[0, :2], "b": matrix[1, 2:]},
    ):
        torch.save(vectors, tmp_path / "x.pt")
        keys, found = read_vectors(tmp_path / "x.pt")
        assert keys == ["a", "b"]
        assert torch.equal(found, torch.stack([vectors["a"], vectors["b"]]))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Bad:
        def __reduce__(self):
            return print, ("it ran",)

    torch.save({"a": Bad()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="cannot be read as an embedding file"):
        read_vectors(tmp_path / "x.pt")


def test_a_slice_is_written_without_what_lies_around_it(tmp_path):
    big = torch.randn(10000, 8)
    write_vectors(tmp_path / "x.pt", ["a", "b"], big[500:502])
    assert os.path.getsize(tmp_path / "x.pt") < 4000
    assert torch.equal(read_vectors(tmp_path / "x.pt")[1], big[500:502])
    for keys, rows in ((["a", "a"], 2), (["a"], 2)):
        with pytest.raises(ValueError, match="keys"):
            write_vectors(tmp_path / "y.pt", keys, big[:rows])


def test_empty_file(tmp_path):
    write_vectors(tmp_path / "e.pt", [], torch.empty(0, 8))
    assert read_vectors(tmp_path / "e.pt")[0] == []
    assert merge_vectors({"p10": tmp_path / "e.pt"}, tmp_path / "all.pt", 8) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list"),
        ({"a": 3}, "not a vector"),
        ({"a": torch.zeros(2, 2)}, "not a vector"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "'b': dimension 3, where 'a' has 2"),
        ({"a": torch.zeros(2, dtype=torch.float16)}, "dtype torch.float16"),
    ],
)
def test_what_is_no_embedding_file(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        read_vectors(tmp_path / "x.pt")


def test_truncated_and_absent_files(tmp_path):
    put(tmp_path / "x.pt", {"a": [1.0] * 100})
    os.truncate(tmp_path / "x.pt", 500)
    with pytest.raises(UserError, match="cannot be read as an embedding file"):
        read_vectors(tmp_path / "x.pt")
    with pytest.raises(UserError, match="no such embedding file"):
        read_vectors(tmp_path / "absent.pt")


@pytest.mark.parametrize("name", ["ours.pt", "theirs.pt"])
def test_a_damaged_file_is_named_in_one_line_or_read(tmp_path, name):
    """Each byte turned over that is not a number's, and the file cut off at each place."""
    matrix = torch.full((3, 8), float("inf"))
    if name == "ours.pt":
        write_vectors(tmp_path / name, ["a", "b", "c"], matrix)
    else:
        torch.save({key: row.clone() for key, row in zip("abc", matrix, strict=True)}, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    used = [i for i in range(len(content)) if content[i] or any(content[i - 8 : i + 8])]  # not the archive's padding
    damaged = [content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for i in used[::11] for bit in (1, 0x80)]
    damaged += [content[:i] for i in used[::33]]
    refused = 0
    for change in damaged:
        (tmp_path / name).write_bytes(change)
        try:
            keys, found = read_vectors(tmp_path / name)
            assert len(keys) == len(found) <= 3
        except UserError as error:
            refused += 1
            assert f"{tmp_path / name}: " in str(error)
            assert str(error).isprintable()
    assert refused > len(damaged) / 4


def test_calls_of_other_names_and_other_types_are_left_to_torch(tmp_path):
    """Nothing but vectors of float32 passes the reader that knows three names."""
    for vector in (torch.zeros(2, dtype=torch.float64), torch.nn.Parameter(torch.zeros(2)), torch.zeros(2).to_sparse()):
        torch.save({"a": vector}, tmp_path / "x.pt")
        with pytest.raises(pickle.UnpicklingError):
            _map(tmp_path / "x.pt")


def test_merge_keeps_every_vector(tmp_path):
    put(tmp_path / "p10.pt", {"b": [1.0, 2], "a": [3.0, 4]})
    put(tmp_path / "p11.pt", {"c": [5.0, 6]})
    parts = {"p10": tmp_path / "p10.pt", "p11": tmp_path / "p11.pt"}
    assert merge_vectors(parts, tmp_path / "all.pt", 2) == 3
    assert {k: v.tolist() for k, v in torch.load(tmp_path / "all.pt").items()} == {
        "a": [3, 4],
        "b": [1, 2],
        "c": [5, 6],
    }
    merge_vectors(parts, tmp_path / "all.pt", 2, prefix_folder=True)
    assert list(torch.load(tmp_path / "all.pt")) == ["p10/a", "p10/b", "p11/c"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": [5.0, 6]}, "folders p10 and p11 share the key 'a'; set merge.prefix_folder: true"),
        ({"c": [5.0, 6, 7]}, "dimension 3, the model's is 2"),
        ({"c": [5.0, float("nan")]}, "'c' holds NaN or Inf"),
        ({"c": [5.0, float("inf")]}, "'c' holds NaN or Inf"),
        (None, r"no embedding file for folder p11 \("),
    ],
)
def test_merge_stops_with_one_line_and_writes_nothing(tmp_path, second, message):
    put(tmp_path / "p10.pt", {"a": [3.0, 4]})
    if second:
        put(tmp_path / "p11.pt", second)
    with pytest.raises(UserError, match=message):
        merge_vectors({"p10": tmp_path / "p10.pt", "p11": tmp_path / "p11.pt"}, tmp_path / "all.pt", 2)
    assert not (tmp_path / "all.pt").exists()
