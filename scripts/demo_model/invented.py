"""Tools that exist in one dialogue only. Nothing but their words tells what they are for.

They teach what a list of known tools cannot: that the tool to is the one whose name and
description say what the user says.
"""

from tools import Kind, p
from values import draw, held_out, made_up

NOUNS = (
    "population size color version score recipe balance license capacity rating author "
    "salary distance profile manual height menu order playlist photo branch container account "
    "device sensor budget grade mayor speed weight age depth name title editor license "
    "category level limit quota region currency password theme volume shelf "
    "room floor seat gate engine battery signal topic label group team member"
).split()
THINGS = (
    "page book room table song image user account order job lamp door car machine repository branch "
    "container device document project customer product node pod cluster camera garden invoice "
    "alarm channel group folder volume disk ship train bus plant cat dog robot lock window task"
).split()
VERBS = (
    "archive lock unlock publish approve cancel book charge scan pause resume enable disable "
    "rotate reboot clone deploy merge mute tag rate paint water feed fill close "
    "export import compress sign verify freeze release assign review test wash park"
).split()
GETTERS = "get fetch lookup show find read check query".split()
SETTERS = "set update change put".split()
VALUES = "word number identifier person city date phrase".split()


def known(rng, words, evaluation):
    """A word of the list or one that nobody knows, from the side of training or evaluation."""
    while True:
        word = rng.choice(words) if rng.random() < 0.6 else made_up(rng)
        if held_out(word) == evaluation:
            return word


def getter(rng, noun, thing, value):
    return Kind(
        [f"{rng.choice(GETTERS)}_{noun}", f"{thing}_{noun}", noun],
        [f"Get the {noun} of a {thing}.", f"Returns the {noun} of a {thing}", f"{noun} by {thing}"],
        [p(f"{thing} name id", value, f"The {thing}")],
        f"the {noun} of {{{thing}}}",
        {"fact": rng.choice(VALUES)},
        ["{fact}", f'{{"{noun}": "{{fact}}"}}', f"{noun}: {{fact}}"],
        f"The {noun} of {{{thing}}} is {{fact}}.",
        [
            f"@what the {noun} of [the {thing} |]{{{thing}}}[?|]",
            f"@know the {noun} of {{{thing}}}.",
            f"[Which|What] {noun} does {{{thing}}} have?",
            f"@get the {noun} [for|of] {{{thing}}}.",
            f"@show the {noun} of the {thing} {{{thing}}}.",
            f"{noun} of {{{thing}}}[?|, please|]",
            f"Does {{{thing}}} have a {noun}? Which one?",
            f"@can [get|check|find|look up] the {noun} of {{{thing}}}?",
        ],
    )


def setter(rng, noun, thing, value):
    return Kind(
        [f"{rng.choice(SETTERS)}_{noun}", f"{rng.choice(SETTERS)}_{thing}_{noun}"],
        [f"Set the {noun} of a {thing}.", f"Change the {noun} of a {thing}", f"Sets the {noun}."],
        [
            p(f"{thing} name id", value, f"The {thing}"),
            p(f"{noun} value to", rng.choice(("word", "number", "person", "city")), f"New {noun}"),
        ],
        f"the {noun} of {{{thing}}} to be {{{noun}}}",
        {"id": "identifier"},
        ["ok {id}", '{"changed": true, "id": "{id}"}', "change {id} is done"],
        f"The {noun} of {{{thing}}} is {{{noun}}} now. The change has the id {{id}}.",
        [
            f"[Set|Change|Put] the {noun} of {{{thing}}} to {{{noun}}}[.|, please.|]",
            f"[Make|Use] {{{noun}}} [the|as the] {noun} of {{{thing}}}[.|]",
            f"The {noun} of {{{thing}}} [should|must] be {{{noun}}}[.|]",
            f"@can [set|change] the {noun} of {{{thing}}} to {{{noun}}}?",
            f"Give {{{thing}}} the {noun} {{{noun}}}[.|]",
            f"@want {{{noun}}} as the {noun} of {{{thing}}}.",
            f"Let the {noun} of the {thing} {{{thing}}} be {{{noun}}}[.|]",
            f"Change the {noun} of the {thing} {{{thing}}} to {{{noun}}}, please.",
        ],
    )


def action(rng, verb, thing, value):
    return Kind(
        [f"{verb}_{thing}", f"{thing}_{verb}", verb],
        [f"{verb.capitalize()} a {thing}.", f"{verb} a {thing}", f"To {verb} a {thing}."],
        [p(f"{thing} name id", value, f"The {thing} to {verb}")],
        f"to {verb} {{{thing}}}",
        {"id": "identifier"},
        ["done, id {id}", '{"status": "done", "id": "{id}"}', "ok {id}"],
        f"It is done: {verb} {{{thing}}}. The id is {{id}}.",
        [
            f"{verb.capitalize()} [the {thing} |]{{{thing}}}[.|, please.|]",
            f"@want you to {verb} {{{thing}}}.",
            f"Please {verb} the {thing} {{{thing}}}[.|]",
            f"@can {verb} [the {thing} |]{{{thing}}}?",
            f"I have a {thing} {{{thing}}}, {verb} it[.|, please.|]",
            f"{verb} {{{thing}}}",
            f"It is time to {verb} [the {thing} |]{{{thing}}}[.|]",
            f"You [may|should|must] {verb} the {thing} {{{thing}}} now.",
        ],
    )


def invented(rng, evaluation):
    """A kind of tool that no other dialogue has, and the words that only it is called by."""
    noun, verb = (known(rng, words, evaluation) for words in (NOUNS, VERBS))
    thing = known(rng, THINGS, evaluation)
    if len({noun, verb, thing, "fact", "id"}) < 5:
        return invented(rng, evaluation)
    value = rng.choice(("word", "identifier", "full_name", "path", "host", "city"))
    kind = rng.random()
    if kind < 0.5:
        return getter(rng, noun, thing, value)
    if kind < 0.7:
        return setter(rng, noun, thing, value)
    return action(rng, verb, thing, value)
