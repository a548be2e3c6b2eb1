"""A path that comes from outside is below the directory where it belongs, or an error."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.safe_path import inside


@pytest.mark.parametrize("directory", ["/data/tables", "tables", ".", "../tables", "/"])
@pytest.mark.parametrize(
    ("name", "path"),
    [("x.csv", "x.csv"), ("p10/s1//x.dcm", "p10/s1/x.dcm"), ("./a/../b", "b"), ("a b/..x", "a b/..x"), ("…", "…")],
)
def test_what_is_below(directory, name, path):
    assert inside(Path(directory), name) == Path(directory) / path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/..", "/etc/x", "//etc/x", "../tables2/x", "a/../../x", "x\0", "x\n", "\udcff"]
)
def test_what_is_not(tmp_path, name):
    with pytest.raises(UserError, match="is no path below") as error:
        inside(tmp_path / "tables", name)
    assert str(error.value).isprintable()


def test_a_directory_whose_name_begins_alike_is_another():
    with pytest.raises(UserError):
        inside(Path("/data/tables"), "/data/tables2/x.csv")


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "/", "\x00", "é"]) | st.text(max_size=3), max_size=6).map("/".join)
)
def test_whatever_comes(name):
    top = Path("/data/tables")
    try:
        path = inside(top, name)
    except UserError:
        return
    assert os.path.normpath(path) == str(path)
    assert str(path).startswith("/data/tables/")
