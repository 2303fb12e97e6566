"""Histories and registers as pictures."""

import re

import pytest

from specctrl import Machine
from specctrl.model.registers import REGISTERS
from specctrl.site.drawings import both, timeline
from specctrl.site.front import figures
from specctrl.site.layout import strip


def d1(variant: str) -> Machine:
    machine = Machine("sapphire-rapids", variant)
    machine.create_vcpu()
    machine.set_msrs(msrs=[("MSR_VIRTUAL_ENUMERATION", 0x1), ("MSR_VIRTUAL_MITIGATION_ENUM", 0x3)])
    machine.wrmsr(msr="IA32_SPEC_CTRL", value=0x1)
    machine.wrmsr(msr="MSR_VIRTUAL_MITIGATION_CTRL", value=0x1)
    machine.wrmsr(msr="IA32_SPEC_CTRL", value=0x1)
    machine.exit()
    return machine


def lanes(html: str) -> dict[str, str]:
    """Each lane of the first table by its name: what its cells say."""
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', html)
    return {name: " ".join(re.findall(r">([^<]+)</td>", cells)) for name, cells in rows}


class TestTimeline:
    def test_the_set_up_is_named_and_not_drawn(self) -> None:
        html = timeline(d1("spec"), "D1").html
        assert "Before: create_vcpu, set_msrs 0x50000000 ← 0x1 …." in html
        assert re.findall(r"<b>(\w+)</b>", html) == ["wrmsr", "wrmsr", "wrmsr", "exit"]

    def test_a_history_of_nothing_but_set_up_is_drawn(self) -> None:
        machine = Machine()
        machine.create_vcpu()
        assert "<b>create_vcpu</b>" in timeline(machine, "one step").html

    def test_a_long_history_goes_on_below(self) -> None:
        machine = Machine()
        machine.create_vcpu()
        for value in range(12):
            machine.wrmsr(msr=0x48, value=value & 1)
        html = timeline(machine, "twelve writes").html
        assert [int(steps) for steps in re.findall(r" steps-(\d+)", html)] == [4, 4, 4]

    def test_a_history_without_this_vcpu_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no step of vCPU 3"):
            timeline(Machine(), "nothing", vcpu=3)


class TestBoth:
    def test_what_differs_stands_twice_and_the_wrong_value_has_a_cross(self) -> None:
        picture = both(timeline(d1("rfc-v3"), "D1"), timeline(d1("spec"), "as specified"))
        assert lanes(picture.html) == {
            "runs": "L1 L1 L1 host",
            "guest view": "0x1",
            "force mask (VMCS), as posted": "0x0",
            "force mask (VMCS), as specified": "0x0 0x400",
            "SHADOW (VMCS)": "0x1",
            "processor, as posted": "0x1 0x401 ✗ 0x1",
            "processor, as specified": "0x1 0x401",
            "saved by KVM": "0x1 0x401",
        }
        assert picture.html.count('class="new bad"') == 1

    def test_two_histories_that_are_the_same_have_no_cross(self) -> None:
        html = both(timeline(d1("spec"), "one"), timeline(d1("spec"), "other")).html
        assert ("✗" in html, "as posted" in html) == (False, False)

    def test_other_steps_are_refused(self) -> None:
        other = d1("spec")
        other.wrmsr(msr="IA32_SPEC_CTRL", value=0x5)
        with pytest.raises(ValueError, match="are not the same steps"):
            both(timeline(d1("rfc-v3"), "one"), timeline(other, "other"))


@pytest.mark.parametrize("name", list(REGISTERS))
def test_a_register_is_drawn_once_from_its_highest_bit_to_its_lowest(name: str) -> None:
    register = REGISTERS[name]
    ranges = [tuple(map(int, bits.split(":"))) for bits in re.findall(r"<span>([\d:]+)</span>", strip(register))]
    covered = [bit for bits in ranges for bit in range(bits[0], bits[-1] - 1, -1)]
    assert covered == list(range(register.width - 1, -1, -1))


def test_the_front_page_counts_what_is_published() -> None:
    counted = figures()
    assert counted.rules > 100
    assert counted.noticed <= counted.planted
    assert f"<b>{counted.rules:,}</b> rules" in counted._repr_html_()
