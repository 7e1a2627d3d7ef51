"""Many requests at a time: each gets what it gets alone."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from glm_jax.convert.load import load_glm
from glm_jax.generate.fill import Filler
from glm_jax.tokenizer import load_tokenizer
from tests.chat.chatglm_recipe import write_recipe
from tests.serve.openai_client import MODEL, client_of
from tests.serve.running import Running, serving, wait_until

pytest.importorskip("openai")

Answer = tuple[Any, ...]


def requests_of(number: int, texts: Sequence[str], max_tokens: int) -> list[dict[str, Any]]:
    """Different requests, the same every time."""
    draw = random.Random(5)
    made = []
    for index in range(number):
        greedy = {"temperature": 0}
        drawn = {"temperature": draw.choice([0.7, 1.5]), "top_p": 0.9, "n": draw.randint(1, 3)}
        body = {
            "model": MODEL,
            "max_tokens": draw.randint(1, max_tokens),
            "seed": draw.randint(0, 9),
            "stream": bool(index % 2),
            **draw.choice([greedy, drawn]),
        }
        if draw.random() < 0.4:
            body["stop"] = [draw.choice(["e", "an", "不是", "th"]), "never"]
        if body["stream"]:
            body["stream_options"] = {"include_usage": True}
        text = draw.choice(texts)
        if draw.random() < 0.3:
            made.append({**body, "prompt": text})
            continue
        turns = [
            {"role": role, "content": draw.choice(texts)}
            for _ in range(draw.randint(0, 2))
            for role in ("user", "assistant")
        ]
        made.append({**body, "messages": [*turns, {"role": "user", "content": text}]})
    return made


def answer_of(client: Any, body: dict[str, Any]) -> Answer:
    """The texts, why they ended, and the counts."""
    path = client.chat.completions if "messages" in body else client.completions
    result: Any = path.create(**body)
    chunks = list(result) if body["stream"] else [result]
    texts: dict[int, str] = dict.fromkeys(range(body.get("n", 1)), "")
    ends: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            message = getattr(choice, "delta", None) or getattr(choice, "message", None)
            added = choice.text if "prompt" in body else message.content if message else ""
            texts[choice.index] += added or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index, "")
    usage = chunks[-1].usage
    return list(texts.values()), sorted(ends.items()), usage.prompt_tokens, usage.completion_tokens


def check_together(server: Running, bodies: Sequence[dict[str, Any]], num_clients: int) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(server)) for _ in range(num_clients)]
        check_answers(clients, bodies)
    wait_until(lambda: server.metric("glm_rows_in_use") == 0)
    assert server.metric("glm_queue_length") == 0


def check_answers(clients: Sequence[Any], bodies: Sequence[dict[str, Any]]) -> None:
    alone = [answer_of(clients[0], body) for body in bodies]
    free: SimpleQueue[Any] = SimpleQueue()
    for client in clients:
        free.put(client)

    def answer(body: dict[str, Any]) -> Answer:
        client = free.get()
        try:
            return answer_of(client, body)
        finally:
            free.put(client)

    with ThreadPoolExecutor(len(clients)) as pool:
        together = list(pool.map(answer, bodies))
    for body, one, other in zip(bodies, alone, together, strict=True):
        assert one == other, body
    # Streamed or not makes no difference either.
    for body, one in list(zip(bodies, alone, strict=True))[: len(bodies) // 5]:
        options = {"stream_options": {"include_usage": True}} if not body["stream"] else {}
        turned = {name: value for name, value in body.items() if name != "stream_options"}
        other = {**turned, **options, "stream": not body["stream"]}
        assert answer_of(clients[0], other) == one
    assert any(text for texts, *_ in alone for text in texts)


def test_requests_of_several_clients(filler):
    with serving(filler) as server:
        check_together(server, requests_of(24, ["hi", "ab c", "<|endofpiece|>", "ü"], 20), 6)


@pytest.mark.slow
def test_200_requests_of_16_clients_with_the_real_vocabulary(shared: Path, tmp_path: Path):
    golden = json.loads((shared / "goldens/i_chatglm/chat_real.json").read_text())
    folder = write_recipe(golden, shared, tmp_path / "chatglm")
    model, params = load_glm(folder)
    filler = Filler(model, params, load_tokenizer(folder))
    texts = ["你好", "How are you?", "a <sop> b", "[MASK]是什么", "带\n换行", "😀 𠮷", "x " * 60]
    with serving(filler) as server:
        check_together(server, requests_of(200, texts, 8), 16)
