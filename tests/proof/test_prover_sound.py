"""The prover is sound: on random rule code it says what running all values says, and each shortcut, broken, is seen.

A random function of two words and a flag is run on symbolic words, and on all 512 values of four bits each.
"""

import random
from itertools import product
from typing import Any

import pytest
import z3
from hypothesis import given
from hypothesis import strategies as st

from planted import D9, planted
from specctrl.model.kvm.state import Loaded
from specctrl.model.outcomes import GP, Fault
from specctrl.model.words import WORD
from specctrl.proof import answers, repair, terms
from specctrl.proof.answers import Impossible, Questions, SolverError, translated
from specctrl.proof.induction import prove_step
from specctrl.proof.repair import Assignment
from specctrl.proof.steps import STEPS
from specctrl.proof.symbolic import SymbolicError, assume, flag, paths, word, word_term
from specctrl.proof.terms import all_of, any_of, equal, not_, number, truth, value_of, variable, when

BITS = 0xF
X, Y, P = word("four.x"), word("four.y"), flag("four.p")
NAMES = [symbol.term.serial for symbol in (X, Y, P)]
VALUES = list(product(range(BITS + 1), range(BITS + 1), (False, True)))

# ---- random rule code: nested tuples, run by the same few lines on ints and on words

WORDS = st.recursive(
    st.sampled_from(["x", "y"]) | st.integers(0, BITS),
    lambda word: st.tuples(st.sampled_from(["&", "|", "^", "&~"]), word, word), max_leaves=4)
TESTS = st.tuples(st.sampled_from(["==", "!=", "set"]), WORDS, WORDS) | st.just("p")
FUNCTIONS = st.recursive(
    st.tuples(st.just("return"), WORDS) | st.just(("fault",)),
    lambda rest: st.tuples(st.just("if"), TESTS, rest, rest), max_leaves=6)
CLAIMS = st.lists(st.tuples(st.sampled_from(["==", "&==0"]), WORDS), min_size=1, max_size=3)


def computed(tree: Any, x: Any, y: Any) -> Any:
    """A word of a function."""
    match tree:
        case "x" | "y":
            return x if tree == "x" else y
        case int():
            return tree
        case operator, left, right:
            one, other = computed(left, x, y), computed(right, x, y)
            return {"&": lambda: one & other, "|": lambda: one | other, "^": lambda: one ^ other,
                    "&~": lambda: one & ~other & BITS if isinstance(other, int) else one & ~other}[operator]()
    raise AssertionError(tree)


def perform(function: Any, x: Any, y: Any, p: Any) -> Any:
    """The function, as rule code would have it; "#GP" if it faults."""
    match function:
        case "return", tree:
            return computed(tree, x, y)
        case ("fault",):
            raise Fault(GP)
        case "if", "p", then, otherwise:
            return perform(then if p else otherwise, x, y, p)
        case "if", (test, left, right), then, otherwise:
            one, other = computed(left, x, y), computed(right, x, y)
            held = one == other if test == "==" else one != other if test == "!=" else one & other
            return perform(then if held else otherwise, x, y, p)
    raise AssertionError(function)


def outcome(function: Any, x: Any, y: Any, p: Any) -> Any:
    """What it returns, or "#GP"."""
    try:
        return perform(function, x, y, p)
    except Fault:
        return "#GP"


def said(claim: tuple[str, Any], result: Any, x: Any, y: Any) -> Any:
    """A claim about what a function returns: true or false, or the term."""
    kind, tree = claim
    if isinstance(result, str):
        return truth(True) if x is X else True
    other = computed(tree, x, y)
    if x is X:
        result, other = word_term(result), word_term(other)
        return result == other if kind == "==" else result & other == 0
    return result == other if kind == "==" else result & other == 0


