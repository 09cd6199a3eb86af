"""The corpus class and the shipped WordNet list."""

import copy
import hashlib
import importlib.util
import json
import lzma
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

from dnm_sklearn.corpus import Corpus, corpus_names, load_corpus
from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.corpus.wordnet import lexicographer_files

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "dnm_sklearn" / "corpus" / "data"

PINNED_FILES = {
    "noun.Tops": 50, "noun.act": 5890, "noun.animal": 7362, "noun.artifact": 10329,
    "noun.attribute": 2728,
    "noun.body": 1979, "noun.cognition": 2766, "noun.communication": 5100, "noun.event": 996,
    "noun.feeling": 411, "noun.food": 2477, "noun.group": 2407, "noun.location": 2946,
    "noun.motive": 41,
    "noun.object": 1500, "noun.person": 9627, "noun.phenomenon": 628, "noun.plant": 7630,
    "noun.possession": 997, "noun.process": 719, "noun.quantity": 1195, "noun.relation": 411,
    "noun.shape": 328, "noun.state": 3410, "noun.substance": 2923, "noun.time": 930,
    "adj.all": 10994, "adj.pert": 3394, "adj.ppl": 60,
}  # fmt: skip
# selection -> nouns, adjectives, fingerprint
PINNED_SELECTIONS = {
    "wordnet": (67186, 12217, "46721c36aa179752891d3261ba3e8588"),
    "wordnet-neglabel": (58514, 12280, "4690ca11800265d2af2b5962e8615b75"),
    "wordnet-csp": (47287, 10206, "ae73a6af04dfb04c007ffe8233d334b7"),
}


@pytest.fixture
def words():
    return Corpus(
        ["oak", "teapot", "rusty", "Zürich"],
        ["noun", "noun", "adjective", "noun"],
        ["noun.plant", "noun.artifact", "adj.all", ""],
        name="words",
    )


# --------------------------------------------------------------------------------- the shipped list


def test_counts_of_files_are_pinned():
    assert {name: len(words) for name, words in lexicographer_files().items()} == PINNED_FILES
    assert list(lexicographer_files()) == list(PINNED_FILES)


@pytest.mark.parametrize(
    ("file", "authors"),
    [("noun.artifact", 10345), ("noun.plant", 7631), ("noun.person", 9619), ("adj.pert", 3400)],
)
def test_counts_of_files_are_the_authors_within_one_percent(file, authors):
    assert len(lexicographer_files()[file]) == pytest.approx(authors, rel=0.01)


def test_adj_all_is_in_the_authors_range():
    assert 10_000 <= len(lexicographer_files()["adj.all"]) <= 11_000


@pytest.mark.parametrize("name", PINNED_SELECTIONS)
def test_selections_are_pinned(name):
    corpus = load_corpus(name)
    n_nouns, n_adjectives, fingerprint = PINNED_SELECTIONS[name]
    assert (len(corpus), int(corpus.is_adjective.sum())) == (n_nouns + n_adjectives, n_adjectives)
    assert corpus.fingerprint == fingerprint
    assert not corpus.is_adjective[:n_nouns].any()
    assert len(set(corpus.names)) == len(corpus)
    assert corpus.name == name
    assert all(
        word == word.strip().lower() and "_" not in word and "(" not in word for word in corpus
    )


def test_selections_against_the_authors_counts():
    """Nouns within 1 %. CSP's adjectives are 9.8 % above the authors': Notes of load_corpus."""
    csp = load_corpus("wordnet-csp")
    assert (~csp.is_adjective).sum() == pytest.approx(47_327, rel=0.01)
    assert csp.is_adjective.sum() == pytest.approx(9_293, rel=0.10)
    assert len(csp) == pytest.approx(56_620, rel=0.016)
    assert len(load_corpus("wordnet-neglabel")) == pytest.approx(70_000, rel=0.012)


