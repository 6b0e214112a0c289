"""The newer interface of the official OpenAI client, and its agents, against a cluster."""

import openai
import pytest
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

QUESTION = "What is the weather in Brevo?"
SKY = '{"temperature": 23, "sky": "light rain"}'
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "strict": False,
}


def test_a_stream_has_what_the_whole_response_has(client, model):
    request = dict(model=model, input="Hello!", max_output_tokens=64, temperature=0)
    whole = client.responses.create(**request)
    assert (whole.object, whole.status, whole.error) == ("response", "completed", None)
    assert whole.output_text
    with client.responses.stream(**request) as stream:
        events = list(stream)
        last = stream.get_final_response()
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == list(
        range(len(events))
    )
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == last.output_text == whole.output_text
    assert last.usage.output_tokens == whole.usage.output_tokens
    assert last.usage.input_tokens == whole.usage.input_tokens


def test_a_tool_loop_thinks_calls_and_answers(client, model):
    items = [{"role": "user", "content": QUESTION}]
    request = dict(
        model=model,
        tools=[{"type": "namespace", "name": "sky", "description": "x", "tools": []}, WEATHER],
        reasoning={"effort": "high"},
        max_output_tokens=160,
        temperature=0,
    )
    called = client.responses.create(**request, input=items)
    thought, call = called.output
    assert (thought.type, call.type) == ("reasoning", "function_call")
    assert thought.content[0].text
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Brevo"}')
    assert 0 < called.usage.output_tokens_details.reasoning_tokens < called.usage.output_tokens

    items += called.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": SKY})
    last = client.responses.create(**request, input=items)
    assert last.status == "completed"
    assert "23" in last.output_text


def test_what_is_cut_off_is_incomplete(client, model):
    cut = client.responses.create(model=model, input="Hello!", max_output_tokens=2, temperature=0)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_a_bad_request_names_the_field(client, model, change, field):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": model, "input": "Hello!"} | change)
    assert caught.value.param == field


def test_an_agent_calls_its_tool_and_answers(base_url, model):
    set_tracing_disabled(True)
    asked = []

    @function_tool(strict_mode=False)
    def get_weather(city: str) -> str:
        """Get the current weather in a city."""
        asked.append(city)
        return SKY

    own = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=60)
    agent = Agent(
        name="Assistant",
        model=OpenAIResponsesModel(model=model, openai_client=own),
        model_settings=ModelSettings(temperature=0, max_tokens=160),
        tools=[get_weather],
    )
    result = Runner.run_sync(agent, QUESTION, max_turns=4)
    assert asked == ["Brevo"]
    assert "23" in result.final_output