def compare(function: Any, claims: list[tuple[str, Any]]) -> None:
    """AssertionError where the prover says another thing of the function than all values do."""
    def run() -> Any:
        assume(X & ~BITS == 0)
        assume(Y & ~BITS == 0)
        return outcome(function, X, Y, P)

    found = list(paths(run))
    assignments = {values: Assignment(dict(zip(NAMES, values, strict=True))) for values in VALUES}
    taken: list[list[tuple[Any, ...]]] = [[] for _ in found]
    for values, assignment in assignments.items():
        on = [place for place, (path, _) in enumerate(found) if assignment.holds(path.conditions)]
        assert len(on) == 1, f"{values} is on {len(on)} paths"
        taken[on[0]].append(values)
        result = found[on[0]][1]
        shown = result if isinstance(result, str | int) else assignment.value(result.term)
        assert outcome(function, *values) == shown
    for there, (path, result) in zip(taken, found, strict=True):
        assert there, "a path that no value takes"
        for claim in claims:
            broken = [values for values in there if not said(claim, outcome(function, *values), *values[:2])]
            counterexample = path.failing([said(claim, result, X, Y)])
            assert bool(broken) == (counterexample is not None), f"{claim} on a path that is {path.conditions}"
            if counterexample is not None:
                assert tuple(counterexample.value(symbol.term) for symbol in (X, Y, P)) in broken


class TestRandomRuleCode:
    @given(FUNCTIONS, CLAIMS)
    def test_symbolic_and_exhaustive_runs_agree(self, function, claims):
        compare(function, claims)

    def test_a_fixed_sample_agrees(self):
        compare_all()


# ---- what terms are made of


def random_tree(chance: random.Random, depth: int) -> Any:
    """A word of a function, from a seed."""
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(["x", "y", chance.randint(0, BITS)])
    return (chance.choice(["&", "|", "^", "&~"]), random_tree(chance, depth - 1), random_tree(chance, depth - 1))


def random_function(chance: random.Random, depth: int) -> Any:
    """A function, from a seed."""
    if depth == 0 or chance.random() < 0.1:
        return ("return", random_tree(chance, 2)) if chance.random() < 0.8 else ("fault",)
    test = "p" if chance.random() < 0.2 else (
        chance.choice(["==", "!=", "set"]), random_tree(chance, 1), random_tree(chance, 1))
    return ("if", test, random_function(chance, depth - 1), random_function(chance, depth - 1))


def sample() -> list[tuple[Any, list[tuple[str, Any]]]]:
    """The same functions and claims each time."""
    chance = random.Random(4)
    return [(random_function(chance, 3), [(chance.choice(["==", "&==0"]), random_tree(chance, 1)) for _ in range(2)])
            for _ in range(40)]


SAMPLE = sample()


def compare_all() -> None:
    """AssertionError if the prover is wrong about any of the sample."""
    for function, claims in SAMPLE:
        compare(function, claims)


V, W, F, G = (variable(f"fold.{name}", wide=name in "vw") for name in "vwfg")
ZV, ZW, ZF, ZG = (translated(name) for name in (V, W, F, G))
CONSTANTS = st.sampled_from([0, 1, 3, 0x400, 1 << 63, WORD - 1, WORD]).map(lambda value: (
    number(value), z3.BitVecVal(value, 64)))
PLAIN = st.sampled_from([(V, ZV), (W, ZW)]) | CONSTANTS
FLAGS = st.sampled_from([(F, ZF), (G, ZG), (truth(True), z3.BoolVal(True)), (truth(False), z3.BoolVal(False))])


def bigger(pairs):
    """Terms and what Z3 has for them, made from others: words of words, and flags of flags and words."""
    words, flags = pairs
    return st.one_of(
        st.tuples(words, words).flatmap(lambda two: st.sampled_from([
            (two[0][0] & two[1][0], two[0][1] & two[1][1]), (two[0][0] | two[1][0], two[0][1] | two[1][1]),
            (two[0][0] ^ two[1][0], two[0][1] ^ two[1][1]), (two[0][0] - two[1][0], two[0][1] - two[1][1]),
            (~two[0][0], ~two[0][1])])),
        st.tuples(flags, words, words).map(lambda made: (
            when(made[0][0], made[1][0], made[2][0]), z3.If(made[0][1], made[1][1], made[2][1])))), st.one_of(
        st.tuples(words, words).map(lambda two: (equal(two[0][0], two[1][0]), two[0][1] == two[1][1])),
        st.tuples(flags, flags).flatmap(lambda two: st.sampled_from([
            (all_of(two[0][0], two[1][0]), z3.And(two[0][1], two[1][1])),
            (any_of(two[0][0], two[1][0]), z3.Or(two[0][1], two[1][1])),
            (equal(two[0][0], two[1][0]), two[0][1] == two[1][1]), (not_(two[0][0]), z3.Not(two[0][1]))])),
        st.tuples(flags, flags, flags).map(lambda three: (
            when(*(one[0] for one in three)), z3.If(*(one[1] for one in three)))))


