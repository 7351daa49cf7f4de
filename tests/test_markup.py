"""Tags go where their words went: laws of random trees, and translations of marked texts."""

import html
import random
import re
import time
import tracemalloc

import pytest
from tiny_cli import fails, run

from seq2attn import load
from seq2attn.alignment.markup import MAX_DEPTH, Segment, parse
from seq2attn.alignment.markup_transfer import parts, transfer
from seq2attn.alignment.word_alignment import AlignmentError, Link
from seq2attn.errors import Seq2attnError

TAG = re.compile(r"<(/?)(\w+)[^>]*?(/?)>")
IDENTICAL = [
    ("<p>Das ist <b>ein</b> Haus.</p>", "html"),
    ("Das <b>Haus</b>, (<i id='x'>so</i>) <br> ja<br/>nein.", "html"),
    ("Ich <a href='x'><b>sehe <i>das</i></b> Haus</a>!", "html"),
    ("<ul>\n <li>Eins &amp; zwei</li>\n <li><em>drei</em></li>\n</ul>\n", "html"),
    ("<b>x <br></b> y <code>ls -l <b>z</b></code> z", "html"),
    ("a <b>b <p>c</b> d", "html"),
    ("<!DOCTYPE html><script>if (a < b) {}</script>Text <span translate=no>So <i>Nie</i></span> da", "html"),
    ("Leer <b></b> hier <!-- <b> --> dort", "html"),
    ('<g id="1">A</g> <x id="2"/> b AT&amp;T <ph>{0}</ph>', "xml"),
    ("Hallo {name}, noch %d Tage bis ⟦1⟧; %(x)s ${y} {{z}}!", "placeholders"),
    ("", "html"),
    ("100% sicher", "placeholders"),
]


def marked(text, kind, translate):
    """The marked text, each segment translated: a function of its words returns the new words and links."""
    out = ""
    for part in parse(text, kind):
        if isinstance(part, Segment):
            source = part.text.split()
            target, links = translate(source)
            out += transfer(part, " ".join(target), (source, target), links, kind)
        else:
            out += part
    return out


def same(words):
    return words, [Link(index, index) for index in range(len(words))]


@pytest.mark.parametrize(("text", "kind"), IDENTICAL)
def test_an_identity_alignment_gives_identical_markup(text, kind):
    assert marked(text, kind, same) == text


def tree(draw, depth=0):
    """A random tree: words with signs, elements, empty elements; tags stand at words and signs."""
    pieces = []
    for _ in range(draw.randint(1, 4)):
        what = draw.random()
        if what < 0.5 or depth == 3:
            pieces.append(draw.choice(["Haus", "und", "(ja)", "nein,", "x-y", "a &lt; b", "Ende."]))
        elif what < 0.85:
            name = draw.choice(["b", "i", "a", "span"])
            number = draw.randint(0, 10**9)
            pieces.append(f'<{name} id="{number}" class="c{number}">{tree(draw, depth + 1)}</{name}>')
        else:
            pieces.append(f'<img src="{draw.randint(0, 10**9)}">')
    return " ".join(pieces)


def plain(text):
    return html.unescape(re.sub("<[^>]*>", "", text)).split()


@pytest.mark.parametrize("seed", range(60))
def test_laws_of_random_trees(seed):
    draw = random.Random(seed)
    text = tree(draw)
    assert marked(text, "html", same) == text

    def shuffled(words):
        target = draw.choices([*words, "neu", "(sehr)"], k=draw.randint(0, len(words) + 2))
        links = [Link(draw.randrange(len(words)), at) for at in range(len(target)) if draw.random() < 0.8]
        expected.extend(target)
        return target, links

    expected: list[str] = []
    out = marked(text, "html", shuffled)
    if not any(isinstance(part, Segment) for part in parse(text, "html")):
        return
    assert plain(out) == expected
    assert set(re.findall(r'class="\w+"', out)) == set(re.findall(r'class="\w+"', text))  # every element
    for once in (r'id="\d+"', r"<img[^>]*>"):
        assert sorted(re.findall(once, out)) == sorted(re.findall(once, text))
    stack = []
    for closing, name, _ in TAG.findall(out):
        if closing:
            assert stack.pop() == name
        elif name != "img":
            stack.append(name)
    assert not stack


@pytest.mark.parametrize("seed", range(20))
def test_placeholders_are_kept_byte_for_byte_and_once(seed):
    draw = random.Random(seed)
    words = draw.choices(["{name}", "%s", "%(a)s", "⟦7⟧", "Haus", "und", "(so)"], k=8)
    text = " ".join(words)

    def reversed_words(source):
        target = source[::-1]
        return target, [Link(len(source) - 1 - at, at) for at in range(len(target))]

    found = re.findall(r"\{name\}|%s|%\(a\)s|⟦7⟧", marked(text, "placeholders", reversed_words))
    assert sorted(found) == sorted(word for word in words if word not in ("Haus", "und", "(so)"))


def test_words_take_their_elements_along():
    (segment,) = parse("Ich <b>sehe</b> ein <i id='q'>rotes Haus</i> heute.", "html")
    target = ["Today", "I", "see", "a", "house", "of", "red."]
    links = [Link(*pair) for pair in ((5, 0), (0, 1), (1, 2), (2, 3), (4, 4), (3, 6))]
    out = transfer(segment, " ".join(target), (segment.text.split(), target), links, "html")
    assert out == "Today I <b>see</b> a <i id='q'>house of red.</i>"
    links[4] = Link(2, 4)  # split: the id is kept once; `of` goes with its left neighbour
    target[1:3], links[1:3] = ["red", "see"], [Link(3, 1), Link(1, 2)]
    out = transfer(segment, " ".join(target), (segment.text.split(), target), links, "html")
    assert out == "Today <i id='q'>red</i> <b>see</b> a house of <i>red.</i>"


