"""What every test may use: the tiny model, built once a test run."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("r1", deadline=None)  # no test is timed: the machine may be busy
settings.load_profile("r1")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama model with its tokenizer. Read it only: the folder is shared by all tests."""
    from tests.tiny import tiny_model  # imports torch: only tests that ask for the model pay for it

    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")
