"""Evaluates the demo model through Baton's HTTP interface, with the official OpenAI client.

    baton up --model models/demo &
    python evaluate.py [--url http://127.0.0.1:8080/v1] [--dialogues 500] [--out figures.json]

Held-out dialogues, greedy; what went before a turn is always as it should have been. Exits with 1
if a figure is below what is asked of the model.
"""

import argparse
import concurrent.futures
import json
import sys
from pathlib import Path

import grammar
import openai
from checks import Figures, judge, parse

ASKED = dict(tool_choice=0.95, arguments=0.90, answer=0.90, refusal=0.80)


def history(messages):
    """Messages as a client sends them: ids on calls and results, arguments as text."""
    sent = []
    for at, message in enumerate(messages):
        message = dict(message)
        if "tool_calls" in message:
            calls = [call["function"] for call in message["tool_calls"]]
            texts = [dict(call, arguments=json.dumps(call["arguments"])) for call in calls]
            message["tool_calls"] = [
                {"id": f"call_{at}", "type": "function", "function": call} for call in texts
            ]
        if message["role"] == "tool":
            message["tool_call_id"] = f"call_{at - 1}"
        sent.append(message)
    return sent


def content_and_calls(message):
    """What the server has parsed, or the Hermes format parsed here."""
    content, calls = parse(message.content or "")
    for call in message.tool_calls or []:
        try:
            arguments = json.loads(call.function.arguments)
            calls.append({"name": call.function.name, "arguments": arguments})
        except ValueError:
            calls.append(None)
    return content, calls


def evaluate(client, model, seed):
    """Figures of one dialogue, and its wrong turns."""
    made = grammar.dialogue(seed, evaluation=True)
    named, wrong = [], []
    for at, check in made.checks.items():
        answer = client.chat.completions.create(
            model=model,
            messages=history(made.messages[:at]),
            tools=made.definitions() or openai.omit,
            temperature=0,
            max_tokens=160,
            extra_body={"chat_template_kwargs": {"enable_thinking": made.thinking}},
        )
        message = answer.choices[0].message
        judged = list(judge(check, *content_and_calls(message)))
        named += judged
        if not all(right for _, right in judged):
            wrong.append(dict(seed=seed, turn=at, expected=check, found=message.to_dict()))
    named.append(("dialogue", not wrong))
    return named, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--dialogues", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=4, help="dialogues at a time")
    parser.add_argument("--out", type=Path, help="file for the figures")
    parser.add_argument("--wrong", action="store_true", help="print every wrong turn")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.url, api_key="none")
    model = client.models.list().data[0].id
    figures = Figures()
    with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
        for named, wrong in pool.map(lambda s: evaluate(client, model, s), range(args.dialogues)):
            for name, right in named:
                figures.add(name, right)
            for turn in wrong if args.wrong else []:
                print(json.dumps(turn))
    shares = figures.shares()
    for name, share in shares.items():
        asked = f"  (asked: {100 * ASKED[name]:.0f} %)" if name in ASKED else ""
        print(f"{name:18} {100 * share:5.1f} % of {figures.asked[name]}{asked}")
    if args.out:
        args.out.write_text(json.dumps(dict(dialogues=args.dialogues, shares=shares)) + "\n")
    sys.exit(any(shares.get(name, 0) < share for name, share in ASKED.items()))


if __name__ == "__main__":
    main()
