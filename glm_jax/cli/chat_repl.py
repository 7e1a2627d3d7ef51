"""A conversation in a terminal, or with lines of standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from glm_jax.chat.session import ChatSession, Reply
from glm_jax.chat.settings import ChatSettings
from glm_jax.chat.transcript import load_turns, save_turns
from glm_jax.chat.turns import Turn
from glm_jax.cli.line_history import LineHistory
from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path

PROMPT, CONTINUED_PROMPT = "you> ", "...> "
QUOTES = '"""'
HELP = f"""Type a message; {QUOTES} starts and ends one of several lines.
  /settings             shows the settings     /new        forgets the conversation
  /settings NAME VALUE  changes one            /undo       forgets the last turn
  /settings NAME        takes its default      /save FILE  writes the conversation
  /help                 shows this             /load FILE  reads one
  /quit                 ends (as Ctrl-D does); Ctrl-C stops an answer, which is kept so far"""


class ChatRepl:
    """Messages, answers and commands.

    Attributes:
      turns: the conversation so far.
      settings: of the next answer.
    """

    def __init__(
        self,
        session: ChatSession,
        settings: ChatSettings,
        turns: Sequence[Turn] = (),
        console: Console | None = None,
    ) -> None:
        """Starts with a conversation, empty by default."""
        self._session = session
        self._console = console or Console(highlight=False, soft_wrap=True)
        self.settings = settings
        self.turns = list(turns)

    def converse(self) -> int:
        """Asks for messages until the user ends it; returns the exit code."""
        history = LineHistory("chat_history")
        self._console.print(f"{HELP}\n", style="dim", markup=False)
        while True:
            try:
                message = read_message(input)
            except EOFError:
                self._console.print()
                return 0
            except KeyboardInterrupt:
                self._console.print()
                continue
            history.save()
            try:
                if not self.handle(message):
                    return 0
            except UsageError as error:
                self._console.print(str(error), style="red", markup=False)

    def answer_lines(self, lines: Iterable[str]) -> int:
        """Answers messages from lines; a fault is reported and the exit code then 1."""
        remaining = iter(lines)
        failed = False
        while True:
            try:
                message = read_message(lambda _prompt: _next_line(remaining))
            except EOFError:
                return int(failed)
            try:
                if not self.handle(message):
                    return int(failed)
            except UsageError as error:
                failed = True
                print(f"glm-jax: {error}", file=sys.stderr, flush=True)

    def handle(self, message: str) -> bool:
        """Carries out a command or answers a message; False to end.

        Raises:
          UsageError: the command is unknown or fails, or the message is too long.
        """
        if message.startswith("/"):
            return self._command(message)
        if message.strip():
            self._answer(message)
        return True

    def _command(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        arguments = rest.split(maxsplit=1)
        if name in ("/quit", "/new", "/undo", "/help") and arguments:
            raise UsageError(f"{name} takes nothing after it")
        if name in ("/save", "/load") and not arguments:
            raise UsageError(f"{name} needs the name of a file")
        if name == "/quit":
            return False
        if name == "/help":
            self._console.print(HELP, markup=False)
        elif name == "/new":
            self.turns.clear()
        elif name == "/undo":
            if not self.turns:
                raise UsageError("there is no turn to forget")
            self.turns.pop()
        elif name == "/settings":
            self._settings(arguments)
        elif name == "/save":
            save_turns(resolve_path(rest.strip(), name), self.turns)
        elif name == "/load":
            self.turns = load_turns(resolve_path(rest.strip(), name))
        else:
            raise UsageError(f"unknown command {name!r}; /help shows them")
        return True

    def _settings(self, arguments: Sequence[str]) -> None:
        if arguments:
            self.settings = changed_settings(self.settings, *arguments)
            return
        for name, value in dataclasses.asdict(self.settings).items():
            self._console.print(f"  {name} = {value}", markup=False)

    def _answer(self, message: str) -> None:
        reply, pieces = self._session.ask(self.turns, message, self.settings)
        if reply.note is not None:
            print(f"glm-jax: {reply.note}", file=sys.stderr, flush=True)
        stopped = False
        try:
            (self._show if self._console.is_terminal else self._write)(reply, pieces)
        except KeyboardInterrupt:
            stopped = True
        if stopped or not reply.complete:
            why = "stopped" if stopped else "the answer reached the maximum length"
            print(f"glm-jax: {why}", file=sys.stderr, flush=True)
        self.turns.append(Turn(message, reply.text))

    def _write(self, _reply: Reply, pieces: Iterator[str]) -> None:
        """Prints an answer as plain text."""
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
        finally:
            print(flush=True)

    def _show(self, reply: Reply, pieces: Iterator[str]) -> None:
        """Shows an answer as Markdown, of which only what fits the screen is drawn as it grows."""
        try:
            with Live(console=self._console, transient=True, vertical_overflow="crop") as live:
                for _ in pieces:
                    height = max(4, self._console.height - 2)
                    lines = self._console.render_lines(Markdown(reply.text))[-height:]
                    texts = ["".join(segment.text for segment in line) for line in lines]
                    live.update(Text("\n".join(texts)))
        finally:
            self._console.print(Markdown(reply.text))


def read_message(ask: Callable[[str], str]) -> str:
    """One message, of several lines where it starts with three quotes.

    Raises:
      EOFError: the input has ended.
    """
    line = ask(PROMPT).strip("\r\n")
    if not line.strip().startswith(QUOTES):
        return line.strip() if line.startswith("/") else line
    lines = [line.strip().removeprefix(QUOTES)]
    while not lines[-1].rstrip().endswith(QUOTES):
        try:
            lines.append(ask(CONTINUED_PROMPT).strip("\r\n"))
        except EOFError:
            break
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip("\n")


def changed_settings(settings: ChatSettings, name: str, value: str | None = None) -> ChatSettings:
    """The settings with one changed, or as it is by default.

    Raises:
      UsageError: there is no such setting, or it can't have that value.
    """
    fields = {field.name: field for field in dataclasses.fields(ChatSettings)}
    if name not in fields:
        raise UsageError(f"unknown setting {name!r}; expected one of {', '.join(fields)}")
    if value is None:
        return dataclasses.replace(settings, **{name: fields[name].default})
    if name == "special_tokens":
        words = {"true": True, "false": False}
        if value.lower() not in words:
            raise UsageError(f"{name} is {value!r}, but must be true or false")
        return dataclasses.replace(settings, special_tokens=words[value.lower()])
    kind = float if name in ("temperature", "top_p") else int
    try:
        return dataclasses.replace(settings, **{name: kind(value)})
    except ValueError:
        raise UsageError(f"{name} is {value!r}, but must be a number") from None


def _next_line(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise EOFError
    return line
