from __future__ import annotations

from tsbs_daw.core.files import file_sha256


def test_the_hash_is_that_of_the_whole_file(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    assert file_sha256(tmp_path / "short") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "long").write_bytes(b"a" * 3_000_000)
    assert file_sha256(tmp_path / "long") != file_sha256(tmp_path / "short")
