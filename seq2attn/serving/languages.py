"""The codes and the English names of languages."""

_NAMES = {
    "ar": "Arabic", "az": "Azerbaijani", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh",
    "km": "Khmer", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian",
    "ml": "Malayalam", "mn": "Mongolian", "ms": "Malay", "mt": "Maltese", "nb": "Norwegian",
    "ne": "Nepali", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_SHORTER = {  # codes of three letters (ISO 639-3), as in the tags of some models
    "ara": "ar", "aze": "az", "bul": "bg", "ben": "bn", "cat": "ca", "ces": "cs", "cym": "cy",
    "dan": "da", "deu": "de", "ell": "el", "eng": "en", "epo": "eo", "spa": "es", "est": "et",
    "eus": "eu", "fas": "fa", "fin": "fi", "fra": "fr", "gle": "ga", "glg": "gl", "guj": "gu",
    "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "hye": "hy", "ind": "id", "isl": "is",
    "ita": "it", "jpn": "ja", "kat": "ka", "kaz": "kk", "khm": "km", "kor": "ko", "lit": "lt",
    "lav": "lv", "mkd": "mk", "mal": "ml", "mon": "mn", "msa": "ms", "mlt": "mt", "nob": "nb",
    "nep": "ne", "nld": "nl", "pol": "pl", "por": "pt", "ron": "ro", "rus": "ru", "sin": "si",
    "slk": "sk", "slv": "sl", "sqi": "sq", "srp": "sr", "swe": "sv", "swa": "sw", "tam": "ta",
    "tel": "te", "tha": "th", "tgl": "tl", "tur": "tr", "ukr": "uk", "urd": "ur", "uzb": "uz",
    "vie": "vi", "zho": "zh",
}  # fmt: skip


def code_of(text: str) -> str:
    """Return a code as it is listed: `DE` and `deu` are de, `de_DE` is de-de."""
    base, *rest = text.strip().lower().replace("_", "-").split("-")
    return "-".join((_SHORTER.get(base, base), *rest))


def is_language(code: str) -> bool:
    """Whether a code, of two or three letters, is that of a language with a name."""
    return code_of(code).partition("-")[0] in _NAMES


def same_language(own: str, asked: str) -> bool:
    """Whether a model's language is the one that is asked for: the same, or one of both is more exact."""
    one, other = code_of(own), code_of(asked)
    return one == other or one == other.partition("-")[0] or other == one.partition("-")[0]


def name_of(code: str) -> str:
    """Return the name of a language; its code if it has none here."""
    return _NAMES.get(code, code)
