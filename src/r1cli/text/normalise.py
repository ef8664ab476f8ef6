r"""Bring the characters of an answer to the plain LaTeX that the parser reads.

Full-width and mathematical alphabets, minus signs, invisible characters, superscripts, Chinese punctuation and connectives, Unicode
operators. Text that is ASCII already is returned as it is. What this leaves alone: words, units, macros (see `rewards/math`).
"""

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ", "0123456789+-nx")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ]+")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-zπ]|(?=[({]))")
_DEGREE = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_SURROGATE = re.compile("[\ud800-\udfff]")

# zero-width and direction marks, soft hyphen, BOM, variation selectors
_INVISIBLE = {ord(c): None for c in "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\ufe0e\ufe0f\u200e\u200f"}

_CHARACTERS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "－": "-", "＋": "+", "×": r"\times ",
    "✕": r"\times ", "⋅": r"\cdot ",
    "·": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "／": "/", "±": r"\pm ",
    "∓": r"\mp ", "≤": r"\le ", "≦": r"\le ",
    "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∞": r"\infty ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "°": r"^{\circ}", "º": r"^{\circ}",
    "∘": r"^{\circ}", "℃": r"^{\circ}\text{C}",
    "℉": r"^{\circ}\text{F}", "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ",
    "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "Δ": r"\Delta ", "Ω": r"\Omega ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "→": r"\to ", "′": "'", "’": "'", "‘": "'",
    "“": '"', "”": '"', "…": r"\ldots ", "⋯": r"\cdots ",
    "（": "(", "）": ")", "【": "[", "】": "]", "［": "[", "］": "]", "｛": r"\{", "｝": r"\}", "〈": r"\langle ",
    "〉": r"\rangle ", "⟨": r"\langle ",
    "⟩": r"\rangle ", "，": ",", "、": ",", "；": ";", "：": ":", "。": ".", "．": ".", "＝": "=", "＜": "<", "＞": ">",
    "˚": r"^{\circ}", "％": "%", "‰": "%0", "∶": ":",
    "｜": "|", "∣": "|", "～": "~", "﹪": "%", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "㎝": "cm", "㎞": "km", "㎏": "kg",
    "㎡": "m^2", "∠": r"\angle ", "△": r"\triangle ", "∖": r"\setminus ", "★": "*", "＊": "*", "∗": "*", "¬": r"\neg ",
}  # fmt: skip
_NAMED = """
    εepsilon ζzeta ηeta ιiota κkappa νnu ξxi ρrho τtau υupsilon χchi ψpsi ϕphi ϵepsilon ϑvartheta ΓGamma ΘTheta ΛLambda ΞXi ΠPi ΣSigma
    ΦPhi ΨPsi ⊂subset ⊆subseteq ⊃supset ∧land ∨lor ⇒Rightarrow ⇔iff ⟹implies ⊥perp ∥parallel ∼sim ≅cong ℓell ∂partial ∇nabla ∑sum
    ∏prod ∫int ∴therefore ≃simeq
"""  # a character and its macro
_CHARACTERS |= {entry[0]: f"\\{entry[1:]} " for entry in _NAMED.split()}
_TABLE = {ord(k): v for k, v in _CHARACTERS.items()}
_CHINESE_WORDS = (
    ("或者", " or "),
    ("或", " or "),
    ("以及", " and "),
    ("并且", " and "),
    ("和", " and "),
    ("且", " and "),
    ("与", " and "),
    ("及", " and "),
)
_RELATION_WORDS = (("大于等于", r"\ge "), ("大于或等于", r"\ge "), ("不小于", r"\ge "), ("小于等于", r"\le "), ("小于或等于", r"\le "),
                   ("不大于", r"\le "), ("不等于", r"\ne "), ("大于", ">"), ("小于", "<"), ("等于", "="))  # fmt: skip
_BEFORE_NUMBER = re.compile(r"^\s*(?:一共|总共|共|第|大约|约为|约|还剩|剩下|得|等于)+\s*(?=\d)")
_AFTER_NUMBER = re.compile(r"(?<=[\d}])\s*(?:\\text\{\s*)?\([\u4e00-\u9fff/]{1,6}\)\s*\}?\s*$")  # 9(元)
_MINUS_WORD = re.compile(r"负(?=[\d\\])")
_RATIO_WORD = re.compile(r"(?<=\d)\s*比\s*(?=\d)")
_PERCENT_WORDS = re.compile(r"百分之\s*(\d+(?:\.\d+)?)")
_HAN_DEGREES = re.compile(r"(?<=[\d}])\s*度(?!\w)")


def plain_characters(text: str) -> str:
    r"""The text with Unicode forms replaced by ASCII and LaTeX; Chinese connectives between values become `or` and `and`.

    Direction overrides and lone surrogates are kept apart from digits, so that they never join two numbers or turn one round.
    """
    if text.isascii():
        return text
    text = text.translate(_INVISIBLE)
    text = _RAISED.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_TABLE)
    text = _ROOT.sub(lambda m: _DEGREE[m[1]] + ("{" + m[2] + "}" if m[2] else ""), text)
    text = _root_of_brackets(text)
    text = _vulgar_fractions(text)
    text = unicodedata.normalize("NFKC", _SURROGATE.sub("\ufffd", text)).translate(_TABLE)
    text = _PERCENT_WORDS.sub(r"\1%", text)
    text = _AFTER_NUMBER.sub("", _BEFORE_NUMBER.sub("", _RATIO_WORD.sub(":", _MINUS_WORD.sub("-", text))))
    for word, plain in _RELATION_WORDS:
        if word in text:
            text = text.replace(word, plain)
    text = _HAN_DEGREES.sub(r"^{\\circ}", text)
    for word, plain in _CHINESE_WORDS:
        text = text.replace(word, plain)
    return text


def _root_of_brackets(text: str) -> str:
    r"""`\sqrt(x+1)`, written by people for \sqrt{x+1}, with its bracket turned into braces; brackets that do not close are left."""
    at = text.find(r"\sqrt(")
    while at >= 0:
        start = at + len(r"\sqrt(")
        depth, end = 1, start
        while end < len(text) and depth:
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        if depth:
            return text
        text = text[: start - 1] + "{" + text[start : end - 1] + "}" + text[end:]
        at = text.find(r"\sqrt(", start)
    return text


_VULGAR = re.compile(r"(\d*)\s?([¼-¾⅐-⅞])")


def _vulgar_fractions(text: str) -> str:
    """`2½` as 2\\frac{1}{2}, a mixed number."""

    def latex(match: re.Match[str]) -> str:
        top, _, bottom = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
        return f"{match[1]}\\frac{{{top}}}{{{bottom}}}"

    return _VULGAR.sub(latex, text)