LONG = {  # what took a time that grew with the square of its length, or worse
    "<code>": ("<code>" * 5_000, "html"),
    "code that ends once": ("<code>" * 5_000 + "</code>", "html"),
    "ends without beginnings": ("<ab>" * 5_000 + "</z>" * 5_000, "html"),
    "elements without text": ("<b>" * 5_000 + "</b>" * 5_000, "html"),
    "comments that do not end": ("<!--" * 20_000, "html"),
    "CDATA that does not end": ("<![CDATA[" * 20_000, "xml"),
    "untranslated elements of many names": ("".join(f"<a{n} translate=no>" for n in range(5_000)), "html"),
    "brackets": ("%(a" * 20_000 + ")", "placeholders"),
    "zeros": ("%" + "0" * 20_000, "placeholders"),
    "empty elements between words": ("x<br> " * 2_500 + "y", "html"),
    "a word of signs": ("a" + "-" * 20_000 + "a <b>x</b>", "html"),
}


@pytest.mark.parametrize("name", LONG)
def test_no_text_takes_more_than_a_time_that_grows_with_its_length(name):
    begin = time.thread_time()
    marked(*LONG[name], same)
    assert time.thread_time() - begin < 3  # of this thread alone; it was 6 to 11


def test_an_element_that_lost_all_its_words_is_found_at_once():
    (segment,) = parse("x" + " <b>x</b>" * 3_000 + " x", "html")
    begin = time.thread_time()
    out = transfer(segment, "x", (segment.text.split(), ["x"]), [Link(0, 0)], "html")
    assert time.thread_time() - begin < 3 and out.count("<b>") == 3_000


def test_letters_share_the_elements_around_them():
    text = "<b>" * MAX_DEPTH + "x" * 30_000 + "</b>" * MAX_DEPTH
    tracemalloc.start()
    (segment,) = (part for part in parse(text, "html") if isinstance(part, Segment))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6  # one for each letter: 25 MB
    assert segment.stacks == [tuple(range(MAX_DEPTH))] * 30_000


def test_elements_are_within_each_other_up_to_a_limit():
    deep = "<b>" * (MAX_DEPTH + 1) + "x" + "</b>" * (MAX_DEPTH + 1)
    with pytest.raises(AlignmentError, match="at most 100 elements within each other"):
        parse(deep, "html")
    assert parse("<b>" * 1000 + "x", "html")  # they do not end: none is around the text


def test_an_entity_with_too_many_digits_stays_as_it_is():
    (segment,) = parse(f"a &#{'1' * 5000}; b", "html")
    assert segment.text == f"a &#{'1' * 5000}; b"


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
def test_paragraphs_are_translated_sentence_by_sentence():
    from tiny_cli import MODEL

    model = load(MODEL, device="cpu")
    texts = ["Wo ist Tom?", "Ja.", "Tom ist hier."] * 4
    result = model.translate(f"<p><b>{' '.join(texts)}</b></p><p>Ja. <br> Nein.</p>", markup="html")
    alone = [one.text for one in model.translate([*texts, "Ja.", "Nein."])]
    assert [segment.text for segment in result.segments] == alone
    assert result.text.startswith(f"<p><b>{' '.join(alone[:12])}</b></p>")
    assert plain(result.text.replace("</p><p>", " ")) == " ".join(alone).split()


def test_a_comment_or_a_start_tag_that_does_not_end_is_text():
    (segment,) = parse("a <!-- b <code c", "html")
    assert segment.text == "a <!-- b <code c"
    assert marked("a <code title='<'>b</code> <code>c", "html", same) == "a <code title='<'>b</code> <code>c"


def test_an_element_that_lost_its_words_is_empty_where_they_stood():
    (segment,) = parse("Ich <b>sehe</b> es", "html")
    words = ["Ich", "sehe", "es"], ["I", "it"]
    out = transfer(segment, "I it", words, [Link(0, 0), Link(2, 1)], "html")
    assert out.replace(" ", "") == "I<b></b>it"


def test_parts_of_words_are_signs_and_cores():
    found = parts("(Ja), so ...", ["(Ja),", "so", "..."])
    assert [(part.start, part.end, part.word, part.kind) for part in found] == [
        (0, 1, 0, 0), (1, 3, 0, 1), (3, 5, 0, 2), (6, 8, 1, 1), (9, 12, 2, 1),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::seq2attn.errors.LengthWarning")
def test_a_model_translates_what_stands_without_its_tags(tmp_path):
    from tiny_cli import MODEL

    model = load(MODEL, device="cpu")
    text = "<p>Wo ist <b>Tom</b>?</p><p>Ja.</p>"
    result = model.translate(text, markup="html")
    expected = model.translate(["Wo ist Tom?", "Ja."])
    assert [segment.text for segment in result.segments] == [one.text for one in expected]
    assert plain(result.text.replace("</p><p>", " ")) == " ".join(one.text for one in expected).split()
    assert result.text.startswith("<p>") and result.text.count("<b>") >= 1 and str(result) == result.text
    assert [one.text for one in model.translate([text, ""], markup="html")] == [result.text, ""]
    assert run("translate", MODEL, "--markup", "html", stdin=f"{text}\n\n").stdout == f"{result.text}\n\n"
    with pytest.raises(Seq2attnError, match="knows no prefixes"):
        model.translate(text, markup="html", prefix="A")
    with pytest.raises(AlignmentError, match="html, xml or placeholders, got 'rtf'"):
        model.translate(text, markup="rtf")
    assert "leave out --scores" in fails("translate", MODEL, "--markup", "xml", "--scores")[1]