def pairs_of(depth):
    """Words and flags, so deep."""
    words, flags = PLAIN, FLAGS
    for _ in range(depth):
        more_words, more_flags = bigger((words, flags))
        words, flags = words | more_words, flags | more_flags
    return words | flags


def proven_equal(left: Any, right: Any) -> bool:
    """Asked of Z3 alone."""
    solver = z3.Solver()
    solver.add(left != right)
    return solver.check() == z3.unsat


class TestTerms:
    @given(pairs_of(3))
    def test_a_folded_term_is_what_was_asked_for_for_all_values(self, pair):
        made, plain = pair
        assert proven_equal(translated(made), plain), made

    @given(pairs_of(3), *[st.sampled_from([0, 1, 2, 0x400, WORD, 1 << 63])] * 2, *[st.booleans()] * 2)
    def test_its_value_is_what_z3_computes(self, pair, v, w, f, g):
        made, plain = pair
        names = [(ZV, z3.BitVecVal(v, 64)), (ZW, z3.BitVecVal(w, 64)), (ZF, z3.BoolVal(f)), (ZG, z3.BoolVal(g))]
        expected = z3.simplify(z3.substitute(plain, *names))
        shown = value_of(made, dict(zip((name.serial for name in (V, W, F, G)), (v, w, f, g), strict=True)))
        assert shown == (expected.as_long() if made.wide else z3.is_true(expected))

    def test_the_same_formula_is_one_object(self):
        assert (V & W) is (W & V)
        assert not_(not_(F)) is F
        assert all_of(F, any_of(G, F)) is all_of(any_of(F, G), F)

    @pytest.mark.parametrize("wrong", [lambda: equal(V, F), lambda: when(F, V, G), lambda: V & True, lambda: bool(F)])
    def test_what_makes_no_sense_is_an_error(self, wrong):
        with pytest.raises(TypeError):
            wrong()


class TestAnswers:
    def test_values_that_z3_gives_are_evaluated(self, monkeypatch):
        monkeypatch.setattr(answers, "values_of", lambda _: Assignment({}))
        monkeypatch.setattr(answers, "repaired", lambda *_: None)
        with pytest.raises(SolverError, match="do not satisfy"):
            Questions().assignment([V == 3])

    def test_an_impossibility_is_found_again_only_whole(self):
        known = Impossible()
        known.add([F, not_(G)])
        assert known.among({F.serial, not_(G).serial, V.serial})
        assert not known.among({not_(G).serial})
        assert not known.among({F.serial, G.serial})

    def test_a_lemma_needs_its_premises(self, monkeypatch):
        monkeypatch.setattr(answers, "IMPOSSIBLE", Impossible())
        ask = Questions()
        assert ask.failing([V == 1, W == V], [W == 1]) is None
        assert ask.failing([W == V], [W == 1]) is not None

    def test_what_was_shown_is_not_asked_again(self, monkeypatch):
        monkeypatch.setattr(answers, "IMPOSSIBLE", Impossible())
        assert Questions().failing([V == 1, W == V], [W == 1]) is None
        monkeypatch.setattr(Questions, "ask", lambda *_: pytest.fail("it was shown already"))
        assert Questions().failing([G, V == 1, W == V], [W == 1]) is None

    def test_conditions_that_nothing_satisfies_are_asked_of_z3_once(self, monkeypatch):
        monkeypatch.setattr(answers, "IMPOSSIBLE", Impossible())
        assert Questions().assignment([V == 1, V == 2]) is None
        monkeypatch.setattr(Questions, "ask", lambda *_: pytest.fail("it is known already"))
        assert Questions().assignment([F, V == 1, V == 2]) is None


