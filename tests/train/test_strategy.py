"""What a training run is started with."""

import pytest

from r1cli.errors import R1Error
from r1cli.train.model import accelerator_for


def test_float16_is_refused_before_anything_is_loaded() -> None:
    """Its gradients would need a scaled loss; without it small ones are 0, and an overflow would end the run as a broken one."""
    with pytest.raises(R1Error, match="float16 is for sampling") as error:
        accelerator_for("float16")
    assert error.value.code == 2 and "--dtype bfloat16" in (error.value.hint or "")
