"""`steer index`: build, search, plan, look after."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.agents.cli.kit import document, error_line, steer

STORIES = "A cat ran. It hid away.\n<|endoftext|>\nThe fog came. A boat was lost. It came home.\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "tales.txt").write_text(STORIES, encoding="utf-8")
    (folder / "note.md").write_text("Buy milk. Call Ann.", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(corpus: Path, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "mine"
    result = steer("index", "build", corpus, "--store", store, "--model", saved)
    assert result.exit_code == 0, result.output
    assert "3 documents read, 0 of them known before: 7 passages added, 7 in" in " ".join(result.stdout.split())
    return store


def test_a_second_build_adds_what_is_new(corpus: Path, store: Path, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": "Snow fell."}) + "\n", encoding="utf-8")
    copy = tmp_path / "copy"
    steer("index", "build", corpus, "--store", copy, "--model", saved)
    answer = document(
        steer("index", "build", corpus, tmp_path / "new.jsonl", "--store", copy, "--model", saved, "--json")
    )
    assert answer["total"] == 8
    assert answer["report"] == {"documents": 4, "known": 3, "empty": 0, "spans": 1}


def test_search_finds_a_passage_by_itself(store: Path, saved: Path) -> None:
    for text in ("Buy milk.", "A boat was lost."):
        hits = document(steer("index", "search", text, "--store", store, "--model", saved, "-k", 3, "--json"))["hits"]
        assert len(hits) == 3 and [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
    options = ("--store", store, "--model", saved, "--source", "note.md", "--around", 1)
    hits = document(steer("index", "search", "milk", *options, "--json"))["hits"]
    assert {hit["source"] for hit in hits} == {"note.md"}
    first = next(hit for hit in hits if hit["position"] == 0)
    assert (first["before"], first["text"], first["after"]) == ([], "Buy milk.", ["Call Ann."])
    shown = steer("index", "search", "milk", *options).stdout
    assert "note.md, passage 1 of 2" in shown and "Call Ann." in shown


def test_a_plan_is_text(store: Path, saved: Path) -> None:
    options = ("-c", "A cat ran.", "-t", "It came home.", "--store", store, "--model", saved, "--count", 2)
    answer = document(steer("index", "plan", *options, "--json"))
    assert 1 <= len(answer["waypoints"]) <= 2 and 0 <= answer["direct"] <= 1
    assert all(w["text"] in STORIES or w["source"] == "note.md" for w in answer["waypoints"])
    shown = steer("index", "plan", *options).stdout.splitlines()
    assert shown[0].strip() == "A cat ran." and shown[-1] == "=> It came home."
    assert shown[1].startswith(f"1. {answer['waypoints'][0]['text']}")


def test_stats_optimize_and_verify(store: Path, corpus: Path) -> None:
    answer = document(steer("index", "stats", "--store", store, "--json"))
    assert answer["records"] == 7 and answer["owners"] == {"note.md": 2, "tales.txt": 5}
    assert "5 tales.txt" in steer("index", "stats", "--store", store).stdout
    assert "--kind hnsw" in error_line(steer("index", "optimize", "--store", store, "--ef-search", 200))
    result = steer("index", "optimize", "--store", store, "--kind", "hnsw", "--ef-search", 200)
    assert "hnsw index of 7 vectors" in result.stdout
    assert document(steer("index", "stats", "--store", store, "--json"))["index"]["ef_search"] == 200
    assert "7 records and their index are whole" in steer("index", "verify", "--store", store).stdout


def test_export_writes_a_parquet_file(store: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "all.parquet"
    assert "7 records written" in steer("index", "export", "--store", store, "--out", out).stdout
    assert parquet.read_table(out).num_rows == 7
    assert "exists; choose another name" in error_line(steer("index", "export", "--store", store, "--out", out))


def test_damage_is_found_and_mended(corpus: Path, saved: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    steer("index", "build", corpus, "--store", store, "--model", saved)
    with sqlite3.connect(store / "records.sqlite") as database:
        database.execute("UPDATE records SET vector = x'00' WHERE num = 2")
    database.close()
    result = steer("index", "verify", "--store", store)
    assert result.exit_code == 3 and "row 2" in result.stdout and "steer index repair" in result.stderr
    assert "6 records were saved" in steer("index", "repair", "--store", store).stdout
    assert steer("index", "verify", "--store", store).exit_code == 0


def test_what_is_wrong_is_told(store: Path, corpus: Path, saved: Path, tmp_path: Path) -> None:
    assert "no store at" in error_line(steer("index", "search", "x", "--store", tmp_path / "no", "--model", saved))
    assert "no file or folder" in error_line(
        steer("index", "build", tmp_path / "no.txt", "--store", tmp_path / "new", "--model", saved)
    )
    assert "the context is empty" in error_line(
        steer("index", "plan", "-c", "", "-t", "x", "--store", store, "--model", saved)
    )
    result = steer("index", "build", corpus, "--store", store, "--model", saved, "--dtype", "int3")
    assert result.exit_code == 2 and "is not one of" in result.output