# ---- each shortcut, broken


def unchecked(near, conditions):
    """Values that were changed for one condition, and never evaluated under the others."""
    wrong = next((condition for condition in reversed(conditions) if not near.value(condition)), None)
    if wrong is None:
        return near
    try:
        return Assignment(near.names | repair.with_truth(wrong, True, near, {}))
    except repair.Stuck:
        return None


def one_too_few(self, conditions):
    """An unsatisfiable core that lost a condition."""
    whole = sorted(condition.serial for condition in conditions)
    self._by_latest.setdefault(whole[-1], []).append(frozenset(whole[1:] if len(whole) > 1 else whole))


def anywhere(self, serials):
    """A set that counts although only its latest condition is among those asked about."""
    return any(latest in serials for latest in self._by_latest)


def without_premises(self, conditions, owed, near=repair.NOTHING_SET, whole=Questions.failing):
    """What followed once is taken to follow from everything."""
    if near.holds(conditions) and not near.holds(owed):
        return near
    if answers.IMPOSSIBLE.among({not_(term).serial for term in owed}):
        return None
    found = whole(self, conditions, owed, near)
    if found is None:
        for term in owed:
            answers.IMPOSSIBLE.add([not_(term)])
    return found


def loses_a_constant(kind, left, right, whole=terms._combined):
    """``x & 1 & 2`` folded to ``x & 1``."""
    if left.kind is kind and terms.is_constant(left.parts[-1]) and terms.is_constant(right):
        return left
    return whole(kind, left, right)


def always_equal(word, constant, whole=terms._equal_to_number):
    """``x | y == 0`` folded to ``x == 0``."""
    if word.kind is terms.BITOR and constant.value == 0:
        return equal(word.parts[0], constant)
    return whole(word, constant)


def or_for_and(term, parts, whole=answers._translation):
    """Z3 is asked another question."""
    return parts[0] | parts[1] if term.kind is terms.BITAND else whole(term, parts)


PLANTED = {
    "values that are not checked": (answers, "repaired", unchecked),
    "a core with a condition too few": (Impossible, "add", one_too_few),
    "a core that is not looked up whole": (Impossible, "among", anywhere),
    "a lemma outside its premises": (Questions, "failing", without_premises),
    "a fold that loses a constant": (terms, "_combined", loses_a_constant),
    "a fold that loses a word": (terms, "_equal_to_number", always_equal),
    "a translation that is another term": (answers, "_translation", or_for_and),
}


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is remembered before, nor after."""
    monkeypatch.setattr(answers, "IMPOSSIBLE", Impossible())
    monkeypatch.setattr(answers, "_TRANSLATED", {})


@pytest.mark.usefixtures("fresh")
class TestPlantedUnsoundness:
    @pytest.mark.parametrize("what", PLANTED)
    def test_it_is_seen_on_random_rule_code(self, what, monkeypatch):
        monkeypatch.setattr(*PLANTED[what])
        with pytest.raises((AssertionError, SolverError, SymbolicError)):
            compare_all()

    @pytest.mark.parametrize("fold", ["a fold that loses a constant", "a fold that loses a word"])
    def test_a_wrong_fold_is_seen_on_terms(self, fold, monkeypatch):
        monkeypatch.setattr(*PLANTED[fold])
        made = [((V & 3) & 1, (ZV & 3) & 1), ((V | W) == 0, (ZV | ZW) == 0)]
        assert not all(proven_equal(translated(term), plain) for term, plain in made)


class TestCounterexamples:
    """They are the same, whoever answers."""

    def test_numbers_do_not_depend_on_the_solver_nor_on_what_was_asked_before(self, monkeypatch):
        before = prove_step(planted(D9), STEPS["INIT"], Loaded.VMCS01, False).refutations
        assert {"mechanism_refines_contract", "reset_leaves_userspace"} == {one.claim for one in before}
        monkeypatch.setattr(answers, "IMPOSSIBLE", Impossible())
        monkeypatch.setattr(answers, "repaired", lambda *_: None)  # all is asked of Z3
        assert before == prove_step(planted(D9), STEPS["INIT"], Loaded.VMCS01, False).refutations
