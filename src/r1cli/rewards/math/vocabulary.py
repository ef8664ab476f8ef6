"""The words and macros of mathematical answers: what each one is to the lexer."""

import re


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = _names("""
    sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot asin acos atan ln log lg exp sqrt gcd lcm max
    min abs det
""")
RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}
CONNECT = {"or": "or", "and": "and", "ou": "or", "oder": "or", "und": "and", "et": "and"}
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf", "varpi": "pi"}
RELATIONS = {
    "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "in": "in", "equiv": "=", "approx": "approx", "sim": "approx", "simeq": "approx",
    "colon": ":", "to": "to", "rightarrow": "to",
    "mid": "mid", "notin": "notin", "implies": "to", "Rightarrow": "to", "subset": "subset", "subseteq": "subset",
    "pmod": "pmod", "mod": "pmod", "bmod": "pmod", "cong": "cong", "iff": "iff", "Leftrightarrow": "iff", "supset": "supset",
    "perp": "perp", "parallel": "parallel",
}  # fmt: skip
OPERATORS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "pm": "+-", "mp": "-+", "cup": "cup", "cap": "cap", "setminus": "minus",
    "backslash": "minus", "bigcup": "cup", "cdotp": "*", "bullet": "*",
}  # fmt: skip
OPENERS = {"{": "{", "(": "(", "[": "[", r"\{": r"\{", "lbrace": r"\{", "lbrack": "[", "langle": "<", "lfloor": "floor", "lceil": "ceil",
            "lvert": "|(", "lVert": "|("}  # fmt: skip
CLOSERS = {"}": "}", ")": ")", "]": "]", r"\}": r"\}", "rbrace": r"\}", "rbrack": "]", "rangle": ">", "rfloor": "floor", "rceil": "ceil",
            "rvert": "|)", "rVert": "|)"}  # fmt: skip
IGNORED = _names("""
    left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle textstyle scriptstyle
    limits nolimits rm bf it tt cal mathstrut strut hfill boldmath normalsize large Large LARGE huge Huge small tiny therefore because
    checkmark nonumber noindent
    textdollar dollar pounds euro yen
""")
SPACES = _names("quad qquad enspace thinspace space")
FONTS = _names("""
    text textbf textit textrm textsf texttt textnormal mbox hbox mathrm mathbf mathit mathsf mathtt boldsymbol bm pmb
    operatorname emph underline mathnormal ensuremath boxed fbox
""")
GREEK = _names("""
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Re Im triangle
    angle ldots cdots dots vdots ddots prime nabla aleph square sphericalangle measuredangle odot
""")
STRUCTURE = _names("""
    frac dfrac tfrac cfrac binom dbinom tbinom sqrt overline bar overrightarrow vec hat widehat tilde dot mathbb mathcal
    begin end emptyset varnothing circ degree color textcolor over choose
""")
BIG = _names("sum prod int iint iiint oint lim partial forall exists neg not")

EMPTY = _names("phantom hspace vspace tag label hphantom vphantom")
SHORT_UNITS = _names("""
    cm mm km kg mg ft lb lbs oz hr hrs min sec mi yd pt qt gal ml mol hz mph am pm yr yrs pct in deg rad ev cal
""")


def is_wordlike(word: str) -> bool:
    """Whether letters in a row are a word or a unit, not a product of variables: known units, or four letters with a vowel."""
    low = word.lower()
    return (
        low in SHORT_UNITS
        or low == "no"
        or (len(word) >= 3 and (len(word) > 3 or word[1:].islower()) and bool(re.search("[aeiou]", low)) and word[1:] == low[1:])
    )