def test_selections_leave_their_files_out():
    neglabel, csp = load_corpus("wordnet-neglabel"), load_corpus("wordnet-csp")
    assert set(PINNED_FILES) - set(neglabel.lexname) == {"noun.animal", "noun.food"}
    left_out = {
        "noun.animal",
        "noun.food",
        "noun.person",
        "noun.quantity",
        "noun.group",
        "adj.pert",
    }
    assert set(PINNED_FILES) - set(csp.lexname) == left_out
    assert set(csp) <= set(neglabel) <= set(load_corpus("wordnet"))


def test_a_word_is_a_noun_before_it_is_an_adjective_and_stands_under_its_first_file():
    files = lexicographer_files()
    corpus = load_corpus("wordnet")
    where = {word: i for i, word in enumerate(corpus)}
    both = set(files["adj.all"]) & set(files["noun.artifact"])
    assert len(both) > 50
    assert not corpus.is_adjective[[where[word] for word in both]].any()
    shared = set(files["noun.act"]) & set(files["noun.artifact"])
    assert set(corpus.lexname[[where[word] for word in shared]]) <= {"noun.Tops", "noun.act"}


def test_order_is_by_file_then_by_database():
    corpus = load_corpus("wordnet-neglabel")
    order = [
        file for i, file in enumerate(corpus.lexname) if i == 0 or corpus.lexname[i - 1] != file
    ]
    assert order == [file for file in PINNED_FILES if file not in {"noun.animal", "noun.food"}]
    assert corpus[:3].names == ("entity", "physical entity", "abstraction")


def test_shipped_files_are_small_licensed_and_recorded():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_500_000
    licence = (DATA / "WORDNET_LICENSE.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence
    notices = (ROOT / "THIRD_PARTY_NOTICES").read_text(encoding="utf-8")
    assert " ".join(licence.split()) in " ".join(notices.split())
    record = json.loads((DATA / "wordnet30.json").read_text(encoding="utf-8"))
    assert record["counts"] == PINNED_FILES
    assert set(record["inputs_sha256"]) == {"data.noun", "data.adj", "index.noun"}
    for file, digest in (("wordnet30.txt.xz", "list"), ("wordnet30_nouns.txt.xz", "nouns")):
        text = lzma.decompress((DATA / file).read_bytes())
        assert hashlib.sha256(text).hexdigest() == record[f"{digest}_sha256"]


def test_build_script_follows_the_rule(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "build_wordnet", ROOT / "tools" / "build_wordnet.py"
    )
    build_wordnet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_wordnet)
    head = "  1 Licence of the list  \n  2   \n  3 WITHOUT WARRANTY  \n"
    noun = (
        "00000001 20 n 02 Big_Oak 0 tree 0 001 ~ 00000002 n 0000 | x\n"
        "00000005 20 n 01 big_oak 0 002 @ 00000001 n 0000 #m 00000001 n 0000 | y\n"
        "00000007 20 n 01 Old_Oak 0 001 @i 00000005 n 0000 | z @ 00000001 n 0000\n"
    )
    senses = "  1 x\nbig_oak n 2 2 @ ~ 2 1 00000005 00000001\ntree n 1 0 1 1 00000001\n"
    senses += "old_oak n 1 1 @i 1 0 00000007\n"
    adjective = "00000003 00 s 01 Asleep(p) 0 000 | x\n00000004 44 a 01 galore(ip) 0 000 | y\n"
    (tmp_path / "data.noun").write_text(head + noun, encoding="utf-8")
    (tmp_path / "data.adj").write_text(head + adjective, encoding="utf-8")
    (tmp_path / "index.noun").write_text(senses, encoding="utf-8")
    columns = ["1\n4\n2", "20\n20\n20", ".\n1\ni1", "Big_Oak:2 tree\nbig_oak\nOld_Oak\n"]
    assert build_wordnet.read_relations(tmp_path) == "\n\n".join(columns)
    found = {name: words for name, words in build_wordnet.read_lists(tmp_path).items() if words}
    assert found == {
        "noun.plant": ["big oak", "old oak"],
        "adj.all": ["asleep"],
        "adj.ppl": ["galore"],
    }
    made = build_wordnet.build(tmp_path)
    assert made == build_wordnet.build(tmp_path)
    assert made["WORDNET_LICENSE.txt"] == b"Licence of the list\n\nWITHOUT WARRANTY\n"
    assert tuple(build_wordnet.FILES.values()) == tuple(PINNED_FILES)


