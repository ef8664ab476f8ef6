"""Counting words by language. The sentences are our own; the counts were made by hand."""

import subprocess
import sys
import time

import pytest

from r1cli.errors import Exit, R1Error
from r1cli.text import language
from r1cli.text.language import LANGUAGES, count_words, main_language, normalise_language
from r1cli.text.prose import prose_of

FRENCH = "D'abord nous calculons l'aire du triangle et ensuite son périmètre, car il faut les deux valeurs pour conclure sans erreur ici."
ENGLISH = "First we compute the area of the triangle and then its perimeter, because both of the values are needed to finish this proof."


@pytest.mark.parametrize(
    ("text", "english", "chinese", "words"),
    [
        ("So we have two cases, 第一种情况是偶数。", 5, 8, 13),
        ("We use the 余弦定理 to compute the side length.", 8, 4, 12),
        ("Wait, 这里有问题。", 1, 5, 6),
        ("So $x^2 + 2x + 1 = 0$ gives $x = -1$.", 2, 0, 2),
        ("Then \\( \\frac{a+b}{2} \\geq \\sqrt{ab} \\) holds by AM-GM.", 4, 0, 4),
        ("sin(30) = 0.5, so the height is 10 * 0.5 = 5.", 4, 0, 4),
        ("Plugging in n = 3: 3^2 + 3*3 + 5 = 23", 2, 0, 2),
        ("It seems that I made a mistake.", 7, 0, 7),
        ("代入 n = 3，得 3^2 + 9 + 5 = 23。", 0, 3, 3),
        ("我们先调用 `sorted(xs)`，然后取中位数。", 0, 11, 11),
        ("```python\ndef solve(n):\n    # 计算阶乘\n    return n\n```", 0, 0, 0),
        ("```python\nprint('never closed because the completion was cut", 0, 0, 0),
        ("\\begin{cases} x \\text{ if so} \\\\ \\begin{matrix} a \\end{matrix} \\end{cases}", 0, 0, 0),
        ("\\[ \\text{area} = 2 \\]", 0, 0, 0),
        ("See https://example.org/a-page_about,things or mail me@example.org now", 4, 0, 4),
        ("<think>Okay</think>", 1, 0, 1),
        ("It costs $5 and she has $10 left.", 6, 0, 6),
        ("ｆｕｌｌ　ｗｉｄｔｈ letters", 3, 0, 3),
        ("", 0, 0, 0),
        ("---", 0, 0, 0),
    ],
)
def test_words_are_counted_as_by_hand(text: str, english: int, chinese: int, words: int) -> None:
    assert (count_words(text, "en").target, count_words(text, "en").words) == (english, words)
    assert count_words(text, "zh").target == chinese


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (FRENCH, "fr"),
        ("Zuerst berechnen wir die Fläche des Dreiecks und danach den Umfang.", "de"),
        ("Primero calculamos el área del triángulo y después el perímetro.", "es"),
        ("Nejprve spočítáme obsah trojúhelníku a potom jeho obvod, protože obě hodnoty potřebujeme k vyřešení úlohy.", "cs"),
        ("Pertama kita hitung luas segitiga, kemudian kelilingnya, karena kedua nilai itu diperlukan untuk soal ini.", "id"),
        ("Сначала найдём площадь треугольника, а затем периметр.", "ru"),
        ("まず、三角形の面積を計算します。", "ja"),
        ("먼저 삼각형의 넓이를 계산합니다.", "ko"),
        ("首先，我们需要求出满足条件的所有整数解。", "zh"),
    ],
)
def test_a_text_in_one_language_is_all_in_it_and_not_in_another(text: str, language: str) -> None:
    assert main_language(text) == language
    assert count_words(text, language).share == 1.0
    for other in {"en", "zh", "fr", "ru"} - {language}:
        assert count_words(text, other).share == 0.0


def test_two_latin_languages_are_told_apart_by_sentence() -> None:
    text = f"{ENGLISH} {FRENCH}"
    expected = 23 / (23 + 21)
    assert count_words(text, "en").share == pytest.approx(expected)
    assert count_words(text, "fr").share == pytest.approx(1 - expected)


def test_short_foreign_text_is_recognised_by_its_function_words_and_others_get_the_benefit_of_the_doubt() -> None:
    assert count_words("Alors, on conclut.", "en").share == 0.0
    assert count_words("Perimeter twelve.", "en").share == 1.0
    assert count_words("Perimeter twelve.", "zh").share == 0.0


