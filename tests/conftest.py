"""What every test may use: the tiny model, built once a test run. No property test has a deadline: a busy machine is no failure."""

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama model with its tokenizer. Read it only: the folder is shared by all tests."""
    from tests.tiny import tiny_model  # imports torch: only tests that ask for the model pay for it

    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")
