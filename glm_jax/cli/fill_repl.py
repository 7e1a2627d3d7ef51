"""Filling texts one by one in a terminal, showing every token when it is generated."""

from __future__ import annotations

import dataclasses
import typing

from rich.console import Console
from rich.text import Text

from glm_jax.cli.line_history import LineHistory
from glm_jax.errors import UsageError
from glm_jax.generate.engine import Engine, slots_needed
from glm_jax.generate.fill import FilledText, Filler
from glm_jax.generate.prompt import mask_ids, stretches
from glm_jax.generate.settings import Sampling
from glm_jax.tokenizer.streaming import GrowingText

PROMPT = "text> "
HELP = """Type a text with [MASK], [sMASK] or [gMASK]; one without a blank is continued.
  :set NAME VALUE   changes a setting        :settings   shows them
  :set NAME         takes its default again  :help       shows this
  :quit             ends (as Ctrl-D does); Ctrl-C stops filling a text"""
FILLED = "bold green"
# Few, so that tokens are shown soon after they are generated.
STEPS = 2


def converse(filler: Filler, sampling: Sampling) -> int:
    """Asks for texts and fills them until the user ends it; returns the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    history = LineHistory("fill_history")
    console.print(f"{HELP}\n", style="dim", markup=False)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            console.print()
            return 0
        except KeyboardInterrupt:
            console.print()
            continue
        history.save()
        if line == ":quit":
            return 0
        try:
            if line.startswith(":"):
                sampling = command(line, sampling, console)
            elif line:
                show(filler, line, sampling, console)
        except UsageError as error:
            console.print(str(error), style="red", markup=False)
        except KeyboardInterrupt:
            console.print("\nstopped", style="red")


def command(line: str, sampling: Sampling, console: Console) -> Sampling:
    """Carries out a line that starts with a colon, and gives the settings after it.

    Raises:
      UsageError: there is no such command, setting or value.
    """
    words = line.split()
    if words == [":help"]:
        console.print(HELP, markup=False)
    elif words == [":settings"]:
        for name, value in dataclasses.asdict(sampling).items():
            console.print(f"  {name} = {value}", markup=False)
    elif words[0] == ":set" and len(words) in (2, 3):
        return changed(sampling, words[1], words[2] if len(words) == 3 else None)
    else:
        raise UsageError(f"unknown command {line!r}; :help shows them")
    return sampling


def changed(sampling: Sampling, name: str, value: str | None) -> Sampling:
    """The settings with one changed, or as it is by default.

    Raises:
      UsageError: there is no such setting, or it can't have that value.
    """
    kinds = typing.get_type_hints(Sampling)
    if name not in kinds:
        raise UsageError(f"unknown setting {name!r}; expected one of {', '.join(kinds)}")
    if value is None:
        return dataclasses.replace(sampling, **{name: getattr(Sampling, name)})
    kind = float if kinds[name] == float | None else kinds[name]
    if kind is bool:
        words = {"true": True, "false": False}
        if value.lower() not in words:
            raise UsageError(f"{name} is {value!r}, but must be true or false")
        return dataclasses.replace(sampling, **{name: words[value.lower()]})
    try:
        return dataclasses.replace(sampling, **{name: kind(value)})
    except ValueError:
        raise UsageError(f"{name} is {value!r}, but must be of type {kind.__name__}") from None


def show(filler: Filler, text: str, sampling: Sampling, console: Console) -> None:
    """Fills one text and prints it, token by token where one sample of it is drawn.

    Raises:
      UsageError: the text is too long.
    """
    if sampling.beams == 1 and sampling.samples == 1 and not filler.is_read_in_windows(text):
        stream(filler, text, sampling, console)
        return
    (filled,) = filler.fill([text], sampling)
    for sample in filled.samples or [filled]:
        console.print(highlighted(sample))
        for blank in sample.blanks:
            for other in blank.alternatives:
                line = other.text.replace("\n", "\\n")
                console.print(f"    {other.score:8.3f}  {line}", style="dim", markup=False)


def stream(filler: Filler, text: str, sampling: Sampling, console: Console) -> None:
    """Fills one text and prints it from left to right as tokens arrive.

    Raises:
      UsageError: the text is too long.
    """
    ids, (active,) = filler.start(text, sampling)
    engine = Engine(
        filler.decoder,
        num_rows=1,
        num_slots=slots_needed(active.prompt, active.sampling.max_blank_length),
    )
    engine.start([active])
    growing = GrowingText(filler.tokenizer)
    parts = list(stretches(ids, mask_ids(filler.tokenizer.special)))
    _print(console, growing.add(*parts[0]))
    while engine.num_active:
        for event in engine.advance(STEPS):
            if event.token is not None:
                _print(console, growing.add(event.token), FILLED)
            if event.closes:
                _print(console, growing.add(*parts[event.blank + 1]))
    _print(console, growing.end())
    console.print()


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), end="")


def highlighted(filled: FilledText) -> Text:
    """A text with the filled blanks highlighted."""
    text = Text(filled.text)
    for start, end in filled.spans:
        text.stylize(FILLED, start, end)
    return text