def test_han_is_japanese_only_in_a_sentence_with_kana() -> None:
    assert count_words("面積は六です。周囲是十二。", "ja").target == 2 + 1 + 1 + 1  # 面 積 は 六 です, then five Chinese characters
    assert count_words("面積は六です。 周囲是十二。", "zh").target == 5


def test_long_english_reasoning_loses_nothing_and_is_the_same_every_time() -> None:
    numbered = "Marbles, twelve; apples, thirteen: compare remaining quantities exactly, sum equals {}."
    text = " ".join(f"{ENGLISH} {numbered.format(n)}" for n in range(60))
    assert {count_words(text, "en").share for _ in range(3)} == {1.0}
    script = f"from r1cli.text.language import count_words; print(count_words({FRENCH[:70]!r} * 3, 'it').target)"
    outputs = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(outputs) == 1


def test_codes_are_normalised_and_unknown_ones_refused() -> None:
    assert [normalise_language(code) for code in ("zh-CN", "ZH_tw", "nb", "en")] == ["zh", "zh", "no", "en"]
    with pytest.raises(R1Error) as error:
        normalise_language("klingon")
    assert error.value.code == Exit.USAGE
    assert "en" in LANGUAGES and len(LANGUAGES) > 50


@pytest.mark.parametrize(
    "text",
    [piece * 100_000 for piece in ("$", "\\[", "\\begin{a}", "\\frac{", "`", "a@", "aaaaa", "<a", "x_{", "$a\n", "a.b", "\ud800 \x00w")],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    start = time.process_time()
    count_words(text, "en")
    assert time.process_time() - start < 20  # a quadratic pattern takes minutes here; linear ones well under a second


def test_prose_keeps_words_and_drops_identifiers() -> None:
    assert prose_of("a 3-digit number, term(s) and f(x), my_name, x1, 2nd").split() == [
        "a", "-digit", "number,", "term(s)", "and", "(x),", ",", ",",
    ]  # fmt: skip


def test_nothing_heavy_is_imported_for_text_that_needs_no_detector() -> None:
    script = (
        "import sys; from r1cli.text.language import count_words; "
        "count_words('So the answer is five. 所以答案是五。', 'zh'); print('langdetect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        ("Let me think about this step by step.", 8, 0),
        ("我们先计算面积。", 0, 7),
        ("So $x = 5$, 因此答案是 5.", 1, 5),
        ("Using `numpy.dot(a, b)` we get the product.", 5, 0),
        ("设 $x$ 为苹果的数量，则 $2x+3=11$。", 0, 8),
        ("See https://example.org/a/b for the details of the proof.", 7, 0),
        ("We don't need another attempt; it's fine.", 7, 0),
        ("该函数 f(x) 在区间 (0,1) 上单调递增", 0, 11),
        ("\\begin{align} a &= b \\end{align} Hence the claim follows.", 4, 0),
        ("Wait, 等一下, let me 重新 check.", 4, 5),
        ("```python\nfor i in range(3): print(i)\n```\n这段代码打印三个数字。", 0, 10),
        ("By Vieta, \\(r_1 + r_2 = -\\frac{b}{a}\\), so the sum is negative.", 7, 0),
        ("答：小明还剩下15个苹果，比小红多3个。", 0, 14),
        ("First, note that 3 apples cost $4.50 and 2 pears cost $3.", 8, 0),
        ("根据 Pythagorean theorem，斜边等于 5。", 2, 6),
        ("$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$", 0, 0),
        ("I think, therefore I am.", 5, 0),
        ("If n is even then n^2 is even; otherwise it is odd.", 10, 0),
    ],
)
def test_counts_by_hand(text: str, english: int, chinese: int) -> None:
    """Words as people count them: a run of letters is one, a Han character is one, mathematics, code and URLs are none."""
    assert (count_words(text, "en").target, count_words(text, "zh").target) == (english, chinese)


def test_ctrl_c_while_langdetect_reads_its_profiles_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """langdetect takes whatever is raised in there for a broken profile."""
    from langdetect import detector_factory

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(detector_factory, "LangProfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            language._factory.__wrapped__(("en", "fr"))
    assert language._factory.__wrapped__(("en", "fr")).langlist == ["en", "fr"]
