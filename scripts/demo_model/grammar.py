"""Dialogues, drawn at random: what is said, which tools are offered, and what a right turn has."""

import json
import random
import re

from invented import invented
from phrasing import TALK_OPENINGS, dressed, phrasing
from talk import ERROR_ANSWER, ERRORS, SYSTEMS, TOPICS, UNKNOWN, UNKNOWN_ANSWER
from tools import ALIKE, CHAINS, KINDS
from values import ENDING, draw, made_up

NO_TOOL = "I cannot do that, I have no tool for it."
SLOT = re.compile(r"\{((?:[12]\.)?[a-z_]+)\}")


def fill(text, slots):
    return SLOT.sub(lambda match: slots.get(match[1], match[0]), text)


class Tool:
    """A kind of tool as one dialogue offers it: one of its names, parameters by one of theirs."""

    def __init__(self, rng, key, kind):
        self.key, self.kind = key, kind
        self.name = rng.choice(self.kind.names)
        self.names = {p.names[0]: rng.choice(p.names) for p in self.kind.parameters}
        if len(set(self.names.values())) < len(self.names):
            self.names = {name: name for name in self.names}
        described = rng.random() < 0.3
        properties = {}
        for p in self.kind.parameters:
            schema = {"type": p.type}
            if described:
                schema["description"] = p.about
            properties[self.names[p.names[0]]] = schema
        parameters = {"type": "object", "properties": properties}
        if rng.random() < 0.8:
            parameters["required"] = list(properties)
        about = rng.choice(self.kind.abouts)
        function = {"name": self.name, "description": about, "parameters": parameters}
        self.definition = {"type": "function", "function": function}

    def values(self, rng, evaluation):
        values = {p.names[0]: draw(p.value, rng, evaluation) for p in self.kind.parameters}
        while len(set(values.values())) < len(values):
            values = {p.names[0]: draw(p.value, rng, evaluation) for p in self.kind.parameters}
        return values

    def call(self, values):
        arguments = {}
        for p in self.kind.parameters:
            value = values[p.names[0]]
            arguments[self.names[p.names[0]]] = value if p.type == "string" else json.loads(value)
        return {"name": self.name, "arguments": arguments}

    def ending(self, prefix=""):
        """Slots whose values show their end."""
        return {prefix + p.names[0] for p in self.kind.parameters if p.value in ENDING}

    def facts(self, rng, evaluation):
        return {slot: draw(kind, rng, evaluation) for slot, kind in self.kind.facts.items()}

    def result(self, rng, slots):
        # A JSON string would hold line ends in another form than the answer.
        plain = any("\n" in value for value in slots.values())
        texts = [t for t in self.kind.results if not (plain and t.startswith("{\""))]
        text = rng.choice(texts)
        quoted = text.startswith("{") and '"' in text
        return fill(text, {k: json.dumps(v)[1:-1] for k, v in slots.items()} if quoted else slots)


def offer(rng, kinds, count, evaluation):
    """The tools of a dialogue: these kinds and others that are not like them."""
    near = set(kinds).union(*(group for group in ALIKE if group & set(kinds)))
    others = rng.sample([key for key in KINDS if key not in near], count)
    chosen = dict(kinds)
    for key in others[: max(0, count - len(kinds))]:
        if rng.random() < 0.2:
            chosen[f"other {len(chosen)}"] = invented(rng, evaluation)
        else:
            chosen[key] = KINDS[key]
    keys = list(chosen)
    rng.shuffle(keys)
    tools = [Tool(rng, key, chosen[key]) for key in keys]
    if len({tool.name for tool in tools}) < len(tools):
        return offer(rng, kinds, count, evaluation)
    return {tool.key: tool for tool in tools}


