"""How a sentence with choices in it is said: decided, dressed and, in training, blurred."""

import re

CHOICE = re.compile(r"\[([^\[\]{}]*(?:\{[\w.]+\}[^\[\]{}]*)*\|[^\[\]]*)\]")
SLOT = re.compile(r"(\{([\w.]+)\})([.,:?!]*)$")  # a word that is a value and perhaps a mark

MACROS = {
    "@know": "[I want to know|I need to know|I'd like to know|I would like to know|Tell me|Please tell me|Do you know|Can you tell me|Could you tell me|Let me know|Find out|Please find out|I wonder]",
    "@show": "[Show me|Show|Give me|Let me see|I want to see|I need|Display|Please show|Could I see|Tell me]",
    "@want": "[I want|I need|I would like|I'd like|We need|Please, I want]",
    "@what": "[What is|What's]",
    "@get": "[Get|Get me|Fetch|Find|Look up|Check|Please get|Please find]",
    "@can": "[Can|Could|Would|Will] you[ please|]",
}  # fmt: skip

OPENINGS = [
    "Hey, ", "So, ", "Ok, ", "Now ", "And ", "Please, ", "Hello, ", "Hi, ", "Next: ", "Well, ",
    "Then ", "One more thing: ", "Quick question: ", "Good morning. ", "Hello! ",
    "I have a question. ", "I need your help. ", "Can you help me? ", "Sorry to bother you. ",
    "Ok. ", "Listen: ", "Great. ", "Also, ",
]  # fmt: skip
CLOSINGS = [
    " Thanks!", " Thank you.", " Thanks a lot.", " I am in a hurry.", " It is important.",
    " Please be quick.", " Be brief.", " I would be glad.", " I need it today.",
    " That would help me.", " Can you do that?",
]  # fmt: skip
TALK_OPENINGS = ["So, ", "Ok, ", "Well, ", "And ", "Also, ", "Now ", "Quick question: ", "Hey, "]
FILLERS = (
    "just really maybe actually then quickly simply now please again also still perhaps kindly "
    "well exactly today right there here even only quite"
).split()
DROPPED = {"the", "a", "an", "me", "please", "is", "are", "do", "does", "can", "you", "could"}
# What may stand before or after a value without being a part of it.
ORDINARY = (
    "going gone done happening about standing stands found lives living currently yet already "
    "being been was were will would might while because since until before after later soon "
    "tomorrow yesterday tonight instead otherwise though although anyway altogether together alone "
    "almost nearly roughly possibly probably certainly surely hopefully finally recently lately "
    "often never always sometimes usually once twice online outside nearby around across along "
    "among behind beyond during within without through toward under upon than when whenever where "
    "wherever whether which whose why how looks looking seems seen appears exists means matters "
    "works working happens happened changed needed wanted called named said asked told thinks "
    "knows comes came goes went gets got makes made takes took keeps kept lets shows ready used"
).split()
# Words that can be unknown without the request losing its sense.
COMMON = DROPPED | set("i of for it that this my tell show give get want need would what how".split())


def choose(rng, text):
    """Decides all `[a|b]`, those in macros too."""
    for name, wordings in MACROS.items():
        text = text.replace(name, wordings)
    while match := CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]
    return text


def phrasing(rng, texts, evaluation, made_up, ending=()):
    """One of the phrasings of training, or of those that are kept for the evaluation.

    In training a part of them is blurred, so that no single word is what a request hangs on, and
    no known word what a value ends at; `made_up` gives a word that means nothing, `ending` are the
    slots whose values show their end.
    """
    said = choose(rng, rng.choice([t for i, t in enumerate(texts) if (i % 4 == 3) == evaluation]))
    if evaluation:
        return said
    if rng.random() < 0.45:
        said = blurred(rng, said, made_up)
    if rng.random() < 0.35:
        said = crowded(rng, said, made_up, ending)
    return said


def dressed(rng, said, openings=OPENINGS, closings=CLOSINGS):
    """With words before and after that change nothing."""
    if rng.random() < 0.25:
        opening = rng.choice(openings)
        goes_on = opening[-2] in ",:" or opening[-2].isalpha()
        if goes_on and re.match(r"[A-Z][a-z]", said):
            said = said[0].lower() + said[1:]
        said = opening + said
    # After a value without a mark of its end, more words would belong to the value.
    if said[-1] in ".?!" and rng.random() < 0.2:
        said += rng.choice(closings)
    return said


def blurred(rng, said, made_up):
    """With a word too many, too few or unknown, or in another case; slots and quotes are kept."""
    words = said.split(" ")
    plain = [i for i, w in enumerate(words) if not set("{}\"'`") & set(w)]
    inner = [i for i in plain if i and i - 1 in plain]
    kind = rng.random()
    if kind < 0.2:
        words = [w.lower() if i in plain else w for i, w in enumerate(words)]
    elif kind < 0.4:
        for i in [i for i in plain if words[i].lower() in DROPPED][:2]:
            words[i] = ""
    elif kind < 0.55 and words[-1][-1:] in ".?!" and len(words) - 1 in plain:
        words[-1] = words[-1][:-1]
    elif kind < 0.8 and inner:
        filler = rng.choice(FILLERS) if rng.random() < 0.7 else made_up()
        words.insert(rng.choice(inner), filler)
    elif common := [i for i in plain if words[i].lower() in COMMON]:
        words[rng.choice(common)] = made_up()
    return " ".join(w for w in words if w) or said


def crowded(rng, said, made_up, ending):
    """With one more word right before or after one of the values."""
    words = said.split(" ")
    free = [i for i, w in enumerate(words) if (slot := SLOT.match(w)) and slot[2] in ending]
    if not free:
        return said
    at = rng.choice(free)
    slot, _, mark = SLOT.match(words[at]).groups()
    if at and rng.random() < 0.3:
        words.insert(at, rng.choice(ORDINARY))
    else:
        after = rng.choice(ORDINARY) if rng.random() < 0.5 else made_up()
        words[at] = f"{slot} {after}{mark}"
    return " ".join(words)
