"""`hf:` names, and data sets of a local folder through `datasets` (no network)."""

from pathlib import Path

import pytest

from r1cli.errors import R1Error
from r1cli.io.dataset import DataSet, parse
from r1cli.io.stream import read_rows


@pytest.mark.parametrize(
    ("name", "path", "config", "revision", "split"),
    [
        ("hf:org/name", "org/name", None, None, None),
        ("hf:org/name@v1.2:train", "org/name", None, "v1.2", "train"),
        ("hf:openai/gsm8k/main:test", "openai/gsm8k", "main", None, "test"),
        ("hf:org/name@refs/pr/3:train[:10]", "org/name", None, "refs/pr/3", "train[:10]"),
        ("hf:squad", "squad", None, None, None),
    ],
)
def test_hub_names(name: str, path: str, config: str | None, revision: str | None, split: str | None) -> None:
    assert parse(name) == DataSet(name, path, config, revision, split)


def test_local_names(tmp_path: Path) -> None:
    (tmp_path / "a:b@c").mkdir()
    name = f"hf:{tmp_path}/a:b@c:train[:5]"
    assert parse(name) == DataSet(name, f"{tmp_path}/a:b@c", split="train[:5]", local=True)
    with pytest.raises(R1Error, match=r"no such folder: `\./nowhere`"):
        parse("hf:./nowhere:train")
    with pytest.raises(R1Error, match="does not name a data set"):
        parse("hf:a b")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"id": 1, "question": "a"}\n{"id": 2, "question": "b"}\n')
    (tmp_path / "set" / "test.jsonl").write_text('{"id": 3, "question": "c"}\n')
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "set"


def test_a_split_of_a_local_folder(folder: Path) -> None:
    rows = list(read_rows([f"hf:{folder}:train"], field_map=["prompt=question"], limit=5))
    assert [dict(row) for row in rows] == [{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "b"}]
    assert rows[1].where == f"hf:{folder}:train:2"
    with pytest.raises(R1Error, match=r"has several splits: (test, train|train, test)"):
        list(read_rows([f"hf:{folder}"]))
    with pytest.raises(R1Error, match="cannot read") as caught:
        list(read_rows([f"hf:{folder}:dev"]))
    assert caught.value.code == 2


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list([{"id": n, "messages": [{"role": "user", "content": str(n)}]} for n in range(600)])
    data.filter(lambda row: row["id"] % 2 == 0).save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    rows = list(read_rows([str(tmp_path / "one")]))
    assert [row["id"] for row in rows] == list(range(0, 600, 2))
    assert rows[1]["messages"] == [{"role": "user", "content": "2"}]
    assert len(list(read_rows([f"hf:{tmp_path / 'two'}:test"]))) == 1
    with pytest.raises(R1Error, match="has several splits"):
        list(read_rows([str(tmp_path / "two")]))
    with pytest.raises(R1Error, match="no split `tset`") as caught:
        list(read_rows([f"hf:{tmp_path / 'two'}:tset"]))
    assert caught.value.hint == "did you mean `test`?"


def test_an_unreachable_hub_is_said_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said: list[str] = []
    with pytest.raises(R1Error, match=r"cannot (reach|read) `hf:org/no-such-set@main:train`") as caught:
        list(read_rows(["hf:org/no-such-set@main:train"], say=said.append))
    assert said == ["fetching data set `org/no-such-set` at revision main from the Hugging Face hub"]
    assert caught.value.code == 3
