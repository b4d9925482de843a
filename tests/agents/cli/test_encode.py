"""`steer encode`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from agents.cli.encode import COSINES_UP_TO
from steer.models.latent_model import LatentModel
from tests.agents.cli.kit import Z_DIM, document, error_line, steer
from tests.steer.minihf_oracle import make_minihf_folder

TEXTS = ["A fox.", "The hen.", "An owl sat."]


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LatentModel:
    return LatentModel.from_pretrained(folder)


def test_encode_gives_the_librarys_latents(folder: Path, loaded: LatentModel, tmp_path: Path) -> None:
    wanted = loaded.encode(TEXTS).numpy()
    answer = document(steer("encode", *TEXTS, "-m", folder, "--json"))
    assert (answer["texts"], answer["z_dim"], answer["encoder_id"]) == (TEXTS, Z_DIM, loaded.latent_config.encoder_id)
    np.testing.assert_allclose(answer["vectors"], wanted, rtol=1e-6)

    out = tmp_path / "new" / "vectors.npy"
    result = steer("encode", *TEXTS, "-m", folder, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert str(out) in result.stderr
    stored = np.load(out)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, wanted)
    assert [path.name for path in out.parent.iterdir()] == ["vectors.npy"]


def test_encode_reads_a_file_line_by_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[1:]) + "\n\n", encoding="utf-8")
    answer = document(steer("encode", TEXTS[0], "--file", tmp_path / "texts.txt", "-m", folder, "--json"))
    assert answer["texts"] == TEXTS


def test_encode_shows_cosines(folder: Path) -> None:
    shown = steer("encode", TEXTS[0], TEXTS[0], "-m", folder).stdout
    assert shown.count("1.00") == 4 and "cosines" in shown
    assert "[b]" in steer("encode", "[b] it", "-m", folder).stdout
    assert "cosines" not in steer("encode", *["A"] * (COSINES_UP_TO + 1), "-m", folder).stdout


def test_encode_bad_input(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    out.write_bytes(b"mine")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert "exists" in error_line(steer("encode", "A", "--out", out, "-m", folder))
    assert "is a folder" in error_line(steer("encode", "A", "--out", tmp_path, "-m", folder))
    assert "holds no text" in error_line(steer("encode", "--file", tmp_path / "empty", "-m", folder))
    assert "does not fit a span" in error_line(steer("encode", "x" * 100, "--overwrite", "--out", out, "-m", folder))
    assert out.read_bytes() == b"mine"
    assert steer("encode", "x" * 100, "--long", "mean", "--overwrite", "--out", out, "-m", folder).exit_code == 0
    assert np.load(out).shape == (1, Z_DIM)


def test_a_foreign_or_damaged_model_is_an_error_of_one_line(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    heads = damaged / "heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:-8])
    assert "was changed or is truncated" in error_line(steer("encode", "A", "-m", damaged))
    assert "steer_config.json" in error_line(steer("encode", "A", "-m", tmp_path))
    assert "no model folder at 'nothing'" in error_line(steer("encode", "A", "-m", "nothing"))


def test_a_minihf_folder_is_loaded_as_one(tmp_path: Path) -> None:
    base, checkpoint = make_minihf_folder(tmp_path, 0)
    config = checkpoint / "encoder" / "adapter_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(base)}
    config.write_text(json.dumps(settings), encoding="utf-8")
    wanted = LatentModel.from_minihf(checkpoint, base=base).encode(["A fox."]).numpy()
    answer = document(steer("encode", "A fox.", "-m", checkpoint, "--json"))
    np.testing.assert_allclose(answer["vectors"], wanted, rtol=1e-6)
