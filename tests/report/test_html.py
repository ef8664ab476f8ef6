"""The page: complete, self-contained, and safe whatever a model wrote."""

import json
import re
from html.parser import HTMLParser
from typing import Any

from r1cli.metrics.reward_quality import LengthRule, Measured, quality
from r1cli.report.html import MOST_SAMPLES, RunData, chart_name, curves, page, spread

EVIL = '</script><script>alert(1)</script><img src="https://example.org/x" onerror=alert(1)><!--'


class Reader(HTMLParser):
    """Tags with their attributes, in order, and the text of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            key = self.tags[-1][1].get("id")
            self.scripts[key] = self.scripts.get(key, "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run(name: str = "rl", steps: int = 3, **more: Any) -> RunData:
    config = {"command": "grpo", "settings": {"lr": 3e-6, "seed": 0}, "sources": {"lr": "flag", "seed": "default"}}
    metrics = [
        {"step": s, "time": 100.0 + 60 * s, "loss": 1.0 / s, "reward/accuracy": s / 20, "reward": s / 10, "kl": None}
        for s in range(1, steps + 1)
    ]
    samples = [{"step": 1, "id": "a", "prompt": EVIL, "completion": EVIL, "rewards": {"accuracy": 1.0}, "reward": 1.0, "advantage": 0.5}]
    return RunData(name, config, metrics, samples, **more)


SCORES = [{"stage": "base", "model": "m", "problems": 9, "samples": 9, "pass@1": 0.5, "low": 0.4, "high": 0.6}]


def test_nothing_is_fetched_and_the_policy_forbids_it() -> None:
    text = page("t", [run()], SCORES)
    reader = Reader(text)
    links = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href", "action", "srcset")]
    assert links == ["data:,"]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML|document\.write", text)
    policy = next(m["content"] for m in reader.named("meta") if m.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_what_a_model_wrote_stays_text() -> None:
    reader = Reader(page(EVIL, [run(EVIL)], [SCORES[0] | {"stage": EVIL, "model": EVIL}]))
    assert len(reader.named("script")) == 2 and not reader.named("img")
    (sample,) = json.loads(reader.scripts["samples"])
    assert sample["completion"] == sample["prompt"] == sample["run"] == EVIL
    assert sample["advantage"] == 0.5


def test_one_chart_a_metric_in_a_fixed_order_with_every_run_in_it() -> None:
    two = RunData("two", {}, [{"step": 5, "time": 1.0, "zeal": 2, "loss": 0.5}, {"step": 6, "loss": None, "ok": True}])
    both = curves([run("one"), two])
    assert list(both) == ["reward", "reward/accuracy", "loss", "zeal"]
    lines = [(s.name, s.colour, list(s.points)) for s in both["loss"]]
    assert lines == [("one", 0, [(1, 1.0), (2, 0.5), (3, 1 / 3)]), ("two", 1, [(5, 0.5)])]
    assert page("t", [run("one")], []).count("<figure") == 3


def test_settings_show_what_was_chosen_and_what_differs() -> None:
    other = RunData("other", {"settings": {"lr": 1e-5, "seed": 0}, "sources": {"lr": "flag", "seed": "default"}})
    text = page("t", [run("one"), other], [])
    chosen, everything = text.split("<details>")
    assert '<tr class="differs"><td class=text>lr</td><td class=text>3e-06</td><td class=text>1e-05</td>' in chosen
    assert ">seed<" not in chosen and ">seed<" in everything


def test_the_table_and_the_intervals_of_scores() -> None:
    text = page("t", [], SCORES)
    assert "<td>50.0%</td><td>40.0 - 60.0</td>" in text and 'class="intervals"' in text
    without = page("t", [], [{"model": "m", "pass@1": 0.5}])
    assert 'class="intervals"' not in without and "50.0%" in without


def test_an_empty_run_gives_a_page() -> None:
    text = page("t", [RunData("new")], [])
    assert "<h2>Runs</h2>" in text and "<h2>Curves</h2>" not in text and "<h2>Samples</h2>" not in text


def test_many_samples_are_spread_and_said() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    many = RunData("r", {}, [], [{"step": i, "prompt": "p", "completion": "c"} for i in range(MOST_SAMPLES + 1)])
    text = page("t", [many], [])
    assert f"{MOST_SAMPLES:,} of {MOST_SAMPLES + 1:,}" in text
    assert len(json.loads(Reader(text).scripts["samples"])) == MOST_SAMPLES


def test_names_of_charts() -> None:
    assert [chart_name(k) for k in ("reward", "reward/accuracy", "my_own")] == ["Reward, mean", "Reward: accuracy", "My own"]


def test_what_a_reward_model_is_worth_is_a_table() -> None:
    rows = [Measured((1.0, 0.0), (5, 3), "a"), Measured((0.0, 1.0), (5, 3), "b")]
    text = page("t", [RunData("helpful <model>", held_out=quality(rows, LengthRule(1)))], [])
    assert "<h2>Reward models</h2>" in text and "<h3>helpful &lt;model&gt;</h3>" in text
    assert "held out: 2 pairs about 2 prompts" in text and "<td>50.0%</td><td>9.5 - 90.5</td>" in text
    assert "Reward models" not in page("t", [RunData("new")], [])
