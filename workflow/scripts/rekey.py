"""Carry results over to the names of a new record list: python workflow/scripts/rekey.py OLD NEW --record-list CSV"""

from pathlib import Path

from echo_embeddings.core.layout import Layout
from echo_embeddings.core.settings import KEY_COLUMNS, Table
from echo_embeddings.tools import command, rekey

if __name__ == "__main__":
    parser = command.parser(__doc__)
    parser.add_argument("old", type=Path, help="the directory in which the workflow ran; it is not changed")
    parser.add_argument("new", type=Path, help="a directory without results")
    parser.add_argument("--record-list", required=True, help="of the new version: CSV or Parquet with dicom_filepath")
    parser.add_argument("--dicom-dir", help="of the new version, where its files are there")
    parser.add_argument("--renamed", type=Path, help="CSV with the columns old and new: paths")
    arguments = parser.parse_args()
    record_list = Table(arguments.record_list, "path", KEY_COLUMNS["path"], name="record_list")
    with command.exit_on_user_error():
        report = rekey.rekey(arguments.old, arguments.new, record_list, arguments.dicom_dir, arguments.renamed)
    for what, files in report["what"].value_counts().items():
        print(f"{files:,} files: {what}")
    print(f"their names: {Layout(arguments.new / Layout().root).rekeyed()}")
