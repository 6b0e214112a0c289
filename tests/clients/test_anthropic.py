"""The official Anthropic client against a cluster: messages, streams, a tool loop, counts, errors."""

import anthropic
import pytest

# The interface has it, though this client no longer names it.
GREEDY = {"temperature": 0}
HELLO = [{"role": "user", "content": "Hello!"}]
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="session")
def client(base_url):
    # A retry would hide what a test wants to see.
    return anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


def total(usage) -> int:
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens


def test_a_stream_has_what_the_whole_message_has(client, model):
    request = dict(model=model, messages=HELLO, max_tokens=64, extra_body=GREEDY)
    whole = client.messages.create(**request)
    assert (whole.type, whole.role, whole.stop_reason) == ("message", "assistant", "end_turn")
    assert [block.type for block in whole.content] == ["text"]
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == whole.content[0].text
    assert [block.text for block in last.content] == [text]
    assert last.stop_reason == whole.stop_reason
    assert last.usage.output_tokens == whole.usage.output_tokens
    assert total(last.usage) == total(whole.usage)


def test_a_tool_loop_thinks_calls_and_answers(client, model):
    messages = [{"role": "user", "content": "What is the weather in Brevo?"}]
    request = dict(
        model=model,
        tools=[WEATHER],
        max_tokens=160,
        thinking={"type": "adaptive"},
        extra_body=GREEDY,
    )
    events = []
    with client.messages.stream(**request, messages=messages) as stream:
        for event in stream:
            events.append(event.type)
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use"
    thought, call = called.content
    assert (thought.type, call.type) == ("thinking", "tool_use")
    assert thought.thinking and thought.signature
    assert (call.name, call.input) == ("get_weather", {"city": "Brevo"})
    assert events[0] == "message_start" and events[-1] == "message_stop"
    assert events.count("content_block_start") == events.count("content_block_stop") == 2

    sky = '{"temperature": 23, "sky": "light rain"}'
    result = {"type": "tool_result", "tool_use_id": call.id, "content": sky}
    messages.append({"role": "assistant", "content": called.content})
    messages.append({"role": "user", "content": [result]})
    last = client.messages.create(**request, messages=messages)
    assert last.stop_reason == "end_turn"
    assert "23" in last.content[-1].text


def test_the_helper_runs_tools_by_itself(client, model):
    asked = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the current weather in a city."""
        asked.append(city)
        return '{"temperature": 23, "sky": "light rain"}'

    runner = client.beta.messages.tool_runner(
        model=model,
        max_tokens=160,
        extra_body=GREEDY,
        tools=[get_weather],
        messages=[{"role": "user", "content": "What is the weather in Brevo?"}],
    )
    last = runner.until_done()
    assert asked == ["Brevo"]
    assert "23" in last.content[-1].text


def test_a_count_is_what_the_prompt_has(client, model):
    prompt = dict(model=model, messages=HELLO, system="Be brief.", tools=[WEATHER])
    counted = client.messages.count_tokens(**prompt).input_tokens
    assert counted == total(client.messages.create(**prompt, max_tokens=1).usage)


def test_usage_tells_what_was_found_and_what_was_not(client, model):
    marked = {"type": "ephemeral", "ttl": "1h"}
    text = "These words are this test's own. " * 20
    request = dict(
        model=model,
        max_tokens=1,
        system=[{"type": "text", "text": text, "cache_control": marked}],
        messages=HELLO,
    )
    first = client.messages.create(**request).usage
    again = client.messages.create(**request).usage
    assert first.cache_creation.ephemeral_1h_input_tokens > 0
    assert first.cache_creation.ephemeral_5m_input_tokens == 0
    assert first.cache_read_input_tokens == 0
    assert again.cache_read_input_tokens > 0
    assert total(again) == total(first)


def test_a_stop_sequence_is_named(client, model):
    request = dict(model=model, messages=HELLO, max_tokens=64, extra_body=GREEDY)
    whole = client.messages.create(**request).content[0].text
    stop = whole[len(whole) // 2 :][:4]
    cut = client.messages.create(**request, stop_sequences=[stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)
    assert cut.content[0].text == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
        ({"messages": []}, "messages"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, "thinking.budget_tokens"),
    ],
)
def test_a_bad_request_names_the_field(client, model, change, field):
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{"model": model, "messages": HELLO, "max_tokens": 4} | change)
    error = caught.value
    assert error.body["error"]["type"] == "invalid_request_error"
    assert f"'{field}'" in error.body["error"]["message"]
    assert error.request_id == error.body["request_id"]


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_know(client, model):
    long = [{"role": "user", "content": "word " * 50_000}]
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+"):
        client.messages.create(model=model, messages=long, max_tokens=4)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="no-such-model", messages=HELLO, max_tokens=4)
    assert caught.value.body["error"]["type"] == "not_found_error"
