"""The official OpenAI client against a cluster: what it sends is understood, what it gets back
parses, and the figures in it are true."""

import json
import math
import uuid

import openai
import pytest

QUESTION = [{"role": "user", "content": "Tell me about the sea."}]


def test_models_are_listed(client, model):
    models = client.models.list().data
    assert [m.object for m in models] == ["model"] * len(models)
    assert client.models.retrieve(model).id == model


def test_a_chat_streams_the_text_that_it_gives_in_one_piece(client, model):
    request = dict(model=model, messages=QUESTION, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**request)
    assert whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason in ("length", "stop")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    stream = client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert len({c.id for c in chunks}) == 1
    parts = [c.choices[0] for c in chunks if c.choices]
    assert "".join(p.delta.content or "" for p in parts) == whole.choices[0].message.content
    assert [p.finish_reason for p in parts if p.finish_reason] == [whole.choices[0].finish_reason]
    # The last chunk has the usage and no choice.
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_completion_streams_the_text_that_it_gives_in_one_piece(client, model):
    request = dict(model=model, prompt="Once upon a time", max_tokens=24, temperature=0)
    whole = client.completions.create(**request)
    assert whole.object == "text_completion"
    chunks = list(client.completions.create(**request, stream=True))
    assert len(chunks) > 1
    text = "".join(c.choices[0].text for c in chunks if c.choices)
    assert text == whole.choices[0].text


def test_a_prompt_of_ids_is_continued_exactly_as_long_as_asked(client, model):
    answer = client.completions.create(
        model=model, prompt=list(range(10, 30)), max_tokens=7, extra_body={"ignore_eos": True}
    )
    assert answer.usage.prompt_tokens == 20
    assert answer.usage.completion_tokens == 7
    assert answer.choices[0].finish_reason == "length"


def test_equal_seeds_draw_equal_answers(client, model):
    def draw(seed):
        answer = client.completions.create(
            model=model, prompt="Dice:", max_tokens=16, temperature=1.5, seed=seed
        )
        return answer.choices[0].text

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_chat_logprobs_are_probabilities(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        ordered = [top.logprob for top in token.top_logprobs]
        assert ordered == sorted(ordered, reverse=True)
        assert sum(map(math.exp, ordered)) <= 1 + 1e-5
        # Greedy: the drawn token is the likeliest.
        assert token.logprob == pytest.approx(ordered[0], abs=1e-6)


def test_completion_logprobs_follow_the_text(client, model):
    answer = client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=6, temperature=0, logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == answer.usage.completion_tokens
    assert all(value <= 0 for value in logprobs.token_logprobs)
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)


def test_two_choices_are_told_apart(client, model):
    # A small model is so sure of itself that two short answers are often the same.
    request = dict(
        model=model, messages=QUESTION, max_tokens=48, temperature=2, seed=3, n=2,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    whole = client.chat.completions.create(**request)
    assert sorted(c.index for c in whole.choices) == [0, 1]
    texts = {c.index: c.message.content for c in whole.choices}
    assert texts[0] != texts[1]

    streamed = {0: "", 1: ""}
    finished = set()
    for chunk in client.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.add(choice.index)
    assert streamed == texts
    assert finished == {0, 1}


def test_a_stop_string_ends_the_answer_and_is_not_in_it(client, model):
    request = dict(
        model=model,
        prompt="Once upon a time",
        max_tokens=24,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    whole = client.completions.create(**request).choices[0].text
    middle = len(whole) // 2
    stop = whole[middle : middle + 4]
    cut = client.completions.create(**request, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]


def test_cached_tokens_are_reported_when_a_prompt_comes_back(client, model):
    # Its own words, so that no other test has warmed the cache.
    prompt = f"{uuid.uuid4()} " * 40
    request = dict(model=model, prompt=prompt, max_tokens=2, temperature=0)
    first = client.completions.create(**request).usage
    again = client.completions.create(**request).usage
    assert cached(first) == 0
    assert 0 < cached(again) < again.prompt_tokens
    assert again.prompt_tokens == first.prompt_tokens


def cached(usage) -> int:
    return usage.prompt_tokens_details.cached_tokens


def test_timing_and_workers_are_told_to_those_who_ask(client, model):
    request = dict(model=model, messages=QUESTION, max_tokens=4)
    plain = client.chat.completions.create(**request)
    assert getattr(plain, "nvext", None) is None
    asked = client.chat.completions.create(
        **request, extra_body={"nvext": {"extra_fields": ["timing", "worker_id"]}}
    )
    assert asked.nvext["timing"]
    assert asked.nvext["worker_id"]


def test_a_tool_loop_streams_the_call_that_it_gives_in_one_piece(client, model):
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": city,
    }
    messages = [{"role": "user", "content": "What is the weather in Brevo?"}]
    request = dict(
        model=model,
        tools=[{"type": "function", "function": function}],
        max_tokens=160,
        temperature=0,
        extra_body={"chat_template_kwargs": {"enable_thinking": True}},
    )
    whole = client.chat.completions.create(**request, messages=messages).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.reasoning_content
    (call,) = whole.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Brevo"}

    arguments, reasoning, names, finish = "", "", [], None
    for chunk in client.chat.completions.create(**request, messages=messages, stream=True):
        choice = chunk.choices[0]
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        for part in choice.delta.tool_calls or []:
            assert part.index == 0
            arguments += part.function.arguments or ""
            names += [part.function.name] if part.function.name else []
        finish = choice.finish_reason or finish
    assert (arguments, names) == (call.function.arguments, ["get_weather"])
    assert (reasoning, finish) == (whole.message.reasoning_content, "tool_calls")

    messages.append(whole.message.model_dump(exclude_none=True))
    sky = '{"temperature": 23, "sky": "light rain"}'
    messages.append({"role": "tool", "tool_call_id": call.id, "content": sky})
    last = client.chat.completions.create(**request, messages=messages).choices[0]
    assert last.finish_reason == "stop"
    assert "23" in last.message.content


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 10**9}, "n"),
        ({"messages": []}, "messages"),
        ({"top_logprobs": 10**6, "logprobs": True}, "top_logprobs"),
        ({"stop": ["x"] * 10**4}, "stop"),
    ],
)
def test_a_bad_request_names_the_field(client, model, change, param):
    request = {"model": model, "messages": QUESTION, "max_tokens": 4} | change
    with pytest.raises(openai.BadRequestError) as caught:
        # The raw call, since the typed one would refuse some of these itself.
        client.post("/chat/completions", body=request, cast_to=object)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.message


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert caught.value.param == "model"
    assert caught.value.code == "model_not_found"


def test_malformed_json_is_a_clean_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(
            "/chat/completions",
            content=b'{"model": ',
            options={"headers": {"content-type": "application/json"}},
            cast_to=object,
        )
    assert json.loads(caught.value.response.text)["error"]["type"] == "invalid_request_error"


def test_a_stream_that_is_given_up_does_not_hurt_the_next(client, model):
    for _ in range(5):
        with client.completions.create(
            model=model, prompt="Go on", max_tokens=500, stream=True, extra_body={"ignore_eos": True}
        ) as stream:
            next(iter(stream))
    answer = client.completions.create(model=model, prompt="Go on", max_tokens=4)
    assert answer.usage.completion_tokens >= 1
