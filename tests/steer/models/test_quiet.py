"""Loading says nothing, and changes nothing in the process."""

import threading
import warnings
from pathlib import Path

import huggingface_hub.utils as hub
import pytest
from transformers.utils import logging

from steer.models.base import quietly
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from tests.steer.tiny import tiny_model


@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("downloads", [True, False])
def test_loading_is_quiet_and_leaves_the_switches(
    tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], bars: bool, downloads: bool
):
    before = logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()
    try:
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            filters = list(warnings.filters)
            fresh_model(tiny_llama, span_tokens=8, z_dim=6, rank=4, alpha=8, device="cpu").save_pretrained(tmp_path)
            model = LatentModel.from_pretrained(tmp_path, device="cpu")
            model.encode("A fox.")
            assert list(warnings.filters) == filters
        assert (logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()) == (bars, downloads)
    finally:
        (logging.enable_progress_bar if before[0] else logging.disable_progress_bar)()
        (hub.disable_progress_bars if before[1] else hub.enable_progress_bars)()
    assert [str(w.message) for w in warned] == []
    assert capfd.readouterr() == ("", "")


def test_switches_come_back_after_an_error_and_between_threads():
    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()

    @quietly()
    def load(fail: bool) -> None:
        assert not logging.is_progress_bar_enabled()
        with quietly():
            warnings.warn("from another library", stacklevel=1)
        assert not logging.is_progress_bar_enabled()
        if fail:
            raise ValueError("no such file")

    def try_to_load() -> None:
        for _ in range(50):
            with pytest.raises(ValueError, match="no such file"):
                load(True)
            load(False)

    try:
        threads = [threading.Thread(target=try_to_load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_a_model_says_what_it_is_in_a_line(tiny_llama: Path):
    assert repr(tiny_model(tiny_llama)) == (
        "LatentModel('latent-model', interleaved, spans of 8 tokens, latents of 6, float32 on cpu)"
    )