def test_load_corpus_is_cached_and_names_the_nearest():
    assert load_corpus("wordnet-csp") is load_corpus("wordnet-csp")
    assert corpus_names() == tuple(PINNED_SELECTIONS)
    with pytest.raises(ValueError, match="Did you mean 'wordnet-neglabel'"):
        load_corpus("wordnet-neglable")
    with pytest.raises(ValueError, match="no shipped corpus 'qqq'. Known: 'wordnet'"):
        load_corpus("qqq")
    with pytest.raises(TypeError, match="got list"):
        load_corpus(["wordnet"])


def test_import_is_cheap_and_fingerprint_is_the_same_in_every_process():
    code = (
        "import sys; from dnm_sklearn.corpus import Corpus, load_corpus\n"
        "from dnm_sklearn.corpus.wordnet import lexicographer_files\n"
        "heavy = {'sklearn', 'torch', 'open_clip', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, 'expensive import'\n"
        "assert lexicographer_files.cache_info().currsize == 0, 'data read at import'\n"
        "own = Corpus(['é', '日本', 'a'], ['noun', 'adjective', 'noun'])\n"
        "print(own.fingerprint, load_corpus('wordnet').fingerprint)"
    )
    here = Corpus(["é", "日本", "a"], ["noun", "adjective", "noun"]).fingerprint
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == [here, PINNED_SELECTIONS["wordnet"][2]]


# ---------------------------------------------------------------------------------------- the class


def test_duplicates_are_removed_keeping_the_first():
    corpus = Corpus(
        [" oak", "iron", "oak ", "iron"],
        ["noun", "adjective", "noun", "noun"],
        ["a", "b", "c", "d"],
    )
    assert corpus.names == ("oak", "iron")
    assert corpus.part_of_speech.tolist() == ["noun", "adjective"]
    assert corpus.lexname.tolist() == ["a", "b"]
    assert Corpus(["Oak", "oak"]).names == ("Oak", "oak")


