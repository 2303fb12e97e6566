"""The tables of operations in the skeletons of adapters: a line each, at its level, with what comes and what goes."""

from pathlib import Path

from specctrl.scenario.format import LEVELS, OPERATIONS, VALUES
from specctrl.targets.plain import encode, example

ROW = {
    "skeleton.c": '\t{{ "{name}", unsupported }},\t/* {comes} -> {goes} */\n',
    "skeleton.rs": '            "{name}" => unsupported(words), // {comes} -> {goes}\n',
}
"""A line of the table, in each language."""
LEVEL = {"skeleton.c": "\t/* level {} */\n", "skeleton.rs": "            // level {}\n"}
AROUND = {
    "skeleton.c": ('\t{ "begin", begin },\n', "};\n"),
    "skeleton.rs": ('            "begin" => self.begin(words),\n', "            _ =>"),
}
"""What stands before the table, and after it."""
RUNNERS = ("exposed", "overhead")
"""What the runner itself judges."""


def skeletons(folder: Path) -> dict[Path, str]:
    """The text of the skeletons below the folder of the scenarios, with every operation in them."""
    found = {}
    for name, (begin, end) in AROUND.items():
        file = folder / "adapters" / name
        head, _, rest = file.read_text("utf-8").partition(begin)
        found[file] = head + begin + _rows(name) + end + rest.partition(end)[2]
    return found


def _rows(language: str) -> str:
    rows = ""
    for level in LEVELS:
        rows += LEVEL[language].format(level)
        rows += "".join(ROW[language].format(name=name, comes=comes(name), goes=goes(name))
                        for name, operation in OPERATIONS.items() if operation.level == level)
    return rows


def comes(name: str) -> str:
    """What an operation brings, in words; in brackets what may be absent, and ``.*`` for the keys of an object.

    >>> comes("nested_exit")
    'vcpu=0 [msr_store=0x48] [msr_load=0x48:0x1]'
    """
    operation = OPERATIONS[name]
    said = []
    for key, kind in operation.args.items():
        value = example(kind)
        word = f"{key}.*=..." if isinstance(value, dict) else encode({key: value})
        said.append(f"[{word}]" if key in operation.optional else word)
    return " ".join(said)


def goes(name: str) -> str:
    """The answer to an operation that succeeds, in words.

    >>> goes("get_msrs"), goes("smi")
    ('ret=0 values=0x1', 'ok')
    """
    shown = [key for key in OPERATIONS[name].shows if key in VALUES and key not in RUNNERS]
    return encode({key: example(VALUES[key]) for key in shown}) or "ok"
