"""Licences and credits of recordings: what is accepted, what is refused in one sentence, what is printed."""

from __future__ import annotations

import json

import pytest
from lab.songs.pack import PackWriter

from tsbs_daw.core.errors import UsageError
from tsbs_daw.lab.songs import material
from tsbs_daw.lab.songs.material import open_material


@pytest.fixture
def pack(tmp_path):
    writer = PackWriter(tmp_path)
    writer.add_tone("piano", "other", "keys-note", 60)
    writer.add_tone("piano", "other", "keys-note", 64)
    return writer


def test_every_source_of_the_project_has_an_accepted_licence_a_version_and_a_digest():
    described = material.read_sources()
    assert len(described) > 30
    for source in described.values():
        assert source.licence in material.ACCEPTED_LICENCES, source.name
        assert source.licence not in material.ASK_FOR_CREDIT or source.credit, source.name
        assert source.commit
        assert source.address
        assert len(source.digest) == 64
        assert source.files > 0


@pytest.mark.parametrize("licence", ["CC BY-NC 4.0", "GPL-3.0", "CC BY-SA 4.0", ""])
def test_a_licence_that_is_not_accepted_is_refused_by_name(pack, licence):
    pack.close(licence=licence)
    with pytest.raises(UsageError, match="piano") as refused:
        open_material(pack.folder)
    assert len(str(refused.value).splitlines()) == 1


def test_a_licence_that_asks_for_a_credit_needs_one(pack):
    pack.close(licence="CC BY 4.0")
    with pytest.raises(UsageError, match="credit"):
        open_material(pack.folder)


def test_a_source_that_nobody_described_is_refused(pack):
    pack.close()
    (pack.folder / "sources.yaml").unlink()
    with pytest.raises(UsageError, match="No licence is known for the source piano"):
        open_material(pack.folder)


def test_changed_files_are_refused_and_part_of_a_source_is_not(pack):
    pack.close()
    paths = [row["path"] for row in pack.rows]
    digest = material.digest_of(pack.folder, paths)
    entries = json.loads((pack.folder / "sources.yaml").read_text())
    entries["piano"] |= {"files": 2, "digest": digest}
    (pack.folder / "sources.yaml").write_text(json.dumps(entries))
    present = {"piano": paths}
    assert [source.name for source in material.require_sources(pack.folder, present)] == ["piano"]
    (pack.folder / paths[0]).write_bytes(b"something else")
    with pytest.raises(UsageError, match="were changed"):
        material.require_sources(pack.folder, present)
    assert material.require_sources(pack.folder, {"piano": paths[1:]})


@pytest.mark.parametrize("text", ["[", "- piano", "piano: {colour: black}", "piano: 3"])
def test_a_damaged_list_of_sources_is_refused_in_one_sentence(pack, text):
    pack.close()
    (pack.folder / "sources.yaml").write_text(text)
    with pytest.raises(UsageError, match="list of sources") as refused:
        open_material(pack.folder)
    assert len(str(refused.value).splitlines()) == 1


def test_the_page_of_credits_names_everyone_once():
    described = material.read_sources().values()
    page = material.credits_page(described)
    for source in described:
        assert source.title in page
        assert not source.credit or page.count(f"- {source.credit}\n") == 1