@pytest.mark.parametrize("make", [list, tuple, np.array, iter, lambda names: dict.fromkeys(names)])
def test_any_ordered_iterable_of_strings_will_do(make):
    corpus = Corpus(make(["oak", "teapot"]))
    assert corpus.names == ("oak", "teapot")
    assert all(type(word) is str for word in corpus.names)
    assert corpus.part_of_speech.tolist() == ["noun", "noun"]
    assert corpus.lexname.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "names is empty"),
        ((["oak", "  "],), ValueError, r"names\[1\] is blank"),
        ((["oak", 3],), TypeError, r"names\[1\] is 3 of type int"),
        ((["oak", None],), TypeError, r"names\[1\] is None"),
        (("oak",), TypeError, "single str 'oak'"),
        ((b"oak",), TypeError, "single bytes"),
        (({"oak"},), TypeError, "is a set"),
        ((None,), TypeError, "got NoneType"),
        ((["oak"], ["verb"]), ValueError, r"part_of_speech\[0\] is 'verb' \(name 'oak'\)"),
        ((["oak"], ["noun", "noun"]), ValueError, "part_of_speech has 2 entries for 1 names"),
        ((["oak"], None, [3]), TypeError, r"lexname\[0\] is 3"),
        ((["oak"], None, []), ValueError, "lexname has 0 entries for 1 names"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Corpus(*arguments)


def test_immutable(words):
    for attribute in ("names", "part_of_speech", "name", "new"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(words, attribute, ())
    with pytest.raises(AttributeError, match="immutable"):
        del words.names
    for column in (words.part_of_speech, words.lexname, load_corpus("wordnet").lexname):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = "adjective"
    given = np.array(["noun", "noun"])
    corpus = Corpus(["a", "b"], given)
    given[:] = "adjective"
    assert not corpus.is_adjective.any()
    with pytest.raises(TypeError):
        lexicographer_files()["noun.act"] = ()


def test_copies_are_the_object_itself(words):
    class Holder(BaseEstimator):
        def __init__(self, corpus=None):
            self.corpus = corpus

    assert clone(words) is words
    assert copy.copy(words) is words
    assert copy.deepcopy([words])[0] is words
    assert clone(Holder(words)).corpus is words


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(words, protocol):
    back = pickle.loads(pickle.dumps(words, protocol))
    assert back == words
    assert back.name == "words"
    assert back.names == words.names
    np.testing.assert_array_equal(back.part_of_speech, words.part_of_speech)
    np.testing.assert_array_equal(back.lexname, words.lexname)
    assert not back.lexname.flags.writeable
    assert back.part_of_speech.dtype == words.part_of_speech.dtype


def test_pickle_of_wordnet_is_compact():
    corpus = load_corpus("wordnet")
    packed = pickle.dumps(corpus)
    assert len(packed) < 1_800_000
    assert pickle.loads(packed).fingerprint == corpus.fingerprint


def test_equality_is_by_content(words):
    again = Corpus(words.names, words.part_of_speech, words.lexname, name="other label")
    assert again == words
    assert hash(again) == hash(words)
    assert len({again, words}) == 1
    assert words != Corpus(words.names)
    assert words != words[::-1]
    assert words != list(words)
    assert Corpus(["ab", "c"]).fingerprint != Corpus(["a", "bc"]).fingerprint


def test_indexing(words):
    assert words[0] == "oak"
    assert words[np.int64(-1)] == "Zürich"
    assert words[1:3].names == ("teapot", "rusty")
    assert words[words.is_adjective].names == ("rusty",)
    assert words[[True, False, False, True]].names == ("oak", "Zürich")
    picked = words[[3, -2, 3]]
    assert picked.names == ("Zürich", "rusty")
    assert picked.part_of_speech.tolist() == ["noun", "adjective"]
    assert picked.lexname.tolist() == ["", "adj.all"]
    assert words[np.array([1], dtype=np.uint8)].names == ("teapot",)
    assert words[:] is words
    assert np.asarray(words).tolist() == list(words)
    for wrong in (4, [4], [-5], [True, False]):
        with pytest.raises(IndexError):
            words[wrong]
    for wrong in ("oak", ["oak"], 1.0, [1.0], None, [[0, 1]], True):
        with pytest.raises(TypeError, match="indexed by"):
            words[wrong]
    for empty in (slice(0, 0), [], np.zeros(4, dtype=bool)):
        with pytest.raises(ValueError, match="keeps none of its 4 names"):
            words[empty]


def test_filter(words):
    assert words.filter() is words
    assert words.filter(part_of_speech="adjective").names == ("rusty",)
    assert words.filter(lexname=["noun.plant", ""]).names == ("oak", "Zürich")
    assert words.filter(exclude_lexname="noun.plant", part_of_speech="noun").names == (
        "teapot",
        "Zürich",
    )
    assert words.filter(exclude_lexname="noun.animal") is words
    assert words.filter(where=str.islower).names == ("oak", "teapot", "rusty")
    assert words.filter(where=~words.is_adjective).name == "words (part)"
    with pytest.raises(ValueError, match="this filter keeps none"):
        words.filter(lexname="noun.animal")
    with pytest.raises(ValueError, match=r"lexname holds 'noun.planet'"):
        words.filter(lexname="noun.planet")
    with pytest.raises(ValueError, match="part_of_speech must be one of"):
        words.filter(part_of_speech="nouns")
    with pytest.raises(ValueError, match=r"bool mask of shape \(4,\)"):
        words.filter(where=[0, 1, 2])


def test_without(words):
    assert words.without(["OAK ", "not there"]).names == ("teapot", "rusty", "Zürich")
    assert words.without(["OAK"], ignore_case=False) is words
    assert words.without("Teapot").names == ("oak", "rusty", "Zürich")
    decomposed = "zu\u0308rich"
    assert "Zürich" not in words.without([decomposed]).names
    assert words.without([]) is words
    with pytest.raises(ValueError, match="keeps none"):
        words.without(words.names)


def test_repr(words):
    assert repr(words) == "Corpus('words', 4 names: 3 nouns, 1 adjective)"
    assert repr(load_corpus("wordnet")).startswith("Corpus('wordnet', 79,403 names:")


# ------------------------------------------------------------------------------------------ files


def test_file_round_trip(tmp_path):
    path = tmp_path / "wörter 日本.txt"
    names = [
        "oak",
        "#hash",
        "\\#slash",
        "\\\\two",
        "\\one",
        "C#",
        "日本",
        "non breaking\u00a0space",
        "line\u2028sep",
    ]
    corpus = Corpus(names, ["adjective"] * 2 + ["noun"] * 7, ["", "adj.all", "noun.act"] + [""] * 6)
    corpus.to_file(path)
    back = Corpus.from_file(path)
    assert back == corpus
    assert back.names == tuple(names)
    assert back.name == path.name
    load_corpus("wordnet").to_file(path)
    assert Corpus.from_file(str(path), name="wordnet") == load_corpus("wordnet")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_files_of_others(tmp_path, encoding, end):
    path = tmp_path / "words.txt"
    text = end.join(
        ["  Käfer ", "", "# comment", "rusty\tadjective", "Käfer", "oak\tnoun\tnoun.plant", " "]
    )
    path.write_bytes(text.encode(encoding))
    corpus = Corpus.from_file(path)
    assert corpus.names == ("Käfer", "rusty", "oak")
    assert corpus.part_of_speech.tolist() == ["noun", "adjective", "noun"]
    assert corpus.lexname.tolist() == ["", "", "noun.plant"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "holds no names"),
        (b"", "holds no names"),
        (b"oak\nK\xe4fer\n", "line 2: not text in UTF-8"),
        (b"oak\nelm\tverb\n", "line 2: a line is a name and"),
        (b"\tadjective\n", "line 1: a line is a name and"),
        (b"oak\tnoun\tnoun.plant\tmore\n", "line 1: a line is a name and"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Corpus.from_file(path)
    assert str(path) in str(error.value)


def test_names_that_a_file_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="tab or a line break"):
        Corpus(["a\tb"]).to_file(tmp_path / "words.txt")


def test_check_corpus(tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "words.txt"
    words.to_file(path)
    assert check_corpus(words) is words
    assert check_corpus(path) == words
    assert check_corpus("words.txt") == words
    assert check_corpus(["oak"]).names == ("oak",)
    (tmp_path / "wordnet").write_text("not this", encoding="utf-8")
    assert check_corpus("wordnet") is load_corpus("wordnet")
    for missing in (tmp_path / "no.txt", "no.txt", "some/where", tmp_path):
        with pytest.raises(FileNotFoundError, match="shipped selections: 'wordnet'"):
            check_corpus(missing)
    with pytest.raises(ValueError, match="Did you mean 'wordnet-csp'"):
        check_corpus("wordnet_csp")
    for wrong in (None, 3, b"wordnet"):
        with pytest.raises(TypeError, match="corpus cannot be"):
            check_corpus(wrong)
    with pytest.raises(ValueError, match="names is empty"):
        check_corpus([])
