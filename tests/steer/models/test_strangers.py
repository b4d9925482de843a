"""A model's folder may be from a stranger: none of its code runs, nobody is asked, and no link leads out of it."""

import ast
import builtins
import json
import os
import shutil
from pathlib import Path

import pytest

import steer
from steer.errors import CheckpointError, ModelNotFound
from steer.models.base import check_files, load_base
from steer.models.checkpoint import fetch
from steer.models.latent_model import LatentModel
from steer.training.estimate.report import read_config
from tests.steer.tiny import tiny_model

ROOT = Path(steer.__file__).parents[1]


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


def change(path: Path, **fields: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | fields))


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_no_code_of_a_folder_runs(base: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With code that transformers would run if it were allowed to, or if somebody answered its question with yes."""
    trap = base.parent / "ran"
    (base / "evil.py").write_text(f"open({str(trap)!r}, 'w')\nclass Evil: pass\n")
    if where == "config.json":
        names = ("AutoConfig", "AutoModelForCausalLM")
        change(base / where, model_type="evil", auto_map={name: "evil.Evil" for name in names})
    else:
        change(base / where, tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("somebody was asked"))
    for load in (load_base, read_config):
        try:
            load(base)
        except ModelNotFound:
            pass  # or the code is passed over
        else:
            assert where != "config.json"
    assert not trap.exists()


def test_every_loader_says_that_no_code_may_run() -> None:
    missing = []
    for package in ("steer", "agents", "vectorstore", "examples", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "import Auto" in text or ", Auto" in text else ():
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                owner = node.func.value
                if not (isinstance(owner, ast.Name) and owner.id.startswith("Auto")) or node.func.attr == "for_model":
                    continue
                said = {k.arg: k.value for k in node.keywords}
                if any(k.arg is None for k in node.keywords) and path.name in ("base.py", "judge.py"):
                    continue  # options that say it; see the test above
                value = said.get("trust_remote_code")
                if not (isinstance(value, ast.Constant) and value.value is False):
                    missing.append(f"{path}:{node.lineno}")
    assert not missing


@pytest.mark.parametrize("name", ["steer_config.json", "heads.safetensors", "encoder", "base/config.json", "other"])
def test_links_out_of_a_model_are_refused(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    tiny_model(tiny_llama).save_pretrained(folder)
    place, elsewhere = folder / name, tmp_path / "elsewhere"
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        shutil.move(place, elsewhere)
    else:
        elsewhere.write_text("secret")
    place.symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{name}: it is a link out of the folder, to {elsewhere}"):
        LatentModel.from_pretrained(str(folder))
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(CheckpointError, match=f"{name}: it is no plain file"):
        LatentModel.from_pretrained(str(folder))


def test_files_that_the_settings_name_lie_in_the_folder(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model(tiny_llama).save_pretrained(folder)
    (tmp_path / "secret").write_text("mine")
    for name in ("../secret", str(tmp_path / "secret")):
        change(folder / "steer_config.json", files={name: "0" * 64})
        with pytest.raises(CheckpointError, match="is missing"):
            LatentModel.from_pretrained(str(folder))


def test_a_model_of_the_hubs_cache_is_made_of_links(base: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in base.iterdir():
        shutil.copy(file, cache / "blobs" / f"hash-of-{file.name}")
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / f"hash-of-{file.name}")
    assert load_base(fetch(str(snapshot)))[0].config.model_type == "llama"
    (snapshot / "more").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="a link out of the folder"):
        check_files(snapshot)
