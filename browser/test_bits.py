"""The bit explorer: exact to 64 bits, against the registers and the processor's own rule; and by hand."""

import random
from typing import Any

import pytest

from built import NARROW, WIDE
from specctrl.model.contract import can_force
from specctrl.model.parts import PARTS, resolve_host
from specctrl.model.registers import REGISTERS
from specctrl.model.words import WORD, is_subset, merge

VALUES = 4000
PAGE = "spec/processor.html"
ADDRESS = "#bits=IA32_SPEC_CTRL&value=0x1&mask=0x400&force=0x400&part=sapphire-rapids"

DECODE = """async ([register, values]) => {
  const {decode, parse, hex} = await import("../_static/bits.mjs");
  const data = await (await fetch("../_static/registers.json")).json();
  return values.map((text) => {
    const {fields, reserved} = decode(data.registers[register], parse(text));
    return [Object.fromEntries(fields.map((field) => [field.name, hex(field.value)])), hex(reserved)];
  });
}"""
WRITE = """async (rows) => {
  const {write, parse, hex} = await import("../_static/bits.mjs");
  const data = await (await fetch("../_static/registers.json")).json();
  return rows.map(([part, ...words]) => {
    const {reads, holds, refused} = write(...words.map(parse), BigInt(data.parts[part]));
    return [reads, holds, refused].map(hex);
  });
}"""
REFUSAL = """async (rows) => {
  const {refusal, parse} = await import("../_static/bits.mjs");
  const data = await (await fetch("../_static/registers.json")).json();
  return rows.map(([part, mask, value]) => refusal(parse(mask), parse(value), BigInt(data.supported[part])));
}"""
MARKED = "cell => getComputedStyle(cell).outlineStyle === 'dashed'"
FOCUSED_BIT = "document.activeElement.querySelector('.spec-bits-number')?.textContent"
PARSE = """async (texts) => {
  const {parse, hex} = await import("../_static/bits.mjs");
  return texts.map((text) => { try { return hex(parse(text)); } catch (error) { return error.message; } });
}"""


