"""What makes a turn right, and the figures that come of it. Shared by both evaluations."""

import json
import re

CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
REFUSAL = ("cannot", "can't", "do not know", "no tool")


def parse(text):
    """Content and calls of a text in the Hermes format; a call that is no JSON is None."""
    text = text.split("</think>")[-1]
    calls = []
    for body in CALL.findall(text):
        try:
            calls.append(json.loads(body))
        except ValueError:
            calls.append(None)
    content = CALL.sub("", text).strip()
    return content, calls


def quoted(value, text):
    """Whether the value stands in the text, and not as a part of another word or number."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def judge(check, content, calls):
    """Pairs of a figure's name and whether this turn is right in it."""
    call = calls[0] if len(calls) == 1 and isinstance(calls[0], dict) else None
    if check["kind"] == "call":
        chosen = call is not None and call.get("name") == check["call"]["name"]
        exact = chosen and call.get("arguments") == check["call"]["arguments"]
        yield ("tool_choice" if check["known"] else "invented_choice"), chosen
        yield ("arguments" if check["known"] else "invented_arguments"), exact
    elif check["kind"] == "answer":
        yield "answer", not calls and all(quoted(value, content) for value in check["values"])
    elif check["kind"] == "refusal":
        yield "refusal", not calls and any(word in content for word in REFUSAL)
    else:
        yield "talk", not calls and all(word in content for word in check["words"])


class Figures:
    def __init__(self):
        self.right, self.asked = {}, {}

    def add(self, name, right):
        self.asked[name] = self.asked.get(name, 0) + 1
        self.right[name] = self.right.get(name, 0) + bool(right)

    def shares(self):
        return {n: round(self.right[n] / self.asked[n], 4) for n in sorted(self.asked)}