class Dialogue:
    """Messages in OpenAI's form; `checks[i]` says what a right message `i` has."""

    def __init__(self, rng, evaluation, thinking):
        self.rng, self.evaluation, self.thinking = rng, evaluation, thinking
        self.messages, self.checks, self.tools = [], {}, {}

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def ask(self, texts, slots, ending):
        """A request in one of these phrasings."""
        text = phrasing(self.rng, texts, self.evaluation, lambda: made_up(self.rng), ending)
        self.user(fill(dressed(self.rng, text), slots))

    def assistant(self, thought, content="", call=None, **check):
        message = {"role": "assistant", "content": content}
        if self.thinking:
            message["reasoning_content"] = thought
        if call:
            message["tool_calls"] = [{"type": "function", "function": call}]
            check = {"kind": "call", "call": call, **check}
        self.checks[len(self.messages)] = check
        self.messages.append(message)

    def result(self, text):
        self.messages.append({"role": "tool", "content": text})

    def definitions(self):
        return [tool.definition for tool in self.tools.values()]

    def system(self):
        if self.rng.random() < 0.4:
            text = self.rng.choice(SYSTEMS)
            self.messages.append({"role": "system", "content": self.drawn(text)})

    def drawn(self, text):
        """The text with values in its slots, whose names are their kinds."""
        return SLOT.sub(lambda slot: draw(slot[1], self.rng, self.evaluation), text)

    def talk(self):
        texts, answer, words = self.rng.choice(TOPICS)
        text = phrasing(self.rng, texts, self.evaluation, lambda: made_up(self.rng))
        self.user(dressed(self.rng, text, TALK_OPENINGS, closings=[""]))
        self.assistant("I can say that without a tool.", answer, kind="talk", words=words)

    def unknown(self):
        text = phrasing(self.rng, UNKNOWN, self.evaluation, lambda: made_up(self.rng))
        self.user(self.drawn(dressed(self.rng, text)))
        self.assistant("I do not know that.", UNKNOWN_ANSWER, kind="refusal")

    def refuse(self, key):
        """A request that only a tool that is not offered could answer."""
        made = self.rng.random() < 0.2
        kind = invented(self.rng, self.evaluation) if made else KINDS[key]
        tool = Tool(self.rng, key, kind)
        slots = tool.values(self.rng, self.evaluation)
        self.ask(tool.kind.asks, slots, tool.ending())
        thought = fill(f"The user wants {tool.kind.goal}. No tool fits.", slots)
        self.assistant(thought, NO_TOOL, kind="refusal")

    def use(self, tool, slots, goal, single_line=False):
        """One call, up to its result."""
        self.call(tool, slots, goal)
        facts = tool.facts(self.rng, self.evaluation)
        while single_line and any("\n" in fact for fact in facts.values()):
            facts = tool.facts(self.rng, self.evaluation)
        slots.update(facts)
        self.result(tool.result(self.rng, slots))
        return facts

    def call(self, tool, slots, goal):
        thought = fill(f"The user wants {goal}. I call {tool.name}.", slots)
        self.assistant(thought, call=tool.call(slots), known=tool.key in KINDS)

    def fail(self, tool, slots):
        """A call whose result is an error."""
        self.call(tool, slots, tool.kind.goal)
        error = draw("phrase", self.rng, self.evaluation)
        text = self.rng.choice(ERRORS).replace("{phrase}", error)
        self.result(self.drawn(text))
        content = ERROR_ANSWER.replace("{phrase}", error)
        self.assistant("The tool has failed.", content, kind="answer", values=[error])

    def answer(self, tool, slots, facts):
        thought = "The result has what the user wants."
        content = fill(tool.kind.answer, slots)
        self.assistant(thought, content, kind="answer", values=list(facts.values()))

    def one(self, key):
        tool = self.tools[key]
        slots = tool.values(self.rng, self.evaluation)
        self.ask(tool.kind.asks, slots, tool.ending())
        if self.rng.random() < 0.05:
            return self.fail(tool, slots)
        facts = self.use(tool, slots, tool.kind.goal)
        self.answer(tool, slots, facts)

    def chain(self, chain):
        first, second = self.tools[chain.first], self.tools[chain.second]
        slots1 = first.values(self.rng, self.evaluation)
        slots2 = second.values(self.rng, self.evaluation)
        slots = {f"1.{k}": v for k, v in slots1.items()} | {f"2.{k}": v for k, v in slots2.items()}
        self.ask(chain.asks, slots, first.ending("1.") | second.ending("2."))
        facts = self.use(first, slots1, first.kind.goal, single_line=True)
        fact, parameter = chain.feeds
        slots2[parameter] = facts[fact]
        facts = self.use(second, slots2, second.kind.goal)
        self.answer(second, slots2, facts)


def turn(rng, dialogue):
    """One more question and everything up to its answer."""
    kind = rng.random()
    offered = list(dialogue.tools)
    chains = [c for c in CHAINS if c.first in dialogue.tools and c.second in dialogue.tools]
    if kind < 0.16:
        dialogue.talk()
    elif kind < 0.2:
        dialogue.unknown()
    elif kind < 0.32 or not offered:
        near = set(offered).union(*(group for group in ALIKE if group & set(offered)))
        dialogue.refuse(rng.choice([key for key in KINDS if key not in near]))
    elif chains and rng.random() < 0.5:
        dialogue.chain(rng.choice(chains))
    else:
        dialogue.one(rng.choice(offered))


def dialogue(seed, evaluation=False):
    """The dialogue of a seed: a system prompt perhaps, no tool to four, one turn to three."""
    rng = random.Random(f"{seed} {evaluation}")
    made = Dialogue(rng, evaluation, thinking=rng.random() < 0.25)
    made.system()
    kind = rng.random()
    if kind < 0.15:
        rng.choice((made.talk, made.talk, made.talk, made.unknown))()
        while rng.random() < 0.5:
            made.talk()
        return made
    if kind < 0.18:
        made.refuse(rng.choice(list(KINDS)))
        return made
    if kind < 0.36:
        chain = rng.choice(CHAINS)
        kinds, count = {key: KINDS[key] for key in (chain.first, chain.second)}, (2, 2, 3, 4)
    elif kind < 0.5:
        kinds, count = {"invented": invented(rng, evaluation)}, (1, 2, 3, 4)
    else:
        key = rng.choice(list(KINDS))
        kinds, count = {key: KINDS[key]}, (1, 1, 2, 2, 3, 3, 4)
    made.tools = offer(rng, kinds, rng.choice(count), evaluation)
    turn(rng, made)
    # Training has more turns, since what precedes them is read for nothing otherwise.
    more = 0.45 if evaluation else 0.65
    while rng.random() < more and len(made.messages) < 14:
        turn(rng, made)
    return made