def values(count: int) -> list[int]:
    """Any 64-bit values, many of them with few bits."""
    choose = random.Random(1)
    few = [sum(1 << choose.randrange(64) for _ in range(3)) & WORD for _ in range(count // 2)]
    return [0, WORD, 1 << 63, *few, *(choose.getrandbits(64) for _ in range(count - count // 2 - 3))]


@pytest.mark.parametrize("name", list(REGISTERS))
def test_fields_are_those_of_the_registers(view: Any, name: str) -> None:
    chosen = [value & ((1 << REGISTERS[name].width) - 1) for value in values(VALUES // len(REGISTERS))]
    found = view(PAGE).evaluate(DECODE, [name, [hex(value) for value in chosen]])
    register = REGISTERS[name]
    for value, (fields, reserved) in zip(chosen, found, strict=True):
        expected = {field.name: hex((value & field.mask) >> field.low) for field in register}
        assert (fields, reserved) == (expected, hex(value & ~register.defined)), hex(value)


def test_a_write_is_what_the_rules_make_of_it(view: Any) -> None:
    words = values(VALUES * 3)
    parts = [random.Random(2).choice(list(PARTS)) for _ in range(VALUES)]
    rows = list(zip(parts, words[::3], words[1::3], words[2::3], strict=True))
    found = view(PAGE).evaluate(WRITE, [[part, *map(hex, rest)] for part, *rest in rows])
    for (part, guest, mask, value), (reads, holds, refused) in zip(rows, found, strict=True):
        writable = resolve_host(part).writable
        assert (reads, holds) == (hex(guest), hex(merge(guest, mask, value)))
        assert (refused == "0x0") is is_subset(merge(guest, mask, value), writable)


def test_a_pair_is_refused_where_the_capability_refuses_it(view: Any) -> None:
    choose = random.Random(3)
    some = [0, 0x400, 0x40, 0x8, 0x440, 1 << 63, WORD, *(choose.getrandbits(11) for _ in range(30))]
    rows = [(part, mask, value) for part in PARTS for mask in some for value in some]
    found = view(PAGE).evaluate(REFUSAL, [[part, hex(mask), hex(value)] for part, mask, value in rows])
    for (part, mask, value), said in zip(rows, found, strict=True):
        nothing = mask == value == 0
        assert (said == "") is (nothing or can_force(resolve_host(part), mask, value)), (part, hex(mask), hex(value))


def test_what_is_no_value_is_refused_with_the_reason(view: Any) -> None:
    texts = ["0x401", " 1025 ", "0b101", "0xFFFF_ffff_ffff_ffff", str(2**63 + 1), "0x1" + "0" * 16]
    texts += ["401H", "1<<63", "", "-1", "x", "1e3", "1<<64"]
    found = view(PAGE).evaluate(PARSE, texts)
    assert found[:5] == ["0x401", "0x401", "0x5", hex(WORD), hex(2**63 + 1)]
    assert found[5] == "more than 64 bits"
    assert found[6:9] == ["0x401", hex(1 << 63), "0x0"]
    assert all(said.startswith("not a number") for said in found[9:])


def test_by_hand(view: Any, site: str) -> None:
    """An address opens it; bits are clicked, words typed; the address that it offers says the same again."""
    page = view(PAGE + ADDRESS)
    box = page.locator(".spec-bits").first
    out = box.locator(".spec-bits-out")
    out.get_by_text("the processor holds 0x401").wait_for()
    box.get_by_role("button", name="bit 63: reserved").or_(box.get_by_title("bit 63, reserved")).first.click()
    out.get_by_text("#GP: sapphire-rapids refuses 0x8000000000000000").wait_for()
    box.get_by_label("Force mask").fill("0x8000000000000400")
    out.get_by_text("the guest reads 0x8000000000000001").wait_for()
    out.get_by_text("the processor holds 0x401 while it runs").wait_for()
    again = box.get_by_role("link", name="link to this value").get_attribute("href")
    other = view(PAGE + again)
    other.locator(".spec-bits-out").first.get_by_text("the guest reads 0x8000000000000001").wait_for()
    box.get_by_label("Force mask").fill("0xzz")
    assert "not a number" in box.locator(".spec-bits-word").nth(1).inner_text()
    assert out.inner_text() == ""


def test_by_keyboard(view: Any) -> None:
    page = view(PAGE)
    page.locator(".spec-bits summary").first.press("Enter")
    first = page.locator(".spec-bits-grid").first.get_by_title("bit 0: IBRS")
    first.wait_for()
    first.press("Space")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.locator(".spec-bits-out").first.get_by_text("fields: IBRS, STIBP").wait_for()


def test_each_bit_has_its_number_and_masked_bits_are_marked(view: Any) -> None:
    page = view(PAGE + "#bits=IA32_SPEC_CTRL&value=0x4&mask=0x440&force=0x400&part=sapphire-rapids")
    box = page.locator(".spec-bits").first
    cells = box.locator(".spec-bits-grid button")
    cells.first.wait_for()
    assert box.locator(".spec-bits-number").all_inner_texts() == [str(bit) for bit in reversed(range(64))]
    assert {bit for bit in range(64) if cells.nth(63 - bit).evaluate(MARKED)} == {6, 10}
    assert cells.nth(63 - 10).inner_text().split() == ["10", "0", "=1"]
    assert cells.nth(63 - 10).get_attribute("aria-label") == "bit 10: BHI_DIS_S, forced to 1"
    assert cells.nth(63 - 6).inner_text().split() == ["6", "0", "=0"]
    assert cells.nth(63 - 2).inner_text().split() == ["2", "1"]
    assert "in the force mask" in box.locator(".spec-bits-legend").inner_text()
    box.get_by_label("Force mask").fill("0x8")
    assert {bit for bit in range(64) if cells.nth(63 - bit).evaluate(MARKED)} == {3}


def test_only_where_bits_can_be_forced_the_legend_speaks_of_it(view: Any) -> None:
    page = view("spec/virtual-msrs.html")
    page.locator(".spec-bits summary").first.click()
    legend = page.locator(".spec-bits-legend").first
    legend.wait_for()
    assert "force mask" not in legend.inner_text()


@pytest.mark.parametrize(("width", "columns"), [(WIDE, 16), (NARROW, 8)])
def test_arrows_home_and_end_move_and_tab_leaves(view: Any, width: int, columns: int) -> None:
    page = view(PAGE, width=width)
    page.locator(".spec-bits summary").first.press("Enter")
    page.locator(".spec-bits-grid").first.get_by_title("bit 0: IBRS").focus()
    for key, bit in [
        ("Home", 63), ("ArrowUp", 63), ("ArrowRight", 62), ("ArrowDown", 62 - columns), ("End", 0), ("ArrowRight", 0),
        ("ArrowUp", columns), ("ArrowLeft", columns + 1),
    ]:
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED_BIT) == str(bit), key
    assert page.locator(".spec-bits-grid").first.locator("[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "INPUT"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED_BIT) == str(columns + 1), "the stop is where one was"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing_in_an_open_explorer(view: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs the package axe-playwright-python")
    page = view(PAGE + ADDRESS, scheme, width)
    page.locator(".spec-bits-grid button").first.wait_for()
    page.evaluate(axe.AXE_SCRIPT)
    found = page.evaluate("() => axe.run('.spec-bits', {resultTypes: ['violations']})")
    assert len(found["passes"]) > 0
    assert [node["html"][:160] for violation in found["violations"] for node in violation["nodes"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
