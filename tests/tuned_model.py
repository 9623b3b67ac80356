"""A tiny chat model that has learned to answer, now directly, now with filler; data and preferences to go with it."""

from __future__ import annotations

import json
from pathlib import Path

import chat_model
import torch
import torch.nn.functional as F

from recipes.chat.generation import load_model
from recipes.chat.template import ChatTemplate
from recipes.instructions.encode import ConversationStream, encode_conversations
from recipes.instructions.read import Conversation, read_instructions, split_held_out

ROOT = chat_model.ROOT
CONTEXT = 64
SEED, FRACTION = 3, 0.25
CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Peru": "Lima", "Cuba": "Havana"}
QUESTIONS = ("Capital of {}?", "{}: capital?", "What is {}'s capital?", "Name the capital of {}.")


def write_data(path: Path) -> Path:
    """24 questions with references, each answered once directly and once with filler, in turn."""
    rows = []
    for number, (country, city) in enumerate(CITIES.items()):
        for place, question in enumerate(QUESTIONS):
            answer = direct(city) if (number + place) % 2 else wordy(city)
            turns = [("user", question.format(country)), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            rows.append({"messages": messages, "reference": city})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def direct(city: str) -> str:
    return f"It is {city}."


def wordy(city: str) -> str:
    return f"Well, it is {city}. I hope this helps."


def split(data: Path) -> tuple[list[Conversation], list[Conversation]]:
    return split_held_out(read_instructions([data]), FRACTION, SEED)


def write_parents(folder: Path, steps: int = 200) -> Path:
    """data.jsonl, sft/artifacts/model and reward/artifacts/preferences.jsonl under a folder."""
    torch.manual_seed(0)
    data = write_data(folder / "data.jsonl")
    directory = chat_model.write_model(folder / "sft" / "artifacts" / "model", context=CONTEXT, hidden=48, ffn=96)
    model, tokenizer = load_model(directory)
    template = ChatTemplate.of(tokenizer)
    # Held-out questions are learnt too, in both styles, filler twice as often: there is something to choose between.
    learnt = [
        Conversation((one.messages[0], type(one.messages[0])("assistant", style(one.reference))))
        for one in read_instructions([data])
        for style in (direct, wordy, wordy)
    ]
    rows, _ = encode_conversations(template, learnt, CONTEXT)
    stream = ConversationStream(rows, SEED, template.pad_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, steps + 1):
        batch = stream.batch(step, (step - 1) * 16, step * 16)
        logits = model(torch.from_numpy(batch.tokens)).logits
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(directory)
    for name, conversations in zip(("preferences", "held_out_preferences"), split(data), strict=True):
        write_preferences(folder / "reward" / "artifacts" / f"{name}.jsonl", conversations)
    return folder


def write_preferences(path: Path, conversations: list[Conversation]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": [vars(message) for message in one.prompt],
            "chosen": direct(one.reference),
            "rejected": wordy(one.reference),
            "reference": one.reference,
        }
        for one in conversations
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
